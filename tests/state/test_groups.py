"""One optimizer with groups is several optimizers, each for the parameters whose names its pattern matches."""

from __future__ import annotations

import json
import pickle
from fnmatch import fnmatchcase

import numpy as np
import pytest
from _kit.bits import same_bits
from _kit.rows import rows
from _kit.states import KING, RISING, SCHEDULERS, CountingScheduler, frozen, held, writes
from _kit.table import PROMISES

import xpopt
from xpopt import SGD, AdaGrad, Adam, RMSProp, make_optimizer

pytestmark = pytest.mark.any_immutable

SHAPES = {("enc", "w"): (5, 3), ("enc", "b"): (3,), ("head", "w"): (3, 2), ("head", "b"): (2,), "scale": ()}


def tree(leaves):
    """Return leaves by name as `update_all` takes them."""
    nested = {}
    for name, x in leaves.items():
        if isinstance(name, tuple):
            nested.setdefault(name[0], {})[name[1]] = x
        else:
            nested[name] = x
    return nested


def leaves(nested):
    """Return leaves by name."""
    return {
        name: x
        for key, part in nested.items()
        for name, x in ({(key, k): x for k, x in part.items()} if isinstance(part, dict) else {key: part}).items()
    }


def draw(backend, seed, dtype=None):
    rng = np.random.default_rng(seed)
    return {name: backend.array(rng.normal(size=shape), dtype) for name, shape in SHAPES.items()}


def shown(name):
    return "/".join(name) if isinstance(name, tuple) else name


class Several:
    """The same as optimizers of their own: the first whose pattern matches; None where parameters stay."""

    def __init__(self, by_pattern):
        self.by_pattern = by_pattern

    def number(self, name):
        return next(k for k, pattern in enumerate(self.by_pattern) if fnmatchcase(shown(name), pattern))

    def step(self, params, grads, loss):
        new = dict(params)
        for k, opt in enumerate(self.by_pattern.values()):
            mine = {name: x for name, x in params.items() if self.number(name) == k}
            if opt is not None and mine:
                new |= opt.update_all(mine, {name: grads[name] for name in mine}, loss)
        return new

    @property
    def cache(self):
        found = [opt.cache for opt in self.by_pattern.values() if opt is not None]
        return {name: entry for cache in found for name, entry in cache.items()}


WAYS = {
    "update": lambda opt, params, grads, loss: {
        name: opt.update(x, grads[name], name, loss) for name, x in params.items()
    },
    "update_all": lambda opt, params, grads, loss: leaves(opt.update_all(tree(params), tree(grads), loss)),
}


def agree(backend, params, wanted, opt, several):
    names = sorted(params, key=shown)
    assert sorted(wanted, key=shown) == names
    for name in names:
        assert same_bits(backend.numpy(params[name]), backend.numpy(wanted[name])), name
    assert sorted(opt.cache, key=shown) == sorted(several.cache, key=shown)
    for name, entry in opt.cache.items():
        assert same_bits(as_numpy(backend, entry), as_numpy(backend, several.cache[name])), name


def as_numpy(backend, entry):
    """Return an entry of the cache with NumPy's arrays; state that was loaded and not used yet has them already."""
    if isinstance(entry, dict):
        return {name: as_numpy(backend, x) for name, x in entry.items()}
    if isinstance(entry, np.ndarray):
        return np.asarray(entry, np.float64)
    return backend.numpy(entry) if hasattr(entry, "dtype") else entry


EXPONENTIAL = SCHEDULERS[1]


def in_groups(row, scheduler):
    """Return an optimizer with groups of every kind, and the same as several."""
    opt = row.make(
        lr=0.125,
        lr_scheduler=scheduler,
        groups={
            "enc/b": {"lr": 0.5},
            "*/b": {"lr": 0.25, "clip_norm": 0.5},
            "scale": "freeze",
            "enc/*": {"weight_decay": 0.125, "lr_scheduler": KING},
            "head/*": RMSProp(lr=0.5, clip_norm=2.0, lr_scheduler=EXPONENTIAL),
        },
    )
    first, second = (
        row.make(lr=0.125, lr_scheduler=scheduler),
        row.make(lr=0.125, lr_scheduler=scheduler, clip_norm=0.5),
    )
    first.set_params({"lr": 0.5})
    second.set_params({"lr": 0.25})
    return opt, Several(
        {
            "enc/b": first,
            "*/b": second,
            "scale": None,
            "enc/*": row.make(lr=0.125, weight_decay=0.125, lr_scheduler=KING),
            "head/*": RMSProp(lr=0.5, clip_norm=2.0, lr_scheduler=EXPONENTIAL),
        }
    )


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("scheduler", [None, *SCHEDULERS[1:]], ids=lambda s: str(s).partition("(")[0])
@pytest.mark.parametrize("row", rows(PROMISES, ["Adam"]))
def test_it_is_several_optimizers_bit_for_bit(backend, row, scheduler, way):
    """Rates, bounds, decays, schedules, another algorithm, and what stays; one has no gradient at one step."""
    opt, several = in_groups(row, scheduler)
    params = wanted = draw(backend, 0)
    for k in range(4):
        grads = draw(backend, 1 + k)
        if way == "update_all" and k == 1:
            grads["enc", "b"] = None
        params = WAYS[way](opt, params, grads, RISING[k])
        wanted = several.step(wanted, grads, RISING[k])
        if way == "update":
            opt.step()
    agree(backend, params, wanted, opt, several)
    assert opt.cur_step == 4


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_what_is_rounded_is_rounded_as_its_group_says(backend, dtype):
    """Copies, stochastic rounding from a seed, and neither, in one step; some are small, and one is large."""
    rng = np.random.default_rng(3)
    shapes = {"a": (7,), "b": (7,), "c": (3, 5), "d": (70_001,), "e": (5,), "f": (9,)}
    kinds = {"[ad]": {"master": True}, "[be]": {"rounding": "stochastic", "seed": 3}}
    opt = Adam(lr=0.1, groups=kinds)
    several = Several({pattern: Adam(lr=0.1, **own) for pattern, own in {**kinds, "*": {}}.items()})
    params = wanted = {name: rng.normal(size=shape).astype(dtype) for name, shape in shapes.items()}
    for _ in range(3):
        grads = {name: rng.normal(size=shape).astype(dtype) for name, shape in shapes.items()}
        params = opt.update_all(params, grads)
        wanted = several.step(wanted, grads, None)
        assert params["a"].dtype == dtype
    agree(backend, params, wanted, opt, several)


@pytest.mark.backends("numpy")
@pytest.mark.usefixtures("fused")
def test_a_model_in_place_keeps_its_plan(backend, monkeypatch):
    """One step after the other is bound to what the first has built, whatever the groups are."""
    opt = Adam(lr=0.1, groups={"*/b": {"lr": 0.5, "clip_norm": 0.5}, "scale": "freeze", "head/*": SGD(momentum=0.5)})
    params = draw(backend, 0)
    nested = tree(params)
    opt.update_all(nested, tree(draw(backend, 1)), out=nested)
    built = []
    kept = opt._parts.state.ownership.plan()
    monkeypatch.setattr(type(opt._parts.state.ownership), "keep", lambda self, plan: built.append(plan))
    for k in range(3):
        opt.update_all(nested, tree(draw(backend, 2 + k)), out=nested)
    assert kept is not None
    assert built == []
    assert same_bits(leaves(nested)["scale"], params["scale"])


def test_one_optimizer_with_a_rate_for_each_parameter_is_torchs(backend):
    """Positions, opacities and scales of a splatting program, each with a rate of its own."""
    torch = pytest.importorskip("torch", reason="torch.optim, which is compared with, is missing")
    rng = np.random.default_rng(0)
    rates = {"xyz": 1.6e-4, "opacity": 0.05, "scale": 5e-3}
    start = {name: rng.normal(size=(5, 3)) for name in rates}
    theirs = {name: torch.tensor(x, requires_grad=True) for name, x in start.items()}
    peer = torch.optim.Adam([{"params": [theirs[name]], "lr": lr} for name, lr in rates.items()], eps=1e-15)
    opt = Adam(lr=1.0, eps=1e-15, groups={name: {"lr": lr} for name, lr in rates.items()})
    params = {name: backend.array(x, backend.widest) for name, x in start.items()}
    for _ in range(20):
        grads = {name: rng.normal(size=(5, 3)) for name in rates}
        params = opt.update_all(params, {name: backend.array(g, backend.widest) for name, g in grads.items()})
        for name, x in theirs.items():
            x.grad = torch.tensor(grads[name])
        peer.step()
    tolerance = 1e-12 if backend.widest == "float64" else 1e-5
    for name, x in params.items():
        np.testing.assert_allclose(backend.numpy(x), theirs[name].detach().numpy(), rtol=tolerance, atol=tolerance)


# Frozen parameters


@pytest.mark.parametrize("way", ["update", "update_all"])
def test_what_is_frozen_stays_and_makes_no_state(backend, way):
    opt = Adam(groups={"W": "freeze"})
    x, y = backend.array([1.0, 2.0]), backend.array([3.0])
    calls = {
        "update": lambda grad: opt.update(x, grad, "W"),
        "update_all": lambda grad: opt.update_all({"W": x, "b": y}, {"W": grad, "b": y})["W"],
    }
    for gradient in (None, backend.array([5.0, 6.0]), np.array([1, 2]), backend.array([1.0, float("nan")])):
        assert frozen(backend, calls[way](gradient)) == frozen(backend, x)
        with pytest.raises(ValueError, match=r"^gradient of 'W' has shape \(3,\), the parameter has \(2,\)"):
            calls[way](np.zeros(3))
    assert list(opt.cache) == ([] if way == "update" else ["b"])


@writes
def test_what_is_frozen_is_written_where_results_go(backend):
    opt = SGD(groups={"W": "freeze"})
    x, other, y = (backend.writable(values) for values in ([1.0, 2.0], [0.0, 0.0], [3.0]))
    assert opt.update(x, None, "W", out=other) is other
    assert frozen(backend, other) == frozen(backend, x)
    assert opt.update(x, None, "W", out=x) is x
    again = {"W": backend.writable([7.0, 7.0]), "b": backend.writable([0.0])}
    opt.update_all({"W": x, "b": y}, {"W": x, "b": y}, out=again)
    assert frozen(backend, again["W"]) == frozen(backend, x)
    with pytest.raises(ValueError, match="shape"):
        opt.update(x, None, "W", out=y)


@pytest.mark.parametrize("policy", ["skip", "raise"])
def test_a_gradient_of_what_is_frozen_is_not_looked_at(backend, policy):
    opt = SGD(lr=0.5, nonfinite=policy, groups={"W": "freeze"})
    x = backend.array([1.0, 2.0])
    bad = backend.array([float("nan"), 1.0])
    if backend.library != "dask":
        new = opt.update_all({"W": x, "b": x}, {"W": bad, "b": x})
        assert backend.numpy(new["b"]).tolist() == [0.5, 1.0]
    assert opt.skipped == 0


def test_state_that_is_there_rests_and_goes_on(backend):
    """A layer that is frozen for a while and then trained again is one that had no gradients meanwhile."""
    params, grads = {"W": backend.array([1.0, 2.0]), "b": backend.array([3.0])}, {}
    opt, wanted = Adam(lr=0.1), Adam(lr=0.1)
    ours = theirs = params
    for k in range(6):
        grads = {name: x * (k + 1) for name, x in params.items()}
        if k in (2, 4):
            opt.set_params({"groups": {"W": "freeze"} if k == 2 else {}})
        ours = opt.update_all(ours, grads)
        theirs = wanted.update_all(theirs, {**grads, "W": None} if k in (2, 3) else grads)
    assert frozen(backend, [ours, opt.cache]) == frozen(backend, [theirs, wanted.cache])


# Settings


GROUPS = {
    "enc/*": {"lr": 0.25, "lr_scheduler": EXPONENTIAL.replace("0.125", "0.25")},
    "*/b": {"clip_norm": 1.0, "weight_decay": 0.5},
    "embed": "freeze",
    "head/*": SGD(lr=0.5, momentum=0.75, lr_scheduler=KING),
    "*": {},
}


def test_text_and_dicts_go_both_ways():
    opt = Adam(lr=0.125, lr_scheduler="king", groups=GROUPS)
    for again in (
        make_optimizer(str(opt)),
        make_optimizer(opt.hyperparameters),
        make_optimizer(json.loads(json.dumps(opt.hyperparameters))),
        Adam(**opt.hyperparameters),
        opt.copy(),
        pickle.loads(pickle.dumps(opt)),
    ):
        assert (str(again), again.hyperparameters) == (str(opt), opt.hyperparameters)
    other = Adam()
    other.set_params(opt.hyperparameters)
    assert str(other) == str(opt)
    assert "groups" not in str(Adam())
    assert Adam().hyperparameters["groups"] == Adam().groups == {}


def test_what_is_shown():
    shown = Adam(lr=0.125, groups=GROUPS).hyperparameters["groups"]
    assert list(shown) == list(GROUPS)
    assert shown["enc/*"] == GROUPS["enc/*"]
    assert shown["*/b"] == {"clip_norm": 1.0, "weight_decay": 0.5}
    assert shown["embed"] == "freeze"
    assert shown["head/*"]["id"] == "SGD"
    assert (shown["head/*"]["lr"], shown["head/*"]["momentum"], shown["head/*"]["lr_scheduler"]) == (0.125, 0.75, KING)
    assert shown["*"] == {}
    for change in (lambda: shown.update({}), lambda: shown["*/b"].update(clip_norm=2.0)):
        with pytest.raises(TypeError, match="set_params"):
            change()


WRONG = {
    "no dict": (3, TypeError, "Adam: groups=3 is a int; wanted a dict by pattern, such as"),
    "no string": ({3: {}}, TypeError, "Adam: groups has the key 3, a int"),
    "no group": ({"a": 3}, TypeError, "a'\\]=3 is a int; wanted a dict of settings, 'freeze', or an optimizer"),
    "a word": ({"a": "frozen"}, ValueError, "'frozen' is unknown; wanted a dict of settings, 'freeze'"),
    "a class": ({"a": SGD}, TypeError, "call it, SGD\\(\\)"),
    "a range": ({"a": {"lr": -1}}, ValueError, "^Adam: groups\\['a'\\]: lr=-1.0 is out of range; wanted a finite"),
    "a kind": ({"a": {"clip_norm": "x"}}, TypeError, "^Adam: groups\\['a'\\]: clip_norm='x' is a str; wanted"),
    "a name": ({"a": {"learning_rate": 1}}, TypeError, "takes no keyword 'learning_rate'; did you mean 'lr'"),
    "another's": ({"a": {"momentum": 0.5}}, TypeError, "takes no keyword 'momentum'"),
    "of the step": ({"a": {"nonfinite": "skip"}}, TypeError, "nonfinite, which is for all parameters of a step"),
    "in a group": ({"a": {"groups": {}}}, TypeError, "groups, which is for all parameters of a step"),
    "skipping": ({"a": SGD(nonfinite="skip")}, ValueError, "nonfinite='skip', which is for all parameters of a step"),
    "grouped": ({"a": SGD(groups={"b": {}})}, ValueError, "an optimizer that has groups; give them to Adam"),
    "together": ({"a": {"master": True, "rounding": "stochastic"}}, ValueError, "groups\\['a'\\].*cannot be combined"),
    "a schedule": (
        {"a": {"lr_scheduler": "foo"}},
        ValueError,
        "groups\\['a'\\]: lr_scheduler: unknown scheduler 'foo'",
    ),
    "no optimizer": ({"a": {"id": "Foo"}}, ValueError, "groups\\['a'\\]: unknown optimizer 'Foo'"),
    "its keyword": ({"a": {"id": "SGD", "eps": 1}}, ValueError, "groups\\['a'\\]: SGD has no keyword 'eps'"),
}


@pytest.mark.parametrize(("groups", "kind", "message"), WRONG.values(), ids=WRONG)
def test_what_is_no_group_is_refused(groups, kind, message):
    opt = Adam(groups={"b": {"lr": 0.5}})
    before = str(opt)
    for call in (lambda: Adam(groups=groups), lambda: opt.set_params({"lr": 0.25, "groups": groups})):
        with pytest.raises(kind, match=message):
            call()
    assert str(opt) == before


@pytest.mark.parametrize("way", ["update_all", "explain"])
def test_a_pattern_without_parameters_is_an_error(backend, way):
    params = {"enc": {"w": backend.array([1.0])}, "b": backend.array([2.0])}

    def look(groups):
        opt = Adam(groups=groups)
        return opt.explain(params) if way == "explain" else opt.update_all(params, params)

    with pytest.raises(ValueError, match=r"^Adam: the pattern 'encoder/\*' of groups .* the nearest name is 'enc/w'"):
        look({"b": {"lr": 0.5}, "encoder/*": {"lr": 0.5}})
    with pytest.raises(
        ValueError, match=r"'b' of groups matches only parameters that earlier patterns match, such as 'b' by"
    ):
        look({"*": {"lr": 0.5}, "b": "freeze"})
    look({"b": {"lr": 0.5}, "enc/w": {"lr": 0.5}})


def test_an_update_alone_knows_no_other_names(backend):
    opt = SGD(lr=1.0, groups={"somewhere": {"lr": 0.5}, "0": {"lr": 0.25}})
    x = backend.array([1.0])
    assert backend.numpy(opt.update(x, x, "here")).tolist() == [0.0]
    assert backend.numpy(opt.update(x, x, "somewhere")).tolist() == [0.5]
    assert backend.numpy(opt.update(x, x, 0)).tolist() == [0.75]
    with pytest.raises(TypeError, match="cannot be hashed"):
        opt.update(x, x, [])


def test_a_change_of_the_optimizer_is_one_of_its_groups_but_for_what_they_have(backend):
    opt = Adam(lr=0.1, groups={"a": {"lr": 0.5}, "b": {"eps": 0.5}, "c": SGD(lr=0.25)})
    opt.set_params({"lr": 0.2, "eps": 0.25, "lr_scheduler": KING})
    wanted = {"a": Adam(lr=0.5, eps=0.25, lr_scheduler=KING.replace("0.125", "0.5")), "c": SGD(lr=0.25)}
    wanted |= {"b": Adam(eps=0.5, lr_scheduler=KING), "d": Adam(eps=0.25, lr_scheduler=KING)}
    params = {name: backend.array([1.0, 2.0]) for name in "abcd"}
    ours, theirs = params, params
    for loss in RISING:
        ours = opt.update_all(ours, params, loss)
        theirs = {
            name: wanted[name].update_all({name: x}, {name: params[name]}, loss)[name] for name, x in theirs.items()
        }
    assert frozen(backend, ours) == frozen(backend, theirs)


def test_counts_and_slots_stay_when_groups_change(backend):
    params = {"a": backend.array([1.0, 2.0]), "b": backend.array([3.0])}
    opt, alone = Adam(lr=0.125), {name: Adam(lr=0.125) for name in params}
    ours = theirs = params
    for k in range(4):
        if k == 2:
            opt.set_params({"groups": {"a": {"lr": 0.5, "decay1": 0.5}}})
            alone["a"].set_params({"lr": 0.5, "decay1": 0.5})
        ours = opt.update_all(ours, params)
        theirs = {name: alone[name].update_all({name: x}, {name: params[name]})[name] for name, x in theirs.items()}
    assert frozen(backend, ours) == frozen(backend, theirs)
    assert [entry["t"] for entry in opt.cache.values()] == [4, 4]


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("between", [[], [{}]], ids=["at once", "without any"])
def test_a_rate_goes_with_its_group(backend, between):
    params, grads = {"a": np.zeros(1)}, {"a": -np.ones(1)}
    for way in ("update", "update_all"):
        opt = SGD(lr=0.125, groups={"a": {"lr": 0.5}})
        opt.update_all(params, grads)
        for groups in (*between, {"a": {"momentum": 0.25}}):
            opt.set_params({"groups": groups})
        x = opt.update(params["a"], grads["a"], "a") if way == "update" else opt.update_all(params, grads)["a"]
        assert x.tolist() == [0.125]


@pytest.mark.backends("numpy")
def test_what_is_frozen_is_kept_in_the_dtype_that_it_had(backend):
    x, other = np.ones(2, np.float32), Adam()
    opt = Adam(groups={"a": {"slots_dtype": "float16"}})
    for one in (opt, other):
        one.update(x, x, "a")
    opt.set_params({"groups": {"a": "freeze"}})
    again = Adam()
    again.load_state_dict(opt.state_dict())
    assert again.cache["a"]["mean"].dtype == np.float16
    again.set_params({"groups": {}})
    np.testing.assert_allclose(again.update(x, x, "a"), other.update(x, x, "a"), rtol=1e-3)
    assert again.cache["a"]["mean"].dtype == np.float32


@pytest.mark.backends("numpy")
def test_schedules_of_groups_that_do_not_change_go_on(backend):
    """What a plateau has learned stays where pattern, kind and settings of the schedule stay; elsewhere it is new."""
    king = "KingScheduler(initial_lr={}, patience=2, decay=0.5)".format
    groups = {
        "a": {"lr": 0.5},
        "b": {"lr_scheduler": king(0.25)},
        "c": SGD(lr_scheduler=king(0.125)),
        "d": {"lr": 2.0},
    }
    zero = dict.fromkeys("abcde", np.zeros(()))

    def rates(opt):
        return {
            name: -float(x) for name, x in opt.copy().update_all(zero, dict.fromkeys(zero, np.ones(())), 1.0).items()
        }

    opt = SGD(lr_scheduler=king(1.0), groups=groups)
    for _ in range(6):
        opt.update_all(zero, zero, 1.0)
    now = rates(opt)
    assert now == {"a": now["e"] / 2, "b": now["e"] / 4, "c": now["e"] / 8, "d": 2 * now["e"], "e": now["e"]}
    assert now["e"] < 0.5
    shown = opt.hyperparameters["groups"]
    opt.set_params({"groups": {"e": {"l2": 0.0}, **shown}})  # with other numbers
    assert rates(opt) == now
    opt.set_params({"groups": {**shown, "a": {"lr": 0.75}, "b": {"lr": 0.25}, "c": {"lr_scheduler": king(0.125)}}})
    assert rates(opt) == {**now, "a": 0.75, "b": 0.25, "c": 0.125}
    opt.set_params({"groups": shown, "lr_scheduler": king(1.0)})
    assert rates(opt) == {"a": 0.5, "b": 0.25, "c": 0.125, "d": 2.0, "e": 1.0}


RENAMED = {
    "a name": ({"scale": "gain"}, {"scale": "gain"}),
    "a nested one": ({("enc", "w"): ("enc", "kernel")}, {"enc/w": "enc/kernel"}),
    "all below": ({("head", "*"): ("top", "*")}, {"head/*": "top/*"}),
    "both": ({"scale": "gain", ("enc", "*"): ("body", "*")}, {"scale": "gain", "enc/w": "body/w"}),
    "frozen": ({"embed": "table"}, {"embed": "table"}),
    "with brackets": ({"scale": "gain[0]"}, {"scale": "gain[[]0]"}),
}


@pytest.mark.backends("numpy")
@pytest.mark.parametrize(("rename", "patterns"), RENAMED.values(), ids=RENAMED)
def test_patterns_of_groups_are_renamed_with_the_parameters(backend, rename, patterns):
    """Each parameter has the rate that it had, under its new name."""
    rates = {"scale": 1.0, "enc/w": 2.0, "head/*": 4.0}
    opt = SGD(lr=0.5, momentum=0.5, groups={"embed": "freeze", **{key: {"lr": lr} for key, lr in rates.items()}})
    params = tree({**draw(backend, 1), "embed": np.ones(2)})
    opt.update_all(params, params)
    again = SGD()
    loaded = again.load_state_dict(opt.state_dict(), rename=rename).loaded
    assert list(again.groups) == [patterns.get(one, one) for one in ("embed", *rates)]
    for old, new in zip(opt.cache, loaded, strict=True):
        ones, zeros = np.ones(np.shape(opt.cache[old])), np.zeros(np.shape(opt.cache[old]))
        assert np.array_equal(again.update(zeros, ones, new), opt.update(zeros, ones, old))


@pytest.mark.backends("numpy")
def test_a_parameter_that_leaves_its_group_by_a_new_name_is_warned_of(backend):
    x = np.ones(2)
    opt = SGD(momentum=0.5, groups={"*/b": {"lr": 1.0}, "c": {"lr": 2.0}})
    opt.update_all({"enc/b": x, "c": x, "d": x}, {"enc/b": x, "c": x, "d": x})
    again = SGD()
    with pytest.warns(
        UserWarning, match=r"'enc/b' was in the group '\*/b', and is renamed to 'bias', which is in no gr"
    ):
        again.load_state_dict(opt.state_dict(), rename={"enc/b": "bias"})
    assert set(again.cache) == {"bias", "c", "d"}
    opt = SGD(momentum=0.5, groups={"b": {"lr": 1.0}, "c": "freeze"})
    opt.update_all({"b": x, "c": x}, {"b": x, "c": x})
    with pytest.raises(xpopt.CheckpointError, match="rename gives two groups the pattern 'c'"):
        again.load_state_dict(opt.state_dict(), rename={"b": "c"})


@pytest.mark.backends("numpy")
def test_each_group_has_the_dtype_of_its_slots_after_loading(backend, tmp_path):
    pytest.importorskip("safetensors", reason="checkpoints need safetensors: pip install 'xpopt[checkpoint]'")
    x = backend.array([1.0, 2.0], "float32")
    opt = Adam(slots_dtype="float16", groups={"b": Adam(lr=0.25)})
    params = opt.update_all({"a": x, "b": x}, {"a": x, "b": x / 3})
    opt.save(tmp_path / "file")
    ways = Adam(), Adam()
    ways[0].load_state_dict(opt.state_dict(), like=params)
    ways[1].load(tmp_path / "file", like=params)
    for again in ways:
        assert held(backend, again) == held(backend, opt)


def test_another_algorithm_needs_state_that_it_can_go_on_from(backend):
    x = backend.array([1.0, 2.0])
    opt = Adam(groups={"b": AdaGrad()})
    opt.update_all({"a": x, "b": x}, {"a": x, "b": x})
    before = held(backend, opt)
    for groups in ({"a": SGD(momentum=0.5), "b": AdaGrad()}, {}, {"b": RMSProp()}):
        with pytest.raises(
            ValueError, match=r"cannot continue from the state .* delete it with del opt.cache\['[ab]'\]"
        ):
            opt.set_params({"groups": groups})
    assert held(backend, opt) == before
    opt.set_params({"groups": {"b": AdaGrad(lr=0.5)}})
    del opt.cache["b"]
    opt.set_params({"groups": {"b": RMSProp()}})
    opt.update_all({"a": x, "b": x}, {"a": x, "b": x})
    wanted = RMSProp()
    wanted.update(x, x, "b")
    assert frozen(backend, opt.cache["b"]) == frozen(backend, wanted.cache["b"])


# Schedules


def test_each_schedule_is_asked_once_for_a_pass_and_taken_back_with_it(backend):
    opt = SGD(lr_scheduler=CountingScheduler(), groups={"a": {"lr": 9.0}, "b": {"lr_scheduler": CountingScheduler()}})
    x = backend.array([1.0])
    clock = opt._parts.clock

    def asked():
        return [len(one.losses) for one in (clock.scheduler, *clock.others.values())]

    for name in "abc":
        opt.update(x, x, name, 1.0)
    assert asked() == [1, 1, 1]
    opt.step()
    opt.update_all({"a": x, "b": x, "c": x}, {"a": x, "b": x, "c": x}, 2.0)
    assert asked() == [2, 2, 2]
    for one in (clock.scheduler, *clock.others.values()):
        one.failure = RuntimeError("mine")
        for call in (lambda: opt.update(x, x, "a"), lambda: opt.update_all({"a": x, "b": x}, {"a": x, "b": x})):
            with pytest.raises(RuntimeError, match="mine"):
                call()
        one.failure = None
        assert asked() == [2, 2, 2]
    opt.reset_step()
    assert asked() == [0, 0, 0]


# Checkpoints


@pytest.mark.parametrize("cut", [0, 3, 4, 8])
def test_a_training_that_is_cut_ends_as_if_it_had_not_been(backend, cut, tmp_path):
    """In the middle of a pass as between two."""
    pytest.importorskip("safetensors", reason="checkpoints need safetensors: pip install 'xpopt[checkpoint]'")
    row = PROMISES["Adam"]
    start = draw(backend, 0)
    moves = [(k, name) for k in range(2) for name in (*SHAPES, "step")]

    def go_on(opt, params, moves):
        for k, what in moves:
            if what == "step":
                opt.step()
            else:
                params = {**params, what: opt.update(params[what], draw(backend, 1 + k)[what], what, RISING[k])}
        return params

    whole, _ = in_groups(row, KING)
    end = go_on(whole, start, moves)
    opt, _ = in_groups(row, KING)
    params = go_on(opt, start, moves[:cut])
    opt.save(tmp_path / "cut")
    other = Adam(lr=3.0, groups={"head/w": {"lr": 7.0}})
    other.load(tmp_path / "cut")
    for again in (xpopt.load_optimizer(tmp_path / "cut"), other):
        assert str(again) == str(opt)
        assert frozen(backend, go_on(again, params, moves[cut:])) == frozen(backend, end)
        assert (again.hyperparameters, again.cur_step) == (whole.hyperparameters, whole.cur_step)
        assert same_bits(as_numpy(backend, again.cache), as_numpy(backend, whole.cache))


def written(**changes):
    """Return the state of an optimizer, with something else in the header of its group."""
    state = Adam(groups={"a": {"lr": 0.5}, "b": SGD(), "c": "freeze"}).state_dict()
    for key, value in changes.items():
        number, _, name = key.partition("_")
        state["header"]["groups"]["abc".index(number) + 1][name] = value
    return state


DAMAGED = {
    "a pattern": ({"a_match": 3}, "match is 3; wanted a str"),
    "twice": ({"a_match": "b"}, "wanted distinct patterns"),
    "no schedule": ({"a_schedule": None}, "the group 'a' has a schedule or a rate that does not belong"),
    "a schedule": ({"c_schedule": {"name": "x", "hyperparameters": {}, "state": {}}}, "the group 'c' has a schedule"),
    "a rate": ({"a_rate": 0.5}, "the group 'a' has a schedule or a rate"),
    "a setting": ({"a_settings": {"lr": -1.0}}, r"groups\['a'\]: Adam: lr=-1.0 is out of range"),
    "an unknown one": ({"a_settings": {"lr": 1.0, "foo": 1}}, r"groups\['a'\]: Adam has no hyperparameter 'foo'"),
    "of the step": ({"a_settings": {"lr": 1.0, "nonfinite": "skip"}}, "no hyperparameter 'nonfinite' in groups"),
    "a class": ({"b_rule": {"name": "Foo", "version": 1}}, r"groups\['b'\]: unknown optimizer 'Foo'"),
    "a version": ({"b_rule": {"name": "SGD", "version": 2}}, r"groups\['b'\]: the checkpoint is of SGD's version 2"),
    "too few": ({"b_settings": {}}, r"groups\['b'\]: SGD has the hyperparameter 'lr', and the checkpoint does not"),
}


@pytest.mark.parametrize(("changes", "message"), DAMAGED.values(), ids=DAMAGED)
def test_a_header_whose_groups_cannot_be_is_refused(changes, message):
    opt = Adam(groups={"z": {"lr": 0.125}})
    before = str(opt)
    with pytest.raises(xpopt.CheckpointError, match=message):
        opt.load_state_dict(written(**changes))
    assert str(opt) == before
    opt.load_state_dict(written())
    assert list(opt.groups) == ["a", "b", "c"]


# What is explained


def test_the_groups_are_explained():
    params = {"enc": {"w": np.zeros((2, 3)), "b": np.zeros(2)}, "head": np.zeros(4), "embed": np.zeros(9)}
    opt = Adam(
        lr=0.125,
        groups={"*/b": {"lr": 0.25, "weight_decay": 0.5}, "head": SGD(lr=0.5, momentum=0.9), "embed": "freeze"},
    )
    with xpopt.engine("eager"):
        explained = opt.explain(params)
    why = "the eager engine was chosen"
    assert [(row.group, row.algorithm, row.lr, row.decay, row.state_bytes, row.reason) for row in explained] == [
        ("", "Adam", 0.125, 0.0, 2 * 8 * 6, why),
        ("*/b", "Adam", 0.25, 0.5, 2 * 8 * 2, why),
        ("head", "SGD", 0.5, 0.0, 8 * 4, why),
        ("embed", "", 0.0, 0.0, 0, "it is frozen"),
    ]
    assert str(explained).splitlines() == [
        "parameter  group  algorithm  lr     decay  engine  launch  state, bytes  why not a faster one",
        f"'enc/w'           Adam       0.125  0      eager   1       96            {why}",
        f"'enc/b'    */b    Adam       0.25   0.5    eager   2       32            {why}",
        f"'head'     head   SGD        0.5    0      eager   3       32            {why}",
        "'embed'    embed             0      0      none    0       0             it is frozen",
    ]
    assert repr(explained) == str(explained)
    html = explained._repr_html_()
    assert html.count("<tr>") == 5
    assert "<td>&#x27;head&#x27;</td><td>head</td><td>SGD</td>" in html
