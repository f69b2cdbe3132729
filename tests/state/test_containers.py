"""Containers that are classes of the caller's: dataclasses, and what JAX or PyTorch knows as pytrees."""

import collections
import copy
import dataclasses
import pickle
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from _kit.states import equal, frozen, model, same, writes

import xpopt
from xpopt import EMA, SGD, Adam

pytestmark = pytest.mark.any_immutable


@dataclass
class Plain:
    w: Any
    b: Any
    name: str = "plain"
    sizes: tuple = (2, 3)


@dataclass(frozen=True)
class Frozen:
    w: Any
    b: Any
    activation: Any = np.tanh


@dataclass(frozen=True, slots=True)
class Slotted:
    w: Any
    b: Any
    dtype: Any = np.float32


@dataclass
class Checked:
    """Its check is about what the caller made: arrays that are still to be filled are not looked at."""

    w: Any
    b: Any

    def __post_init__(self):
        raise AssertionError("called")

    @classmethod
    def of(cls, w, b):
        new = object.__new__(cls)
        new.w, new.b = w, b
        return new


@dataclass
class Net:
    layers: list
    scale: Any
    rate: float = field(default=0.5, metadata={"static": True})


KINDS = [Plain, Frozen, Slotted, Checked.of]


def of_kind(make, values):
    return make(w=values["W"], b=values["b"])


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__qualname__)
def test_a_dataclass_is_a_container_of_its_fields(backend, make):
    """With the values and the state that `update` gives under their names; what is no array is carried along."""
    params, grads = model(backend)
    tree, gradient, values = of_kind(make, params), of_kind(make, grads), {"w": params["W"], "b": params["b"]}
    whole, single = Adam(lr=0.125), Adam(lr=0.125)
    for _ in range(3):  # the third goes by what is remembered of the first two
        before = frozen(backend, [tree.w, tree.b])
        new = whole.update_all(tree, gradient)
        assert type(new) is type(tree)
        assert frozen(backend, [tree.w, tree.b]) == before
        values = {name: single.update(values[name], getattr(gradient, name), name) for name in values}
        single.step()
        assert same(backend, [new.w, new.b], [values["w"], values["b"]])
        for one in dataclasses.fields(tree)[2:]:
            assert getattr(new, one.name) is getattr(tree, one.name)
        tree = new
    assert same(backend, whole.cache, single.cache)


def nested(params, name="relu"):
    return Net([Plain(params["W"], params["b"], name)], {"inner": Slotted(params["b"], None)})


def leaves(net):
    return [net.layers[0].w, net.layers[0].b, net.scale["inner"].w]


def test_dataclasses_lie_in_others_and_in_dicts(backend):
    params, grads = model(backend)
    opt, other = Adam(lr=0.125), Adam(lr=0.125)
    plain = {"layers": [{"w": params["W"], "b": params["b"]}], "scale": {"inner": {"w": params["b"], "b": None}}}
    net, same_names = nested(params), {"layers": [{"w": grads["W"], "b": grads["b"]}]}
    same_names["scale"] = {"inner": {"w": grads["b"], "b": None}}
    for k in range(3):
        net = opt.update_all(net, nested(grads) if k % 2 else same_names)
        plain = other.update_all(plain, same_names)
    assert list(opt.cache) == list(other.cache) == [("layers", 0, "w"), ("layers", 0, "b"), ("scale", "inner", "w")]
    assert same(backend, leaves(net), [*plain["layers"][0].values(), plain["scale"]["inner"]["w"]])
    assert (net.rate, net.layers[0].name, net.scale["inner"].b) == (0.5, "relu", None)
    assert [row.name for row in opt.explain(Plain(params["W"], params["b"]))] == ["w", "b"]
    other.load_state_dict(opt.state_dict(), like=nested(params))
    assert same(backend, other.cache, opt.cache)


@writes
def test_a_frozen_one_is_written_in_place(backend):
    params, grads = model(backend)
    mine = {name: backend.writable(backend.numpy(x)) for name, x in params.items()}
    tree, opt, other = of_kind(Frozen, mine), SGD(lr=0.125), SGD(lr=0.125)
    for _ in range(3):
        assert opt.update_all(tree, of_kind(Frozen, grads), out=tree) is tree
        params = other.update_all(params, grads)
    assert tree.w is mine["W"]
    assert same(backend, [tree.w, tree.b], [params["W"], params["b"]])


def test_a_number_comes_back_as_one(backend):
    params, grads = model(backend)
    new = SGD(lr=0.5).update_all(Plain(params["W"], 1.0), Plain(grads["W"], 0.5))
    assert type(new.b) is float
    assert new.b == 0.75


def test_what_has_no_gradient_rests(backend):
    params, grads = model(backend)
    opt = Adam()
    new = opt.update_all(of_kind(Plain, params), Plain(grads["W"], None))
    assert new.b is params["b"]
    assert list(opt.cache) == ["w"]


def test_a_field_that_becomes_an_array_is_found(backend):
    params, grads = model(backend)
    opt = SGD(lr=0.125, momentum=0.5)
    tree, gradient = Plain(params["W"], "none"), Plain(grads["W"], "none")
    for _ in range(2):
        tree = opt.update_all(tree, gradient)
    tree, gradient = Plain(tree.w, params["b"]), Plain(grads["W"], grads["b"])
    tree = opt.update_all(tree, gradient)
    assert list(opt.cache) == ["w", "b"]
    assert same(backend, tree.b, SGD(lr=0.125, momentum=0.5).update(params["b"], grads["b"], "b"))
    with pytest.raises(ValueError, match="grads has 'b', not in params"):
        opt.update_all(Plain(tree.w, "none"), gradient)


@dataclass
class Derived:
    w: Any
    total: Any = field(init=False)
    label: str = field(init=False, default="")
    fixed: Any = field(init=False, default=None, metadata={"pytree_node": False})

    def __post_init__(self):
        self.total = self.fixed = self.w + 0.0


def test_what_a_class_computes_is_refused_unless_it_is_static(backend):
    """It would not follow the arrays that it was computed of."""
    x = backend.array([1.0])
    tree = Derived(x)
    with pytest.raises(ValueError, match=r"Derived\.total .*init=False.*property.*static"):
        SGD().update_all(tree, {"w": x})
    del tree.total
    new = SGD(lr=0.5).update_all(tree, {"w": x})
    assert equal(backend, new.w, [0.5])
    assert new.fixed is tree.fixed
    assert not hasattr(new, "total")


def test_a_dataclass_is_taken_wherever_a_dict_is(backend):
    params, grads = model(backend)
    tree, gradient = of_kind(Slotted, params), of_kind(Slotted, grads)
    names = {"W": "w", "b": "b"}
    for function in (
        lambda params, grads: xpopt.clipping.clip_by_global_norm(grads, 0.5),
        lambda params, grads: xpopt.climb(params, grads, 0.5),
    ):
        got, want = function(tree, gradient), function(params, grads)
        assert type(got) is Slotted
        assert all(same(backend, getattr(got, short), want[name]) for name, short in names.items())
    norm = SGD().stationarity(tree, gradient)
    assert same(backend, norm, SGD().stationarity(params, grads))
    assert same(backend, xpopt.clipping.global_norm(gradient), norm)
    opt = SGD(groups={"b": "freeze"})
    new = opt.update_all(tree, gradient)
    assert same(backend, new.b, params["b"])
    assert not same(backend, new.w, params["W"])


OPTIONS = [
    {"nonfinite": "skip"},
    {"accumulate": 2},
    {"loss_scale": xpopt.DynamicLossScale(8.0), "nonfinite": "skip"},
    {"groups": {"*/w": {"lr": 0.25}, "*/b": "freeze"}},
    {"average": EMA(0.5), "clip_global": 1.0, "weight_decay": 0.5},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: next(iter(options)))
@pytest.mark.parametrize("place", ["new", pytest.param("out", marks=writes)])
def test_options_meet_dataclasses_as_they_meet_dicts(backend, options, place):
    """A parameter that is not there among them, and a step that may be left out."""
    opt, other = Adam(lr=0.125, **options), Adam(lr=0.125, **options)
    params, _ = model(backend)
    if place == "out":
        params = {name: backend.writable(backend.numpy(x)) for name, x in params.items()}
    tree = {"a": Slotted(params["W"], params["b"]), "z": Slotted(params["W"] + 0.0, None)}
    plain = {"a": {"w": params["W"] + 0.0, "b": params["b"] + 0.0}, "z": {"w": params["W"] + 0.0}}
    for k in range(4):
        _, grads = model(backend, scale=np.nan if k == 2 and options.get("accumulate") is None else 1.0 + k)
        gradient = {"a": Slotted(grads["W"], grads["b"]), "z": Slotted(grads["W"], None)}
        same_names = {"a": {"w": grads["W"], "b": grads["b"]}, "z": {"w": grads["W"]}}
        tree = opt.update_all(tree, gradient, out=tree if place == "out" else None)
        plain = other.update_all(plain, same_names, out=plain if place == "out" else None)
    assert same(backend, [tree["a"].w, tree["a"].b, tree["z"].w], [*plain["a"].values(), plain["z"]["w"]])
    assert tree["z"].b is None
    assert same(backend, opt.cache, other.cache)


@pytest.mark.backends("numpy", "jax")
def test_the_pure_form(backend):
    params, grads = model(backend)
    tree, gradient = nested(params), nested(grads)
    opt, other = Adam(lr=0.125), Adam(lr=0.125)
    pure = opt.pure()
    slots = pure.init(tree)
    assert type(slots.layers[0]) is Plain
    for _ in range(2):
        tree, slots = pure.update(tree, gradient, slots, pure.numbers())
    opt.take(slots)
    want = nested(params)
    for _ in range(2):
        want = other.update_all(want, gradient)
    assert opt.cache.keys() == other.cache.keys()
    for got, x in zip(leaves(tree), leaves(want), strict=True):
        assert np.allclose(backend.numpy(got), backend.numpy(x), rtol=1e-6)
    assert (tree.layers[0].name, tree.rate) == ("relu", 0.5)
    opt = SGD()  # a state without a slot is a dict without an array
    pure = opt.pure()
    slots = pure.init(tree)
    tree, slots = pure.update(tree, gradient, slots, pure.numbers())
    assert slots.layers[0].w == {}


@writes
@pytest.mark.parametrize("make", [Plain, Slotted], ids=lambda make: make.__name__)
def test_averages_take_the_place_of_fields(backend, make):
    params, grads = model(backend)
    mine = of_kind(make, {name: backend.writable(backend.numpy(x)) for name, x in params.items()})
    opt = SGD(lr=0.125, average=EMA(0.5))
    opt.update_all(mine, of_kind(make, grads), out=mine)
    opt.update_all(mine, of_kind(make, grads), out=mine)
    before, averages = frozen(backend, [mine.w, mine.b]), opt.averaged(mine)
    assert isinstance(averages, make)
    with averages:
        assert same(backend, [mine.w, mine.b], [averages.w, averages.b])
        assert frozen(backend, [mine.w, mine.b]) != before
    assert frozen(backend, [mine.w, mine.b]) == before
    for twin in (copy.copy(averages), pickle.loads(pickle.dumps(averages))):
        assert type(twin) is make
        assert same(backend, [twin.w, twin.b], [averages.w, averages.b])


@pytest.mark.backends("numpy")
def test_a_solver_asks_for_points_of_the_class(backend):
    def fun(x):
        assert type(x) is Plain
        return float(np.sum(x.w**2) + x.b**2), Plain(2 * x.w, 2 * x.b)

    result = xpopt.minimize(fun, Plain(np.array([1.0, -2.0]), 3.0, "mine"), "LBFGS")
    assert np.allclose(result.params.w, 0, atol=1e-5)
    assert (type(result.params.b), result.params.name) == (float, "mine")


# What libraries know


class Registered:
    """A class of which a library knows the parts."""

    def __init__(self, w, b, name):
        self.w, self.b, self.name = w, b, name


class Unnamed(Registered):
    """A class of which a library knows no names."""


@dataclass
class Module:
    w: Any
    b: Any
    name: str


@pytest.fixture(scope="module")
def of_jax():
    util = pytest.importorskip("jax").tree_util
    util.register_pytree_with_keys(
        Registered,
        lambda x: (((util.GetAttrKey("w"), x.w), (util.DictKey("b"), x.b)), x.name),
        lambda name, children: Registered(*children, name),
    )
    util.register_pytree_node(Unnamed, lambda x: ((x.w, x.b), x.name), lambda name, pair: Unnamed(*pair, name))
    util.register_dataclass(Module, ["w", "b"], ["name"])


@pytest.fixture(scope="module")
def of_torch():
    util = pytest.importorskip("torch.utils._pytree")
    util.register_pytree_node(
        Registered,
        lambda x: ([x.w, x.b], x.name),
        lambda children, name: Registered(*children, name),
        flatten_with_keys_fn=lambda x: ([(util.GetAttrKey("w"), x.w), (util.MappingKey("b"), x.b)], x.name),
    )
    util.register_pytree_node(Unnamed, lambda x: ([x.w, x.b], x.name), lambda children, name: Unnamed(*children, name))


def check_registered(backend, cls, names):
    params, grads = model(backend)
    opt, single = Adam(lr=0.125), Adam(lr=0.125)
    tree, gradient = {"net": cls(params["W"], params["b"], "mine")}, {"net": cls(grads["W"], grads["b"], "mine")}
    w, b = params["W"], params["b"]
    for _ in range(3):
        tree = opt.update_all(tree, gradient)
        w, b = single.update(w, grads["W"], "w"), single.update(b, grads["b"], "b")
        single.step()
    net = tree["net"]
    assert (type(net), net.name) == (cls, "mine")
    assert same(backend, [net.w, net.b], [w, b])
    assert list(opt.cache) == [("net", name) for name in names]
    new = opt.update_all(tree, {"net": cls(None, grads["b"], "mine")})  # None is a gradient that is not there
    assert new["net"].w is net.w
    pure = SGD(lr=0.125).pure()
    slots = pure.init(tree)
    new, slots = pure.update(tree, gradient, slots, pure.numbers())
    assert (type(new["net"]), type(slots["net"])) == (cls, cls)


CLASSES = pytest.mark.parametrize(("cls", "names"), [(Registered, ["w", "b"]), (Unnamed, [0, 1])])


@pytest.mark.backends("jax")
@pytest.mark.usefixtures("of_jax")
@pytest.mark.parametrize(("cls", "names"), [(Registered, ["w", "b"]), (Unnamed, [0, 1]), (Module, ["w", "b"])])
def test_what_jax_knows_is_a_container(backend, cls, names):
    check_registered(backend, cls, names)


@pytest.mark.backends("jax")
@pytest.mark.usefixtures("of_jax")
@pytest.mark.parametrize("cls", [Registered, Module])
def test_what_jax_knows_goes_through_jit(backend, cls):
    jax = pytest.importorskip("jax")
    params, grads = model(backend)
    tree, gradient = (cls(x["W"], x["b"], "mine") for x in (params, grads))
    pure = Adam(lr=0.125).pure()
    new, _ = jax.jit(pure.update)(tree, gradient, pure.init(tree), pure.numbers())
    want = Adam(lr=0.125).update_all(params, grads)
    assert (type(new), new.name) == (cls, "mine")
    assert np.allclose(backend.numpy(new.w), backend.numpy(want["W"]), rtol=1e-6)


@pytest.mark.backends("torch")
@pytest.mark.usefixtures("of_torch")
@CLASSES
def test_what_torch_knows_is_a_container(backend, cls, names):
    check_registered(backend, cls, names)


@pytest.mark.backends("torch")
@pytest.mark.usefixtures("of_torch")
def test_what_a_library_knows_has_averages_of_its_own_class(backend):
    """Such classes are known by themselves, and not by what is below them: there is nothing to enter."""
    params, grads = model(backend)
    opt = SGD(average=EMA(0.5))
    tree = opt.update_all(Registered(params["W"], params["b"], "mine"), Registered(grads["W"], grads["b"], ""))
    assert type(opt.averaged(tree)) is Registered


@pytest.mark.backends("numpy", "torch", "jax")
@pytest.mark.parametrize("tree", [collections.deque([1.0]), range(2), lambda: None, object(), np.float32])
def test_what_python_has_means_the_same_whatever_is_imported(backend, tree):
    with pytest.raises(TypeError, match="wanted a mapping, list or tuple of arrays, or a dataclass"):
        SGD().update_all(tree, tree)


class Copies(list):
    """A list of copies."""

    def __init__(self, values=()):
        super().__init__(x + 0.0 for x in values)


class CopiesLater(dict):
    """A dict of copies."""

    def __setitem__(self, name, value):
        super().__setitem__(name, value + 0.0)


class Looks(collections.abc.Mapping):
    """A mapping that knows the sum of its values from the start, and none that is not finite."""

    is_open = True

    def __init__(self, values):
        self._values = dict(values)
        self.total = sum(np.asarray(x, np.float64).sum() for x in self._values.values())
        if not self.is_open or not np.isfinite(self.total):
            raise ValueError("closed")

    def __getitem__(self, name):
        return self._values[name]

    def __iter__(self):
        return iter(self._values)

    def __len__(self):
        return len(self._values)


@pytest.mark.backends("numpy", "torch", "jax-x64")
@pytest.mark.parametrize(
    "make", [lambda x: Copies([x]), lambda x: CopiesLater(w=x), lambda x: Looks({"w": x})], ids=range(3)
)
def test_classes_that_copy_or_read_their_values_find_results(backend, make):
    opt = SGD(lr=0.5, momentum=0.5)
    params = make(backend.array(np.ones(5000)))
    for wanted in 0.5, -0.25, -1.125:  # after velocities of 0.5, 0.75 and 0.875
        params = opt.update_all(params, make(backend.array(np.ones(5000))))
        (x,) = params if isinstance(params, Copies) else params.values()
        assert type(params) is type(make(x))
        assert (backend.numpy(x) == wanted).all()
    if isinstance(params, Looks):
        assert params.total == -1.125 * 5000


@pytest.mark.backends("numpy", "torch", "jax-x64")
def test_a_class_that_raises_changes_nothing(backend, monkeypatch):
    opt = Adam(lr=0.5)
    params, grads = Looks({"w": backend.array([1.0])}), Looks({"w": backend.array([1.0])})
    opt.update_all(params, grads)
    twin, step = opt.copy(), opt.cur_step
    monkeypatch.setattr(Looks, "is_open", False)
    with pytest.raises(ValueError, match="closed"):
        opt.update_all(params, grads)
    assert opt.cur_step == step
    monkeypatch.undo()
    found, wanted = opt.update_all(params, grads), twin.update_all(params, grads)
    assert equal(backend, found["w"], backend.numpy(wanted["w"]))
