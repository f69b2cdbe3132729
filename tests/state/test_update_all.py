"""The whole model in one call: containers, names, missing gradients, and `out=`."""

from collections import ChainMap, Counter, OrderedDict, UserDict, defaultdict, namedtuple
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import pytest
from _kit.states import (
    KING,
    OPTIMIZERS,
    equal,
    every_optimizer,
    frozen,
    held,
    model,
    nothing_changes,
    outlook,
    same,
    train,
    writes,
)

from xpopt import SGD, Adam
from xpopt._arrays.tree import show

pytestmark = pytest.mark.any_width

Pair = namedtuple("Pair", "w b")


class Layers(list):
    pass


class Weights(tuple):
    pass


class Frozen(Mapping):
    """A mapping that knows only how to be read, and to be made of another one."""

    def __init__(self, items):
        self.items_of_it = dict(items)

    def __getitem__(self, key):
        return self.items_of_it[key]

    def __iter__(self):
        return iter(self.items_of_it)

    def __len__(self):
        return len(self.items_of_it)


class Tagged(dict):
    tag = None


def trees(a, b):
    """The arrays `a` and `b` in containers of every kind, with the names they get."""
    tagged = Tagged(w=a, b=b)
    tagged.tag = "mine"
    return [
        ({"w": a, "b": b}, ["w", "b"]),
        (OrderedDict(b=b, w=a), ["b", "w"]),
        (defaultdict(list, w=a, b=b), ["w", "b"]),
        (MappingProxyType({"w": a, "b": b}), ["w", "b"]),
        (ChainMap({"w": a}, {"b": b}), ["b", "w"]),
        (UserDict(w=a, b=b), ["w", "b"]),
        (Frozen({"w": a, "b": b}), ["w", "b"]),
        (tagged, ["w", "b"]),
        ([a, b], [0, 1]),
        ((a, b), [0, 1]),
        (Layers([a, b]), [0, 1]),
        (Weights([a, b]), [0, 1]),
        (Pair(a, b), [0, 1]),
        ({0: a, None: b}, [0, None]),
        ({("enc", "w"): a, 1.5: b}, [("enc", "w"), 1.5]),
        ({"enc": {"w": a, "b": b}}, [("enc", "w"), ("enc", "b")]),
        ([{"w": a}, {"w": b}], [(0, "w"), (1, "w")]),
        ({"enc": [Pair(a, b)], "dec": {}}, [("enc", 0, 0), ("enc", 0, 1)]),
        ((a, [b], [], {}, ()), [0, (1, 0)]),
        (Pair({"w": a}, MappingProxyType({"deep": {"er": (b,)}})), [(0, "w"), (1, "deep", "er", 0)]),
    ]


CASES = pytest.mark.parametrize("case", range(len(trees(None, None))))


def skeleton(tree):
    """The containers of a tree, without what is in them."""
    if isinstance(tree, Mapping):
        extra = getattr(tree, "default_factory", None), getattr(tree, "tag", None)
        return type(tree), extra, [(key, skeleton(value)) for key, value in tree.items()]
    if isinstance(tree, list | tuple):
        return type(tree), [skeleton(value) for value in tree]
    return "leaf"


def leaves(tree):
    if isinstance(tree, Mapping):
        return [x for value in tree.values() for x in leaves(value)]
    if isinstance(tree, list | tuple):
        return [x for value in tree for x in leaves(value)]
    return [tree]


@CASES
def test_containers_of_the_same_kind_come_back(backend, case):
    """With the values, and the state, that `update` gives under the documented names."""
    params, grads = model(backend)
    (tree, names), (gradient, _) = (trees(x["W"], x["b"])[case] for x in (params, grads))
    whole, single = Adam(lr=0.125), Adam(lr=0.125)
    values = leaves(tree)
    for step in range(2):
        shape, before = skeleton(tree), frozen(backend, leaves(tree))
        new = whole.update_all(tree, gradient)
        assert skeleton(new) == skeleton(tree) == shape
        assert new is not tree
        assert frozen(backend, leaves(tree)) == before
        values = [single.update(x, g, name) for x, g, name in zip(values, leaves(gradient), names, strict=True)]
        single.step()
        assert same(backend, leaves(new), values)
        assert whole.cur_step == step + 1
        tree = new
    assert list(whole.cache) == names
    assert same(backend, whole.cache, single.cache)


@CASES
def test_gradients_may_come_in_other_containers(backend, case):
    """Only the names count."""
    params, grads = model(backend)
    (tree, names), (gradient, _) = (trees(x["W"], x["b"])[case] for x in (params, grads))
    flat = {}
    for name, g in reversed(list(zip(names, leaves(gradient), strict=True))):
        path = name if isinstance(name, tuple) and name != ("enc", "w") else (name,)
        path = name if case == 15 else path
        here = flat
        for key in path[:-1]:
            here = here.setdefault(key, {})
        here[path[-1]] = g
    assert same(backend, leaves(SGD().update_all(tree, flat)), leaves(SGD().update_all(tree, gradient)))


def test_a_kind_with_a_mind_of_its_own_comes_back_too(backend):
    x = backend.array([1.0])
    counted = SGD(lr=0.5).update_all(Counter(w=x), {"w": x})
    assert type(counted) is Counter
    assert same(backend, counted["w"], backend.array([0.5]))


class Needs(Mapping):
    """Cannot be made of one mapping."""

    def __init__(self, items, more):
        self.items_of_it = items

    __getitem__ = Frozen.__getitem__
    __iter__ = Frozen.__iter__
    __len__ = Frozen.__len__


class Three(list):
    """Cannot be made of a sequence."""

    def __init__(self, a, b, c):
        super().__init__([a, b, c])


class Closed(dict):
    """Takes no new values."""

    def update(self, *args, **kwargs):
        raise TypeError("closed")

    __setitem__ = update


@pytest.mark.parametrize("container", ["Needs", "Three", "Closed"])
def test_a_container_that_cannot_be_made_again_is_an_error_in_time(backend, container):
    opt = Adam(lr_scheduler=KING)
    train(backend, opt, 4)
    params, grads = model(backend)
    tree, gradient = {
        "Needs": (Needs(params, 1), grads),
        "Three": (Three(params["W"], params["b"], params["b"]), [grads["W"], grads["b"], grads["b"]]),
        "Closed": (Closed(params), grads),
    }[container]
    with nothing_changes(backend, opt, params, grads), pytest.raises(TypeError):
        opt.update_all(tree, gradient, 9.0)


@every_optimizer
def test_it_is_one_step(backend, make):
    """`update` of each under the same rate, then `step()`."""
    whole, single = make(lr_scheduler=KING, clip_norm=0.5), make(lr_scheduler=KING, clip_norm=0.5)
    params, _ = model(backend)
    want = dict(params)
    for step in range(5):
        _, grads = model(backend, scale=step - 2.5)
        params = whole.update_all(params, grads, float(step))
        want = {name: single.update(want[name], grads[name], name, float(step)) for name in want}
        single.step()
        assert whole.lr_scheduler.state() == single.lr_scheduler.state()
    assert whole.lr_scheduler.state()["rate"] == 0.125 / 4
    assert same(backend, params, want)
    assert held(backend, whole) == held(backend, single)


def test_the_loss_may_be_given_by_name_and_out_only_by_name(backend):
    opt = SGD(lr_scheduler=KING)
    params, grads = model(backend)
    opt.update_all(params, grads, cur_loss=2.0)
    assert opt.lr_scheduler.state()["losses"] == [2.0]
    with pytest.raises(TypeError, match="positional"):
        opt.update_all(params, grads, 1.0, params)
    with pytest.raises(TypeError, match="positional"):
        opt.update(params["W"], grads["W"], "W", 1.0, params["W"])


@pytest.mark.parametrize("tree", [{}, [], (), {"a": {}}, [[], ()]], ids=repr)
def test_a_model_without_parameters_is_a_step_too(backend, tree):
    opt = SGD()
    assert opt.update_all(tree, tree) == tree
    assert opt.cur_step == 1
    assert opt.cache == {}


@pytest.mark.parametrize(
    "tree", [None, 3.0, "params", {1, 2}, iter([]), object()], ids=lambda tree: type(tree).__name__
)
def test_what_is_no_container_is_refused(backend, tree):
    params, grads = model(backend)
    opt = Adam()
    with nothing_changes(backend, opt, params, grads):
        with pytest.raises(TypeError, match="params is a"):
            opt.update_all(tree, grads)
        with pytest.raises(TypeError, match="grads is a"):
            opt.update_all(params, tree)
    with pytest.raises(TypeError, match=r"params is a .*update"):
        opt.update_all(params["W"], grads["W"])


@pytest.mark.parametrize("leaf", [1, True, None, "W", object], ids=repr)
def test_what_is_no_float_is_no_parameter(backend, leaf):
    x = backend.array([1.0])
    opt = Adam()
    with nothing_changes(backend, opt, x):
        with pytest.raises(TypeError, match="parameter 'b'"):
            opt.update_all({"W": x, "b": leaf}, {"W": x, "b": x})
        with pytest.raises(TypeError, match="parameter 'enc/1'"):
            opt.update_all({"W": x, "enc": [x, leaf]}, {"W": x, "enc": [x, x]})
        if leaf is not None:
            with pytest.raises(TypeError, match="gradient of 'b'"):
                opt.update_all({"W": x, "b": x}, {"W": x, "b": leaf})


@every_optimizer
def test_floats_come_back_as_floats(backend, make):
    """As the values that `update` gives for them, beside arrays, nested, and whatever the gradient is."""
    whole, single = make(clip_norm=0.5), make(clip_norm=0.5)
    params = {"m": 1.5, "W": backend.array([1.0, 2.0]), "fit": [2.5, (3.5,)]}
    grads = {"m": backend.array(0.5), "W": backend.array([1.0, -1.0])}
    grads["fit"] = [backend.array(1.0, backend.dtypes[0]), (backend.array(-2.0),)]
    for step in range(4):
        gradient = {**grads, "fit": [grads["fit"][0], (None,)]} if step == 2 else grads
        new = whole.update_all(params, gradient)
        (m, (fit, (deep,))), (new_m, (new_fit, (new_deep,))) = ((x["m"], x["fit"]) for x in (params, new))
        assert (type(new_m), type(new_fit), type(new_deep)) == (float, float, float)
        assert equal(backend, single.update(m, grads["m"], "m"), new_m)
        assert equal(backend, single.update(fit, grads["fit"][0], ("fit", 0)), new_fit)
        if step == 2:
            assert new_deep is deep
        else:
            assert equal(backend, single.update(deep, grads["fit"][1][0], ("fit", 1, 0)), new_deep)
        assert same(backend, new["W"], single.update(params["W"], grads["W"], "W"))
        params = new
        single.step()
    assert held(backend, whole) == held(backend, single)


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("given", [lambda x: x, np.float64, np.array], ids=["float", "scalar", "array"])
def test_floats_alone(fused, given):
    """As in a fit of a slope and an intercept; the gradients may be NumPy's."""
    fit = {"slope": 1.0, "intercept": 0.0}
    opt = SGD(lr=0.25)
    for _ in range(2):
        fit = opt.update_all(fit, {"slope": given(0.5), "intercept": given(1.0)})
    assert fit == {"slope": 0.75, "intercept": -0.5}
    assert {type(x) for x in fit.values()} == {float}
    assert opt.cur_step == 2


@writes
def test_a_float_cannot_be_written(backend):
    opt = SGD(lr=0.5)
    params, out = {"m": 1.0}, {"m": backend.writable(0.0)}
    grads = {"m": backend.array(1.0)}
    with nothing_changes(backend, opt), pytest.raises(TypeError, match=f"out of 'm' is a float.*{backend.library}"):
        opt.update_all(params, grads, out=params)
    assert opt.update_all(params, grads, out=out) is out
    assert list(backend.numpy(out["m"])[None]) == [0.5]


@pytest.mark.backends("numpy", "torch", "jax")
@pytest.mark.parametrize("policy", ["skip", "raise"])
def test_floats_where_steps_are_left_out(backend, policy):
    opt = SGD(lr=0.5, nonfinite=policy)
    params, grads = {"m": 1.0, "b": 2.0}, {"m": float("nan"), "b": None}
    if policy == "raise":
        with nothing_changes(backend, opt), pytest.raises(FloatingPointError, match="'m'"):
            opt.update_all(params, grads)
    else:
        assert opt.update_all(params, grads) == params
        grads["m"] = backend.array(np.nan)
        assert opt.update_all(params, grads) == params
        assert opt.skipped == 2


@pytest.mark.backends("numpy", "numpy-readonly")
def test_the_scalars_that_numpy_makes_of_0d_arrays_are_taken(backend):
    """`x[0]` and `x.sum()` are what its user has where other libraries have arrays."""
    x = backend.array([2.0, 4.0])
    new = SGD(lr=0.5).update_all({"a": x[0], "b": x.sum()}, {"a": x[1], "b": None})
    assert [float(value) for value in new.values()] == [0.0, 6.0]
    with pytest.raises(TypeError, match="parameter 'a'"):
        SGD().update_all({"a": np.int64(3)}, {"a": x[0]})


@every_optimizer
def test_without_a_gradient_a_parameter_rests(backend, make):
    """Neither its value, nor its state, nor its count moves; the others' and the step do."""
    opt, other = make(), make()
    params = train(backend, opt, 2)
    train(backend, other, 2)
    _, grads = model(backend)
    new = opt.update_all(params, {"W": None, "b": grads["b"]})
    assert same(backend, new["W"], params["W"])
    assert same(backend, new["b"], other.update(params["b"], grads["b"], "b"))
    assert opt.cur_step == 3
    other.step()
    assert held(backend, opt) == held(backend, other)
    assert outlook(backend, opt) == outlook(backend, other)


def test_a_parameter_that_never_had_a_gradient_has_no_state(backend):
    opt = Adam(lr_scheduler=KING)
    params, grads = model(backend)
    new = opt.update_all(params, dict.fromkeys(params), 1.0)
    assert same(backend, new, params)
    assert opt.cache == {}
    assert opt.cur_step == 1
    assert opt.lr_scheduler.state()["losses"] == [1.0]
    opt.update_all(params, {"W": grads["W"], "b": None}, 1.0)
    assert set(opt.cache) == {"W"}


@pytest.mark.parametrize(
    ("grads", "listed", "unlisted"),
    [
        ({"V": 0}, ["'enc/b'", "'enc/0'"], ["'V'"]),
        ({"V": 0, "enc": {"b": 0, 0: 0}, "new": 0, "dec": [0]}, ["'new'", "'dec/0'"], ["'V'", "'enc/b'"]),
        ({"v": 0, "enc": {"b": 0, 0: 0}}, ["'V'", "'v'"], ["'enc/b'"]),
        ({"V": 0, "enc": None}, ["'enc/b'", "'enc/0'", "'enc'"], ["'V'"]),
        ({}, ["'V'", "'enc/b'", "'enc/0'"], []),
        ([0, 0], ["'V'", "0", "1"], []),
    ],
    ids=range(6),
)
def test_missing_and_extra_names_are_listed(backend, grads, listed, unlisted):
    x = backend.array([1.0])

    def fill(tree):
        if isinstance(tree, dict):
            return {key: fill(value) for key, value in tree.items()}
        return [fill(value) for value in tree] if isinstance(tree, list) else tree if tree is None else x

    params = fill({"V": 0, "enc": {"b": 0, 0: 0}})
    opt = Adam()
    opt.update_all(params, params)
    for wrong in ("grads", "out"):
        arguments = {"grads": params, wrong: fill(grads)}
        with nothing_changes(backend, opt, x), pytest.raises(ValueError, match=f"^{wrong} ") as error:
            opt.update_all(params, **arguments)
        for name in listed:
            assert name in str(error.value)
        for name in unlisted:
            assert name not in str(error.value)


def test_two_leaves_of_one_name_are_refused(backend):
    x = backend.array([1.0])
    twice = {"enc": {"w": x}, ("enc", "w"): x}
    opt = SGD()
    with nothing_changes(backend, opt, x), pytest.raises(ValueError, match="two leaves named 'enc/w'"):
        opt.update_all(twice, twice)


def test_an_array_may_stand_in_many_places(backend):
    """Two parameters that begin as the same array are two parameters."""
    x = backend.array([1.0, 2.0])
    opt = Adam(lr=0.125)
    new = opt.update_all({"a": x, "b": x}, {"a": x, "b": x})
    assert same(backend, new["a"], new["b"])
    assert new["a"] is not new["b"]
    assert opt.cache["a"]["mean"] is not opt.cache["b"]["mean"]


# A sequence that has become shorter


def shrinks(x, y, z):
    """Models in which indices are names, and what is left when one parameter is removed, or all; the names gone."""
    return {
        "list": ([x, y, z], [x, z], [2]),
        "tuple": ((x, y, z), (z,), [1, 2]),
        "all": ([x, y], [], [0, 1]),
        "nested": ({"enc": [x, y], "c": z}, {"enc": [y], "c": z}, [("enc", 1)]),
        "models in a list": ([{"w": x}, {"w": y}, {"w": z}], [{"w": x}, {"w": z}], [(2, "w")]),
        "deep": ([[x, (y, z)]], [[x, (z,)]], [(0, 1, 1)]),
        "a layer of several": ({"layers": [[x, y], [z]]}, {"layers": [[z]]}, [("layers", 0, 1), ("layers", 1, 0)]),
    }


SHRINKS = list(shrinks(None, None, None))


@pytest.mark.parametrize("case", SHRINKS)
@pytest.mark.parametrize("whole", [True, False], ids=["update_all", "explain"])
def test_a_sequence_that_has_become_shorter_is_refused(backend, case, whole):
    """What follows would get the state of its neighbour; the error names the indices and both ways out."""
    before, after, gone = shrinks(*(backend.array([float(i)]) for i in range(3)))[case]
    opt = SGD(momentum=0.9)
    opt.update_all(before, before)
    arguments = (after, after) if whole else (after,)
    with nothing_changes(backend, opt), pytest.raises(ValueError, match="params has no ") as error:
        (opt.update_all if whole else opt.explain)(*arguments)
    for name in gone:
        assert show(name) in str(error.value)
    assert f"del opt.cache[{gone[0]!r}]" in str(error.value)
    assert "dict" in str(error.value)
    for name in gone:
        del opt.cache[name]
    opt.update_all(after, after)
    assert opt.cur_step == 2


def test_a_sequence_may_grow_and_others_may_be_named_alike(backend):
    x = backend.array([1.0])
    opt = SGD(momentum=0.9)
    names = [0, 1, ("enc", 0), ("enc", 1), "b", "enc", (7,)]
    opt.update(x, x, (7,))
    opt.update(x, x, "b")
    for params in ([x], [x, x], {"enc": [x]}, {"enc": [x, x]}, {"enc": x}, {1: x}, {("enc", 1): x}, {"b": x}, {}):
        opt.update_all(params, params)
        opt.explain(params)
    assert set(opt.cache) == set(names)
    opt = SGD(momentum=0.9)
    opt.update_all([x, x, x], [x, x, None])
    opt.update_all([x, x], [x, x])  # which had no state
    opt.update_all([x, x, x, x], [x, None, None, x])


class Thing:
    """No array."""


def at_rest(backend):
    """What may be in a model, has no gradient, and could not be updated."""
    read_only = np.ones(2)
    read_only.flags.writeable = False
    things = [3, True, 1j, 0.5, "a name", None, Thing(), np.float64(2.0), np.int64(3), np.array(["text"]), read_only]
    things += [np.ma.masked_array([1.0, 2.0], mask=[True, False]), np.array([Thing()]), np.array(3), np.array(True)]
    things += [backend.xp.asarray(3), backend.xp.asarray([True]), np.ones(4)[::2], np.ones(0)]
    return things


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("nonfinite", ["propagate", "skip"])
def test_what_rests_is_not_looked_at(backend, nonfinite):
    things = at_rest(backend)
    params = {"W": backend.writable([1.0, 2.0]), "rest": list(things)}
    bad, good = backend.array([np.inf, 1.0]), backend.array([0.5, 0.5])
    opt = SGD(lr=0.5, nonfinite=nonfinite)
    for grad in (good, good, *([bad] if nonfinite == "skip" else [])):
        grads = {"W": grad, "rest": [None] * len(things)}
        for out in [None, *([params, {**params}] if backend.mutable else [])]:
            values = backend.numpy(params["W"])
            new = opt.update_all(params, grads, out=out)
            assert all(x is thing for x, thing in zip(new["rest"], things, strict=True))
            want = values - 0.25 if grad is good else values
            assert equal(backend, new["W"], want)
    assert set(opt.cache) == {"W"}


@writes
@pytest.mark.parametrize("nonfinite", ["propagate", "skip"])
def test_what_rests_is_written_where_out_is_another(backend, nonfinite):
    """Also if it is of a dtype that cannot be updated; what does not fit is refused."""
    xp = backend.xp
    count, scalar, one = xp.asarray(3), np.float64(1.5), backend.array([1.0])
    opt = SGD(lr=0.5, nonfinite=nonfinite)
    params, grads = {"V": one, "count": count, "x": scalar}, {"V": one, "count": None, "x": None}
    for _ in range(2):
        out = {"V": backend.writable([0.0]), "count": xp.zeros_like(count), "x": np.zeros(())}
        opt.update_all(params, grads, out=out)
        assert (int(out["count"]), float(out["x"]), float(out["V"][0])) == (3, 1.5, 0.5)
    out = {"V": backend.writable([0.0]), "count": xp.zeros_like(count), "x": np.zeros(())}
    opt.update_all(params, {**grads, "V": backend.array([np.inf])}, out=out)
    assert (int(out["count"]), float(out["x"])) == (3, 1.5)
    wrong = [("count", backend.writable(0.0), "'count'"), ("x", np.zeros(1), "'x'"), ("x", 0.5, "'x'")]
    for name, bad, word in wrong:
        with nothing_changes(backend, opt), pytest.raises((TypeError, ValueError), match=f"out of {word}"):
            opt.update_all(params, grads, out={**out, name: bad})
    with nothing_changes(backend, opt), pytest.raises(TypeError, match=r"parameter 'count' is a Thing.*array"):
        opt.update_all({**params, "count": Thing()}, grads, out=out)


@writes
def test_nothing_is_written_over_what_rests(backend):
    """A result that would go there is refused, though what rests is not written itself."""
    x = backend.writable([1.0, 2.0])
    params, grads = {"a": backend.array([1.0, 2.0]), "b": x}, {"a": x, "b": None}
    opt = SGD()
    with nothing_changes(backend, opt, x), pytest.raises(ValueError, match="out of 'a' and out of 'b' share memory"):
        opt.update_all(params, grads, out={"a": x, "b": x})


@writes
def test_views_with_gaps_share_memory_where_an_element_is_in_both(backend):
    x, one = backend.writable(np.zeros(13)), backend.array(np.ones(4))
    params, opt = {"even": one, "odd": one}, SGD(lr=0.5)
    opt.update_all(params, params, out={"even": x[0:7:2], "odd": x[1:8:2]})
    assert equal(backend, x, [0.5] * 8 + [0.0] * 5)
    with nothing_changes(backend, opt, x), pytest.raises(ValueError, match="'even' and out of 'odd' share memory"):
        opt.update_all(params, params, out={"even": x[0:7:2], "odd": x[6:13:2]})


# out=


def writable(backend):
    rng = np.random.default_rng(3)
    return {name: backend.writable(rng.normal(size=shape)) for name, shape in {"W": (2, 3), "b": (3,)}.items()}


def base(backend, size=12):
    return backend.writable(np.arange(float(size)))


@pytest.mark.backends("jax", "jax-x64", "dask")
@every_optimizer
def test_out_cannot_be_what_cannot_be_written(backend, make):
    opt = make()
    params, grads = model(backend)
    with nothing_changes(backend, opt, params, grads):
        with pytest.raises(TypeError, match=r"out of 'W'.*cannot be written"):
            opt.update_all(params, grads, out=params)
        with pytest.raises(TypeError, match=r"out of 'W'.*cannot be written"):
            opt.update(params["W"], grads["W"], "W", out=params["W"])


@writes
@every_optimizer
def test_out_is_written_and_returned(backend, make):
    opt, other = make(), make()
    _, grads = model(backend)
    mine = writable(backend)
    for _ in range(2):
        values = frozen(backend, mine)
        arrays = list(mine.values())
        out = writable(backend)
        want = other.update_all({name: backend.array(backend.numpy(x)) for name, x in mine.items()}, grads)
        trial = opt.copy()
        got = trial.update_all(mine, grads, out=out)
        assert got is out
        assert same(backend, out, want)
        assert frozen(backend, mine) == values
        assert opt.update_all(mine, grads, out=mine) is mine
        assert all(a is b for a, b in zip(arrays, mine.values(), strict=True))
        assert same(backend, mine, want)
        assert held(backend, opt) == held(backend, other) == held(backend, trial)


@writes
@every_optimizer
def test_out_of_one_parameter(backend, make):
    opt, other = make(), make()
    W, g = writable(backend)["W"], writable(backend)["W"]
    for out in (W, g, backend.writable(np.zeros((2, 3))), backend.writable(np.zeros((6, 4)))[::3, 1:]):
        want = other.update(backend.array(backend.numpy(W)), backend.array(backend.numpy(g)), "W")
        assert opt.update(W, g, "W", out=out) is out
        assert same(backend, out, want)
        assert held(backend, opt) == held(backend, other)


@writes
def test_out_may_hold_other_inputs(backend):
    """Results go where other parameters and gradients lie; every one is computed before any is written."""
    rng = np.random.default_rng(4)
    values = {name: rng.normal(size=3) for name in "abcd"}
    x = {name: backend.writable(v) for name, v in values.items()}
    params, grads = {"a": x["a"], "b": x["b"]}, {"a": x["c"], "b": x["d"]}
    opt, other = Adam(lr=0.125), Adam(lr=0.125)
    want = other.update_all(
        {name: backend.array(values[name]) for name in "ab"},
        {"a": backend.array(values["c"]), "b": backend.array(values["d"])},
    )
    opt.update_all(params, grads, out={"a": x["b"], "b": x["a"]})
    assert same(backend, x["b"], want["a"])
    assert same(backend, x["a"], want["b"])
    assert same(backend, opt.cache, other.cache)
    whole = base(backend, 5)
    shifted = SGD(lr=0.5)
    shifted.update(whole[:4], whole[:4], "W", out=whole[1:])
    assert list(backend.numpy(whole)) == [0.0, 0.0, 0.5, 1.0, 1.5]


@writes
def test_out_of_a_parameter_that_rests(backend):
    """It gets the parameter's value, even where another's result goes over the parameter."""
    a, b = backend.writable([1.0, 2.0]), backend.writable([3.0, 4.0])
    one = backend.array([1.0, 1.0])
    opt = SGD(lr=0.5)
    opt.update_all({"a": a, "b": b}, {"a": None, "b": one}, out={"a": b, "b": a})
    assert list(backend.numpy(b)) == [1.0, 2.0]
    assert list(backend.numpy(a)) == [2.5, 3.5]
    assert opt.update_all({"a": a}, {"a": None}, out={"a": a})["a"] is a
    assert list(backend.numpy(a)) == [2.5, 3.5]


SHARED = {
    "the same array": lambda x: (x[:4], x[:4]),
    "one element in common": lambda x: (x[:4], x[3:7]),
    "one inside the other": lambda x: (x[:8], x[2:4]),
    "interleaved with one in common": lambda x: (x[0:7:3], x[1:8:2]),
    "a row and a column": lambda x: (x.reshape(3, 4)[1, :], x.reshape(3, 4)[:, 2]),
    "a view of another shape": lambda x: (x.reshape(3, 4), x[11:]),
}
APART = {
    "halves": lambda x: (x[:6], x[6:]),
    "even and odd": lambda x: (x[::2], x[1::2]),
    "every third and every third": lambda x: (x[0::3], x[2::3]),
    "columns": lambda x: (x.reshape(3, 4)[:, :2], x.reshape(3, 4)[:, 2:]),
    "a column and the others": lambda x: (x.reshape(3, 4)[:, 1:2], x.reshape(3, 4)[:, 2:4]),
    "even rows and odd columns of odd rows": lambda x: (x.reshape(4, 3)[::2, :], x.reshape(4, 3)[1::2, ::2]),
    "empty and all": lambda x: (x[3:3], x),
}


def viewed(backend, views, x):
    if backend.library == "array_api_strict":  # its arrays have no methods: view the NumPy array below
        below = np.from_dlpack(x)
        return x, [backend.xp.asarray(view, copy=False) for view in views(below)]
    return x, views(x)


@writes
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")
@pytest.mark.parametrize("views", SHARED.values(), ids=SHARED)
def test_out_arrays_that_share_memory_are_refused_by_name(backend, views):
    whole, (a, b) = viewed(backend, views, base(backend))
    params = {"first": backend.array(np.ones(a.shape)), "other": {"b": backend.array(np.ones(b.shape))}}
    opt = Adam(lr_scheduler=KING)
    opt.update_all(params, params, 1.0)
    with nothing_changes(backend, opt, whole), pytest.raises(ValueError, match="share") as error:
        opt.update_all(params, params, 2.0, out={"first": a, "other": {"b": b}})
    assert "'first'" in str(error.value)
    assert "'other/b'" in str(error.value)


@writes
@pytest.mark.parametrize("views", APART.values(), ids=APART)
def test_out_arrays_that_lie_side_by_side_are_taken(backend, views):
    whole, (a, b) = viewed(backend, views, base(backend))
    before = backend.numpy(whole)
    params = {"a": a, "b": b}
    want = SGD(lr=0.5).update_all(
        {name: backend.array(backend.numpy(x)) for name, x in params.items()},
        {name: backend.array(np.ones(x.shape)) for name, x in params.items()},
    )
    grads = {name: backend.array(np.ones(x.shape)) for name, x in params.items()}
    SGD(lr=0.5).update_all(params, grads, out=params)
    assert same(backend, [a, b], [want["a"], want["b"]])
    inside = backend.numpy(a).size + backend.numpy(b).size
    assert np.sum(backend.numpy(whole) != before) == inside


@writes
def test_many_out_arrays_in_one_buffer(backend):
    """Slices of a flat buffer, in any order; one that reaches into its neighbour is found among them."""
    whole = base(backend, 300)
    order = np.random.default_rng(5).permutation(100)
    params = {int(i): whole[3 * int(i) : 3 * int(i) + 3] for i in order}
    opt = SGD(lr=0.5)
    opt.update_all(params, params, out=params)
    assert list(backend.numpy(whole)) == list(np.arange(300) * 0.5)
    params[41] = whole[124:127]
    with nothing_changes(backend, opt, whole), pytest.raises(ValueError, match=r"41 .*42|42 .*41"):
        opt.update_all(params, params, out=params)


OVERLAPPING = {
    "broadcast": lambda xp, x: xp.broadcast_to(x[:3], (2, 3)),
    "broadcast scalar": lambda xp, x: xp.broadcast_to(x[:1], (4,)),
}


@writes
@pytest.mark.parametrize("view", OVERLAPPING.values(), ids=OVERLAPPING)
def test_out_that_overlaps_itself_is_refused_by_name(backend, view):
    x = base(backend)
    out = view(backend.xp, x)
    if backend.library == "numpy":
        out.flags.writeable = True
    W = backend.array(np.ones(out.shape))
    opt = Adam()
    with nothing_changes(backend, opt, x):
        with pytest.raises(ValueError, match="out of 'W'"):
            opt.update(W, W, "W", out=out)
        with pytest.raises(ValueError, match="out of 'enc/W'"):
            opt.update_all({"enc": {"W": W}}, {"enc": {"W": W}}, out={"enc": {"W": out}})


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_update_and_update_all_go_together(backend, make):
    """What one did, the other goes on with, whichever names the containers give."""
    mixed, single = make(), make()
    params, grads = model(backend)
    want = dict(params)
    for step in range(4):
        if step % 2:
            params = mixed.update_all(params, grads)
        else:
            params = {name: mixed(params[name], grads[name], name) for name in params}
            mixed.step()
        want = {name: single.update(want[name], grads[name], name) for name in want}
        single.step()
    assert same(backend, params, want)
    assert held(backend, mixed) == held(backend, single)
