"""Slots that say what they are: where they start, of which shape, and what is wrong where they cannot be that."""

import copy
import pickle
from typing import Any, NamedTuple

import numpy as np
import pytest
from _kit import schedules
from _kit.states import equal, frozen, same
from _kit.table import SLOTTED
from _kit.trajectories import verify

import xpopt
from xpopt import CheckpointError, OptimizerBase, Range, Rule, cols, one, rows, setting, slot

pytestmark = pytest.mark.any_width

eagerly = pytest.mark.usefixtures("eager")  # of rules that are not fused, without a warning


@pytest.mark.parametrize(
    ("shape", "row", "col"),
    [
        ((), (), ()),
        ((4,), (1,), (4,)),
        ((3, 4), (3, 1), (1, 4)),
        ((2, 3, 4), (2, 3, 1), (2, 1, 4)),
        ((3, 0), (3, 1), (1, 0)),
    ],
)
def test_the_shapes(shape, row, col):
    """One, rows and columns: what a mean over an axis has, and what spreads over the parameter."""
    assert (one(shape), rows(shape), cols(shape)) == ((), row, col)
    assert np.broadcast_shapes(row, col, shape) == shape


@pytest.mark.parametrize("row", SLOTTED, ids=str)
@pytest.mark.parametrize("clip_norm", [None, 0.8])
def test_it_walks_as_published(backend, row, clip_norm):
    """One parameter joins late; the rate changes, and with it what a slot that starts at a setting meets."""
    for dtype in {backend.widest, "float32"}:
        verify(backend, row, schedules.BY_LABEL["exponential"], clip_norm, dtype, problem="five", whole=True)


class FactorsState(NamedTuple):
    row: Any = slot(shape=rows)
    col: Any = slot(shape=cols)
    top: Any = slot(start="floor", shape=one)


class Factors(OptimizerBase):
    """Adafactor's second moments (Shazeer and Stern, ICML 2018, Alg. 4), and the largest step so far."""

    lr: float = setting(default=0.1)
    decay: float = setting(default=0.8, range=Range(low=0, high=1))
    floor: float = setting(default=0.5, range=Range(low=0))

    slots = FactorsState

    @staticmethod
    def rule(xp: Any, param: Any, grad: Any, s: Any, h: Any) -> Any:
        square = grad * grad + 1e-30
        row = h.decay * s.row + (1 - h.decay) * xp.mean(square, axis=-1, keepdims=True)
        col = h.decay * s.col + (1 - h.decay) * xp.mean(square, axis=-2, keepdims=True)
        step = grad / xp.sqrt(row * col / xp.mean(row, axis=-2, keepdims=True))
        top = xp.maximum(s.top, xp.max(xp.abs(step)))
        return param - h.lr / top * step, FactorsState(row, col, top)


def factors(param, gradients, lr, decay, floor):
    """Algorithm 4 in float64, one element after the other."""
    param, (n, m) = param.copy(), param.shape
    row, col, top = [0.0] * n, [0.0] * m, floor
    for grad in gradients:
        row = [decay * r + (1 - decay) * sum(g * g + 1e-30 for g in grad[i]) / m for i, r in enumerate(row)]
        col = [decay * c + (1 - decay) * sum(grad[i][j] ** 2 + 1e-30 for i in range(n)) / n for j, c in enumerate(col)]
        mean = sum(row) / n
        step = [[grad[i][j] / (row[i] * col[j] / mean) ** 0.5 for j in range(m)] for i in range(n)]
        top = max(top, *(abs(x) for of in step for x in of))
        for i in range(n):
            for j in range(m):
                param[i, j] -= lr / top * step[i][j]
    return param, row, col, top


def walk_factors(backend, opt, dtype, steps, start=None):
    rng = np.random.default_rng(5)
    param = rng.standard_normal((3, 4)).astype(np.float32)
    gradients = rng.standard_normal((8, 3, 4)).astype(np.float32).astype(float)
    x = backend.array(param, dtype) if start is None else start
    for k in steps:
        x = opt.update_all({"W": x}, {"W": backend.array(gradients[k], dtype)})["W"]
    return x, param.astype(float), gradients


@eagerly
def test_rows_columns_and_one_number(backend):
    for dtype, tolerance in (("float32", 1e-5), (backend.widest, 1e-5 if backend.widest == "float32" else 1e-12)):
        opt = Factors()
        x, start, gradients = walk_factors(backend, opt, dtype, range(8))
        want = factors(start, gradients.tolist(), 0.1, 0.8, 0.5)
        entry = opt.cache["W"]
        got = [x, *(entry[name] for name in ("row", "col", "top"))]
        assert [tuple(y.shape) for y in got] == [(3, 4), (3, 1), (1, 4), ()]
        for y, values in zip(got, want, strict=True):
            assert y.dtype == backend.dtype(dtype)
            np.testing.assert_allclose(backend.numpy(y).ravel(), np.ravel(values), rtol=tolerance, atol=tolerance)


def from_cache(opt):
    twin = type(opt)()
    twin.set_params(cache_dict=opt.cache)
    twin.cur_step = opt.cur_step
    return twin


def from_state(opt):
    twin = type(opt)()
    twin.load_state_dict(opt.state_dict())
    return twin


TWINS = {
    "copy": copy.copy,
    "pickle": lambda opt: pickle.loads(pickle.dumps(opt)),
    "cache": from_cache,
    "state": from_state,
}


@eagerly
@pytest.mark.parametrize("twin", TWINS.values(), ids=TWINS)
def test_it_goes_on_bit_for_bit(backend, twin):
    opt = Factors()
    x, *_ = walk_factors(backend, opt, backend.widest, range(4))
    again = twin(opt)
    ends = [(walk_factors(backend, one, backend.widest, range(4, 8), x)[0], one.cache) for one in (opt, again)]
    assert same(backend, *ends)


@eagerly
def test_a_file_goes_on_bit_for_bit(backend, tmp_path):
    pytest.importorskip("safetensors", reason="checkpoints need safetensors: pip install 'xpopt[checkpoint]'")
    opt = Factors()
    x, *_ = walk_factors(backend, opt, backend.widest, range(4))
    opt.save(tmp_path / "file")
    end = walk_factors(backend, opt, backend.widest, range(4, 8), x)[0], opt.cache
    for again in (xpopt.load_optimizer(tmp_path / "file"), xpopt.load_optimizer(tmp_path / "file", like={"W": x})):
        assert same(backend, (walk_factors(backend, again, backend.widest, range(4, 8), x)[0], again.cache), end)


@eagerly
@pytest.mark.backends("numpy")
def test_cast_converts_every_shape(backend, tmp_path):
    pytest.importorskip("safetensors", reason="checkpoints need safetensors: pip install 'xpopt[checkpoint]'")
    opt = Factors()
    x, *_ = walk_factors(backend, opt, "float64", range(4))
    opt.save(tmp_path / "file")
    again = Factors()
    again.load(tmp_path / "file", like={"W": x.astype("float32")}, cast=True)
    for name, values in opt.cache["W"].items():
        assert np.array_equal(again.cache["W"][name], np.asarray(values, np.float32))


@eagerly
@pytest.mark.backends("numpy")
@pytest.mark.parametrize("shape", [(1, 3), (3,), (3, 4), ()])
def test_a_slot_of_another_shape_is_refused_wherever_it_comes_from(backend, shape):
    opt = Factors()
    x, *_ = walk_factors(backend, opt, "float64", range(2))
    entry = {**opt.cache["W"], "row": np.zeros(shape)}
    x, before = {"W": x}, frozen(backend, opt.cache)
    state = opt.state_dict()
    state["header"]["parameters"][0]["slots"]["row"]["shape"] = list(shape)
    state["arrays"]["W/row"] = entry["row"]
    with pytest.raises(CheckpointError, match=r"'W/row' is float64 of shape .*; by the header .* of \(3, 1\)"):
        opt.load_state_dict(state)
    assert frozen(backend, opt.cache) == before
    opt.cache["W"] = entry
    with pytest.raises(ValueError, match=r"cache of 'W' holds 'row' as .*, for which the slot has shape \(3, 1\)"):
        opt.update_all(x, x)


@pytest.mark.backends("numpy")
def test_a_class_that_is_not_fused_runs_eagerly_and_is_not_warned_of(backend):
    """Factors, of which there is a warning; and momentum, which could be fused."""
    x = np.ones((3, 4), np.float32)
    with xpopt.engine("auto"):
        for cls in (Factors, xpopt.AdaGrad):
            Eager = type("Eager", (cls,), {"fused": False})
            opt = Eager()
            new = opt.update_all([x], [x])
            assert [row[1:] for row in opt.explain([x])] == [
                ("eager", 1, opt.explain([x])[0].state_bytes, "its class declares fused = False")
            ]
            with xpopt.engine("eager"):
                assert same(backend, new, cls().update_all([x], [x]))
        with pytest.warns(UserWarning, match="Factors.rule cannot be traced"):
            Factors().update(x, x, "W")


class StartedState(NamedTuple):
    zero: Any
    number: Any = slot(start=0.375)
    named: Any = slot(start="level")
    same: Any = slot(start="param")
    alone: Any = slot(start="level", shape=one)


class Started(OptimizerBase):
    lr: float = setting(default=0.5)
    level: float = setting(default=0.25, range=Range())

    slots = StartedState

    @staticmethod
    def rule(xp: Any, param: Any, grad: Any, s: Any, h: Any) -> Any:
        return param - h.lr * grad, s


def test_where_slots_start(backend):
    """At the numbers of the update that makes them, in the dtype of the arithmetic, whatever the parameter's."""
    for dtype in backend.dtypes:
        opt, values = Started(), [[1.0, -2.0], [0.5, 4.0]]
        x = backend.array(values, dtype)
        opt.update(x, x, "W")
        opt.set_params({"level": -1.5})
        new = opt.update_all({"W": x, "V": x}, {"W": x, "V": x})
        assert same(backend, new["W"], new["V"])
        compute = backend.dtype(dtype if dtype == "float64" else "float32")
        for name, level in (("W", 0.25), ("V", -1.5)):
            entry = opt.cache[name]
            assert all(entry[field].dtype == compute for field in StartedState._fields)
            for field, want in {"zero": 0, "number": 0.375, "named": level, "same": values}.items():
                assert equal(backend, entry[field], np.broadcast_to(want, (2, 2)))
            assert equal(backend, entry["alone"], level)


@pytest.mark.backends("numpy")
def test_a_slot_that_another_rule_did_not_have_starts_when_it_comes(backend):
    class Less(NamedTuple):
        zero: Any

    class Choosing(Started):
        more: bool = setting(default=False)
        follows = Less
        less = Rule(lambda xp, param, grad, s, h: (param - grad, Less(s.zero + 1)), Less, follows=StartedState)

        @classmethod
        def choose_rule(cls, settings):
            return super().choose_rule(settings) if settings["more"] else cls.less

    opt, x = Choosing(), backend.array([1.0, 2.0])
    opt.update_all({"W": x, "V": x}, {"W": x, "V": x})
    opt.set_params({"more": True, "level": 7.0})
    opt.explain({"W": x, "V": x})
    opt.update(x, x, "W")
    opt.update_all({"W": x, "V": x}, {"W": x, "V": x})
    for name, t in (("W", 3), ("V", 2)):
        entry = opt.cache[name]
        assert entry["t"] == t
        wants = [[1, 1], [0.375, 0.375], [7, 7], [1, 2], 7]
        assert all(equal(backend, entry[field], want) for field, want in zip(StartedState._fields, wants, strict=True))


def with_slot(**spec):
    """An optimizer whose second slot is that."""

    class State(NamedTuple):
        first: Any
        second: Any = slot(**spec) if "default" not in spec else spec["default"]

    class Mine(OptimizerBase):
        lr: float = setting(default=0.1)
        slots = State

        @staticmethod
        def rule(xp, param, grad, s, h):
            return param - h.lr * grad, s

    return Mine


@pytest.mark.backends("numpy")
@pytest.mark.parametrize(
    ("spec", "kind", "message"),
    [
        ({"start": "level"}, ValueError, "starts at 'level'; wanted a number, 'param', or a setting: lr"),
        ({"start": "master"}, ValueError, "starts at 'master'; wanted"),
        ({"start": "clip_norm"}, TypeError, "starts at 'clip_norm', None; wanted a finite number"),
        ({"start": float("inf")}, ValueError, "starts at inf; wanted a finite number"),
        ({"start": float("nan")}, ValueError, "starts at nan; wanted a finite number"),
        ({"start": None}, TypeError, "starts at None; wanted a finite number"),
        ({"start": True}, TypeError, "starts at True; wanted a finite number"),
        ({"start": 10**400}, ValueError, "starts at 1000.*000; wanted a finite number"),
        ({"start": "param", "shape": one}, ValueError, "starts at 'param' and has another shape than the parameter"),
        ({"shape": (3, 1)}, TypeError, "has shape=.*; wanted a function of the parameter's shape"),
        ({"dtype": "int8"}, ValueError, "has dtype='int8'; wanted one of float16"),
        ({"default": 0.0}, TypeError, r"has the default 0.0; wanted xpopt.slot\(...\), or no default"),
    ],
    ids=[
        "unknown",
        "option",
        "None by name",
        "inf",
        "nan",
        "None",
        "flag",
        "int",
        "param",
        "shape",
        "dtype",
        "default",
    ],
)
def test_a_slot_that_cannot_be_is_an_error_when_the_optimizer_is_made(backend, spec, kind, message):
    with pytest.raises(kind, match=f"^Mine: the slot 'second' {message}"):
        with_slot(**spec)()


@eagerly
@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (list, r"returned \[2\] for .* \(2,\); wanted a tuple of int"),
        (lambda shape: (1.0,), r"returned \(1.0,\) for .* \(2,\); wanted a tuple of int"),
        (lambda shape: (-1,), r"returned \(-1,\) for .* \(2,\); wanted a tuple of int"),
        (lambda shape: None, r"returned None for .* \(2,\); wanted a tuple of int"),
        (lambda shape: shape[3:][0], r"raised IndexError\("),
    ],
    ids=["list", "floats", "negative", "None", "raises"],
)
def test_a_shape_that_cannot_be_is_an_error_at_the_first_look(backend, shape, message):
    opt, x = with_slot(shape=shape)(), backend.array([1.0, 2.0])
    for look in (lambda: opt.update(x, x, "W"), lambda: opt.explain([x]), lambda: opt.update_all([x], [x])):
        with pytest.raises(TypeError, match=rf"Mine: the slot 'second': its shape function {message}"):
            look()
    assert opt.cache == {}
    assert opt.cur_step == 0


def test_a_start_beyond_the_dtype_is_an_error(backend):
    opt, x = with_slot(start=1e39)(), backend.array([1.0, 2.0], "float32")
    with pytest.raises(ValueError, match=r"Mine: the slot 'second' starts at 1e\+39, which is infinite in float32"):
        opt.update(x, x, "W")


@eagerly
def test_what_a_rule_returns_is_of_the_slots_shape(backend):
    """Nothing is spread over a slot in silence, and none is left out."""

    class State(NamedTuple):
        row: Any = slot(shape=rows)
        size: Any = slot(shape=one)

    def optimizer(rule):
        return type("Mine", (OptimizerBase,), {"slots": State, "rule": staticmethod(rule), "lr": 0.1})()

    x = backend.array([[1.0, 2.0], [3.0, 4.0]])
    wrong = {
        "'size'; wanted .* of shape \\(\\)": lambda xp, p, g, s, h: (p, State(s.row, s.row)),
        "'row'; wanted .* of shape \\(2, 1\\)": lambda xp, p, g, s, h: (p, State(s.size, s.size)),
        "'param'; wanted .* of shape \\(2, 2\\)": lambda xp, p, g, s, h: (s.row, s),
        "without 'size'": lambda xp, p, g, s, h: (p, State(s.row)),
    }
    for message, rule in wrong.items():
        opt = optimizer(rule)
        with pytest.raises(TypeError, match=message):
            opt.update(x, x, "W")
        assert opt.cache == {}


@eagerly
@pytest.mark.backends("numpy")
def test_explain_counts_the_bytes_of_every_shape(backend):
    params = {"W": np.ones((3, 4), np.float32), "V": np.ones((5, 7))}
    assert [row.state_bytes for row in Factors().explain(params)] == [4 * (3 + 4 + 1), 8 * (5 + 7 + 1)]
    assert frozen(backend, Factors().cache) == {}


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_master_copies_leave_the_slots_what_they_are(backend, dtype):
    opt, x = Started(master=True), backend.array([1.0, 3.0], dtype)
    opt.update(x, x, "W")
    entry = opt.cache["W"]
    assert list(entry) == ["t", *StartedState._fields, "master"]
    wants = [[0, 0], [0.375, 0.375], [0.25, 0.25], [1, 3], 0.25]
    assert all(equal(backend, entry[field], want) for field, want in zip(StartedState._fields, wants, strict=True))


class NarrowState(NamedTuple):
    mean: Any = slot(dtype="float16", start=0.25)
    var: Any = slot(dtype="bfloat16")
    size: Any = slot(dtype="float16", shape=one, start="lr")


class Narrow(OptimizerBase):
    lr: float = setting(default=0.3)

    slots = NarrowState

    @staticmethod
    def rule(xp: Any, param: Any, grad: Any, s: Any, h: Any) -> Any:
        mean = 0.9 * s.mean + 0.1 * grad
        var = 0.8 * s.var + 0.2 * grad * grad
        size = s.size * 1.1
        return param - size * mean / (xp.sqrt(var) + 0.1), NarrowState(mean, var, size)


def rounded(x, dtype):
    return x.astype(dtype).astype(x.dtype)


@pytest.mark.backends("numpy", "torch", "jax", "jax-x64", "cupy")
def test_a_narrower_slot_is_rounded_once_when_it_is_stored(backend, tmp_path):
    """The arithmetic is that of float32, for parameters of 16 bits too; and it goes on from copies and files."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    pytest.importorskip("safetensors", reason="checkpoints need safetensors: pip install 'xpopt[checkpoint]'")
    f4, rng = np.float32, np.random.default_rng(3)
    for dtype in ("float32", "bfloat16"):
        opt, param = Narrow(), backend.array(rng.standard_normal((2, 3)), dtype)
        x, mean, var, size = backend.numpy(param).astype(f4), np.full((2, 3), f4(0.25)), np.zeros((2, 3), f4), f4(0.3)
        size = rounded(size, np.float16)
        for step in range(6):
            grad = backend.array(rng.standard_normal((2, 3)), dtype)
            g = backend.numpy(grad).astype(f4)
            mean, var = f4(0.9) * mean + f4(0.1) * g, f4(0.8) * var + f4(0.2) * g * g
            size = size * f4(1.1)
            x = x - size * mean / (np.sqrt(var) + f4(0.1))
            mean, var, size = rounded(mean, np.float16), rounded(var, ml_dtypes.bfloat16), rounded(size, np.float16)
            x = x if dtype == "float32" else rounded(x, ml_dtypes.bfloat16)
            param = opt.update_all({"W": param}, {"W": grad})["W"]
            if step == 1:
                opt = copy.deepcopy(opt)
            if step == 2:
                opt.save(tmp_path / "file")
                opt = xpopt.load_optimizer(tmp_path / "file")
            if step == 3:
                opt.save(tmp_path / "file")
                opt = xpopt.load_optimizer(tmp_path / "file", like={"W": param})
            if step == 4:
                opt.set_params(cache_dict=opt.cache)
            entry = opt.cache["W"]
            for name, want in {"mean": mean, "var": var, "size": size}.items():
                kind = "bfloat16" if name == "var" else "float16"
                assert str(entry[name].dtype).endswith(kind)
                loaded = isinstance(entry[name], np.ndarray)  # and has met no parameter yet
                got = entry[name].astype(f4) if loaded else backend.numpy(entry[name])
                # XLA contracts a product and a sum: the last digit of 16 bits may differ
                close = np.allclose if backend.library == "jax" else np.array_equal
                assert close(got, want, **({"rtol": 0.01} if close is np.allclose else {}))
            np.testing.assert_allclose(backend.numpy(param), x, rtol=1e-5 if dtype == "float32" else 0.02, atol=1e-5)


@pytest.mark.backends("numpy")
def test_narrower_slots_are_explained_and_counted(backend):
    params = {"W": np.ones((4, 5), np.float32)}
    (row,) = Narrow().explain(params)
    assert (row.engine, row.state_bytes) == ("eager", 20 * 4 + 2)
    with xpopt.engine("auto"):
        assert Narrow().explain(params)[0].reason == "a slot is of another dtype than the arithmetic"


@pytest.mark.backends("numpy")
def test_a_slot_is_not_wider_than_the_arithmetic(backend):
    opt = with_slot(dtype="float64")()
    assert opt.update(np.ones(2), np.ones(2), "wide") is not None
    with pytest.raises(
        ValueError, match=r"Mine: the slot 'second' is of float64, which is wider than float32, the comp"
    ):
        opt.update(np.ones(2, np.float32), np.ones(2, np.float32), "W")
    with pytest.raises(ValueError, match=r"starts at 1000000\.0, which is infinite in float16"):
        with_slot(dtype="float16", start=1e6)().update(np.ones(2), np.ones(2), "W")


@pytest.mark.backends("array-api-strict")
def test_a_dtype_that_a_library_has_not_is_an_error(backend):
    opt, x = with_slot(dtype="bfloat16")(), backend.array([1.0, 2.0])
    with pytest.raises(TypeError, match="Mine: the slot 'second' cannot be made: array_api_strict has no bfloat16"):
        opt.update(x, x, "W")
    assert opt.cache == {}


@pytest.mark.backends("numpy", "torch", "jax", "jax-x64", "cupy")
def test_an_option_narrows_the_slots_of_every_optimizer(backend):
    """But a slot that is one number or states a dtype, and a master copy; switched on and off in a training."""
    if backend.library == "numpy":
        pytest.importorskip("ml_dtypes", reason="ml_dtypes, which has NumPy's bfloat16, is missing")
    for dtype in ("float32", "bfloat16"):
        x = backend.array([[1.0, -2.0], [0.5, 3.0]], dtype)
        opt = xpopt.NAdam(slots_dtype="bfloat16", master=True)
        opt.update(x, x, "W")
        kinds = {name: str(y.dtype).rpartition(".")[2] for name, y in opt.cache["W"].items() if name != "t"}
        usual = {"mean": "bfloat16", "var": "bfloat16", "product": "float32"}
        assert kinds == usual | ({"master": "float32"} if dtype == "bfloat16" else {})
        opt = xpopt.AdaGrad(slots_dtype="bfloat16")
        for _ in range(3):
            opt.update_all([x], [x])
        narrow = backend.numpy(opt.cache[0])
        assert equal(backend, backend.array(narrow, "bfloat16"), narrow)
        opt.set_params({"slots_dtype": None})
        opt.update_all([x], [backend.array(np.zeros((2, 2)), dtype)])
        assert opt.cache[0].dtype == backend.dtype("float32")
        assert equal(backend, opt.cache[0], narrow)
        opt.set_params({"slots_dtype": "float16"})
        opt.copy().update_all([x], [x])
        opt.update_all([x], [x])
        assert opt.cache[0].dtype == backend.dtype("float16")


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("way", ["with bounds", "bounds later", "in a group"])
def test_an_option_narrows_the_slots_of_each_dtype_of_a_bounded_model(backend, dtype, way, tmp_path):
    """What goes on from the file goes on as if there had been none."""
    pytest.importorskip("safetensors", reason="checkpoints need safetensors: pip install 'xpopt[checkpoint]'")
    bounds, x = {"bounds": (-1.0, 1.5)}, backend.array([1.0, 2.0], dtype)
    groups = {"W": bounds} if way == "in a group" else {}
    opt = xpopt.Adam(slots_dtype="float16", master=True, groups=groups, **(bounds if way == "with bounds" else {}))
    if way == "bounds later":
        opt.set_params(bounds)
    kept = 4 + 4 * (dtype == "float16")  # two slots, and a master copy
    assert opt.explain({"W": x})[0].state_bytes == 2 * kept
    x = opt.update(x, x, "W")
    assert [opt.cache["W"][name].dtype for name in ("mean", "var")] == [np.float16] * 2
    opt.save(tmp_path / "file")
    again = xpopt.load_optimizer(tmp_path / "file", like={"W": x})
    assert same(backend, opt.update(x, x, "W"), again.update(x, x, "W"))
    assert same(backend, opt.cache, again.cache)


@pytest.mark.backends("numpy")
def test_the_option_at_its_default_is_not_there(backend):
    rule = xpopt.Adam()._parts.settings.rule
    assert rule is xpopt.Adam(slots_dtype=None)._parts.settings.rule
    assert xpopt.SGD(slots_dtype="float16")._parts.settings.rule is xpopt.SGD()._parts.settings.rule
    assert (
        xpopt.Adam(slots_dtype="float16")._parts.settings.rule is xpopt.Adam(slots_dtype="float16")._parts.settings.rule
    )
    with pytest.raises(ValueError, match="slots_dtype"):
        xpopt.Adam(slots_dtype="float64")


def test_no_slot_is_called_like_the_count():
    class Timed(NamedTuple):
        t: Any

    class Own(xpopt.OptimizerBase):
        slots = Timed

        @staticmethod
        def rule(xp, param, grad, s, h):
            return param - h.lr * grad, Timed(s.t + 1.0)

    with pytest.raises(ValueError, match="Own: the slot 't' has the name of the count in an entry of the cache"):
        Own(lr=0.1)


@pytest.mark.backends("numpy", "torch", "jax")
@pytest.mark.parametrize(("before", "after"), [("float16", None), (None, "float16"), ("float16", "float32")])
@pytest.mark.parametrize("way", ["update", "update_all"])
def test_state_of_other_dtypes_than_the_settings_have_now_is_kept_in_files_and_goes_on(backend, before, after, way):
    """The state is written as it is; each reader converts it once, as the next update would have done."""
    opt, x = xpopt.Adam(slots_dtype=before), backend.array([0.3, -0.7], "float32")
    opt.update(x, x, "W")
    opt.set_params({"slots_dtype": after})
    state = opt.state_dict()
    assert all(array.dtype == backend.dtype(before or "float32") for array in state["arrays"].values())
    by_hand = xpopt.Adam(slots_dtype=after)
    slots = {key[2:]: backend.array(backend.numpy(x), after or "float32") for key, x in state["arrays"].items()}
    by_hand.set_params(cache_dict={"W": {"t": 1, **slots}})
    readers = [xpopt.Adam(), xpopt.Adam(), copy.copy(opt), pickle.loads(pickle.dumps(opt)), opt]
    readers[0].load_state_dict(state)
    readers[1].load_state_dict(state, like={"W": x})
    ends = []
    for each in (by_hand, *readers):
        each.state_dict()
        new = each.update(x, x, "W") if way == "update" else each.update_all({"W": x}, {"W": x})["W"]
        ends.append((new, each.cache))
    assert all(same(backend, end, ends[0]) for end in ends)


@pytest.mark.backends("numpy")
def test_a_caller_sets_slots_of_the_dtype_that_the_settings_say(backend):
    """Only what updates made is converted."""
    x = np.ones(2, np.float32)
    opt = xpopt.Adam(slots_dtype="float16")
    opt.update(x, x, "W")
    entry = dict(opt.cache["W"])
    opt.set_params({"slots_dtype": None})
    opt.cache["W"] = entry
    for call in (opt.state_dict, lambda: opt.update(x, x, "W"), lambda: opt.set_params(cache_dict={"W": entry})):
        with pytest.raises(ValueError, match="cache of 'W' holds 'mean' as numpy float16"):
            call()


@pytest.mark.backends("numpy")
def test_a_scalar_of_numpy_in_the_cache_is_told_of(backend):
    opt, x = Started(), np.ones(2)
    opt.update(x, x, "W")
    entry = {**opt.cache["W"], "alone": np.float64(0.5)}
    with pytest.raises(
        ValueError, match=r"'alone' as a scalar of float64, which is not an array \(np.asarray converts it"
    ):
        opt.set_params(cache_dict={"W": entry})
    opt.cache["W"] = entry
    with pytest.raises(ValueError, match=r"'alone' as a scalar of float64, which is not an array"):
        opt.update(x, x, "W")
    opt.cache["W"]["alone"] = np.asarray(entry["alone"])
    opt.update(x, x, "W")
