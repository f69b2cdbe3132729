"""A parameter's name leads to its state: any hashable, one state and one count each, and one parameter for good."""

import enum
import re

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from _kit.rows import rows
from _kit.states import OPTIMIZERS, equal, every_optimizer, held, model, nothing_changes, same, train

from xpopt import SGD, Adam
from xpopt._checkpoint import renaming
from xpopt._checkpoint.renaming import Renaming

pytestmark = pytest.mark.any_immutable

NAN = float("nan")


class Layer(enum.Enum):
    FIRST = 1


class Name:
    """Equal to itself alone."""


NAMES = [
    "W",
    "",
    "x" * 100_000,
    None,
    0,
    -1,
    10**100,
    1.5,
    NAN,
    ...,
    (),
    ("enc", 0, "w"),
    ("enc", (None, NAN)),
    b"W",
    frozenset({1, "a"}),
    Layer.FIRST,
    Name,
    Name(),
    len,
]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: type(name).__name__)
def test_any_hashable_is_a_name(backend, name):
    opt = Adam()
    W = backend.array([1.0, 2.0])
    for _ in range(3):
        W = opt.update(W, W, name)
    assert list(opt.cache) == [name]
    assert opt.cache[name]["t"] == 3


def test_names_keep_their_states_apart(backend):
    """Each name goes its way as if it were alone, however the others' updates fall in between."""
    together = Adam(lr=0.125)
    alone = [Adam(lr=0.125) for _ in NAMES]
    W = [backend.array([1.0 + i]) for i in range(len(NAMES))]
    V = list(W)
    for i, name in enumerate(NAMES):
        for _ in range(1 + i % 3):
            g = backend.array([0.5 + i])
            W[i] = together.update(W[i], g, name)
            V[i] = alone[i].update(V[i], g, "only")
    assert len(together.cache) == len(NAMES)
    for i, name in enumerate(NAMES):
        assert same(backend, W[i], V[i])
        assert same(backend, together.cache[name], alone[i].cache["only"])
        assert together.cache[name]["t"] == 1 + i % 3


def test_the_count_is_the_names_and_not_the_step(backend):
    opt, fresh = Adam(lr=0.125), Adam(lr=0.125)
    params, grads = model(backend)
    opt.update(params["W"], grads["W"], "W")
    opt.cur_step = 1000
    assert same(backend, opt.update(params["b"], grads["b"], "b"), fresh.update(params["b"], grads["b"], "b"))
    assert (opt.cache["W"]["t"], opt.cache["b"]["t"]) == (1, 1)


def test_equal_names_are_one_name(backend):
    opt = Adam()
    W = backend.array([1.0])
    for name in (1, 1.0, True, ("a", 2), ("a", 2.0)):
        opt.update(W, W, name)
    assert [entry["t"] for entry in opt.cache.values()] == [3, 2]


@pytest.mark.parametrize("name", [[], {}, ["W"], ("a", ["b"]), {1}], ids=repr)
def test_what_cannot_be_hashed_is_no_name(backend, name):
    opt = SGD(lr=0.125, momentum=0.5)
    train(backend, opt, 2)
    W = backend.array([1.0])
    with nothing_changes(backend, opt, W), pytest.raises(TypeError, match=r"param_name .*hash"):
        opt.update(W, W, name)


@every_optimizer
def test_a_name_is_of_one_shape(backend, make):
    opt = make()
    train(backend, opt, 2)
    for shape in [(3, 2), (2, 3, 1), (6,), (), (0,), (1, 3)]:
        x = backend.array(np.ones(shape))
        with nothing_changes(backend, opt, x), pytest.raises(ValueError, match="'W'") as error:
            opt.update(x, x, "W")
        assert str((2, 3)) in str(error.value)
        assert str(shape) in str(error.value)


@every_optimizer
def test_a_name_is_of_one_dtype(backend, make):
    for dtype in backend.dtypes:
        opt = make()
        train(backend, opt, 2, dtype=dtype)
        others = {other: backend.array(np.ones((2, 3)), other) for other in backend.dtypes if other != dtype}
        with nothing_changes(backend, opt, others, dtype=dtype):
            for other, x in others.items():
                with pytest.raises(ValueError, match="'W'") as error:
                    opt.update(x, x, "W")
                assert dtype in str(error.value)
                assert other in str(error.value)


@every_optimizer
def test_a_name_stays_of_one_shape_through_copies_and_schedules(backend, make):
    opt = make()
    train(backend, opt, 1)
    for one in (opt.copy(), opt):
        one.lr_scheduler = "noam"
        one.set_params({"lr": 0.5})
        one.reset_step()
        x = backend.array([1.0])
        with pytest.raises(ValueError, match="'W'"):
            one.update(x, x, "W")


@every_optimizer
def test_the_error_shows_a_nested_name_as_a_path(backend, make):
    opt = make()
    x, y = backend.array([1.0]), backend.array([1.0, 2.0])
    opt.update(x, x, ("enc", 0, "w"))
    with pytest.raises(ValueError, match="'enc/0/w'"):
        opt.update(y, y, ("enc", 0, "w"))


@pytest.mark.parametrize("make", rows(OPTIMIZERS, ["Adam"]))
def test_any_shape_and_layout_is_a_parameter(backend, make):
    """0-d, empty, transposed and sliced arrays all become what a plain array with their values becomes."""
    whole = np.arange(24.0).reshape(4, 6) - 7
    picks = [np.s_[0, 0], np.s_[:0, :], np.s_[1:1, 2:2], np.s_[::2, ::3], np.s_[:, 1]]
    if backend.library != "torch":  # which has no negative strides
        picks += [np.s_[::-1, :], np.s_[::2, ::-3]]
    for pick in picks:
        for turn in (False, True):
            values = whole[pick].T if turn else whole[pick]
            view = backend.array(whole)[pick]
            view = backend.xp.permute_dims(view, tuple(reversed(range(view.ndim)))) if turn else view
            plain = backend.array(values)
            opt, other = make(), make()
            for _ in range(2):
                got = opt.update(view, view, "W")
                assert same(backend, got, other.update(plain, plain, "W"))
                assert tuple(got.shape) == values.shape


def test_an_optimizer_starts_with_nothing(backend):
    opt = SGD()
    assert held(backend, opt)["cache"] == {}
    assert opt.cur_step == 0
    assert equal(backend, opt.update(backend.array(2.0), backend.array(0.0), None), 2.0)


# New names by patterns


def stands_for(old, name):
    """What each star stands for, by regular expressions of the text; None if the pattern does not fit."""
    if isinstance(old, str) and isinstance(name, str):
        found = re.fullmatch("(.*)".join(re.escape(piece) for piece in old.split("*")), name, re.DOTALL)
        return found and list(found.groups())
    if not isinstance(old, tuple) or not isinstance(name, tuple):
        return [] if type(old) is type(name) and old == name else None
    if old and old[-1] == "*":
        if len(name) < len(old):
            return None
        inner = stands_for((*old[:-1], "end"), (*name[: len(old) - 1], "end"))
        return inner if inner is None else [*inner, name[len(old) - 1 :]]
    if len(old) != len(name):
        return None
    inner = [stands_for(*pair) for pair in zip(old, name, strict=True)]
    return None if None in inner else [one for of in inner for one in of]


ANY_NAME = st.recursive(
    st.text("ab", max_size=4) | st.sampled_from([0, 1, True, None, b"a"]), lambda of: st.tuples(of) | st.tuples(of, of)
)
PATTERNS = st.recursive(
    st.text("ab*", max_size=5) | st.sampled_from([0, 1, True, None, b"a"]),
    lambda of: st.tuples(of) | st.tuples(of, of) | st.tuples(of, st.just("*")),
)


@hypothesis.given(st.lists(PATTERNS, max_size=6, unique_by=repr), st.lists(ANY_NAME, max_size=6))
def test_the_first_pattern_that_fits_is_taken(patterns, names):
    """The new name tells which pattern it was, and what its stars stood for."""
    patterns = list(dict.fromkeys(patterns))
    renamed, used = Renaming({old: (old, i) for i, old in enumerate(patterns)}), set()
    for name in names:
        fits = [i for i, old in enumerate(patterns) if stands_for(old, name) is not None]
        used.update(fits[:1])
        wanted = (name, fits[0]) if fits else name
        assert repr(renamed(name)) == repr(wanted)  # True is not 1
    assert len(renamed.problems()) == len(patterns) - len(used)


@hypothesis.given(st.text("ab*", max_size=7), st.text("ab", max_size=8))
def test_what_stars_stand_for(pattern, text):
    """The first for as much as it can, as in a regular expression."""
    assert renaming._match(pattern, text) == stands_for(pattern, text)


@pytest.mark.parametrize(
    "old",
    [
        lambda i: f"layer{i}.w",
        lambda i: f"layer{i}.*",
        lambda i: ("enc", i, "w"),
        lambda i: ("enc", i, "*"),
        lambda i: ("enc", f"layer{i}.*", "w"),
    ],
)
def test_many_names_are_renamed_by_few_comparisons(old, monkeypatch):
    """However many patterns there are."""
    compared = []
    match = renaming._match_text
    monkeypatch.setattr(renaming, "_match_text", lambda *args: compared.append(args) or match(*args))
    count = 2000

    def new(i):
        pattern = old(i)
        return ("dec", *pattern) if isinstance(pattern, tuple) else f"dec.{pattern}"

    def name(pattern):
        if isinstance(pattern, str):
            return pattern.replace("*", "w")
        return tuple(part.replace("*", "w") if isinstance(part, str) else part for part in pattern)

    of = Renaming({old(i): new(i) for i in range(count)})
    wanted = [name(new(i)) for i in range(count)]
    assert [of(name(old(i))) for i in range(count)] == wanted
    assert not of.problems()
    assert len(compared) <= 5 * count
