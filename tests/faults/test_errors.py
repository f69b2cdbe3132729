"""What cannot be updated is refused: by name, with what came and what was wanted, and nothing has changed."""

import array
import copy
import pickle
import sys
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from _kit.states import KING, equal, every_optimizer, frozen, model, nothing_changes, train, writes

from xpopt import SGD, Adam, OptimizerBase, Range

pytestmark = pytest.mark.any_width

OPTIMIZER = {"lr_scheduler": KING, "clip_norm": 2.0}
numpy_only = pytest.mark.backends("numpy", "numpy-readonly")


def refuse(backend, opt, param, grad, error, words, *arrays, out=None):
    """Try `update` under new names and a known one, and `update_all` with the bad one last; check error and text."""
    values = frozen(backend, arrays)
    for name, shown in [(("enc", 0, "W"), "'enc/0/W'"), (None, "None"), ("W", "'W'")]:
        with pytest.raises(error if name != "W" else (TypeError, ValueError)) as raised:
            opt.update(param, grad, name, 9.0, **({} if out is None else {"out": out}))
        text = str(raised.value)
        assert shown in text, text
        for word in words if name != "W" else ():  # where its being known for another shape may come first
            assert word in text, text
    if out is None and hasattr(param, "dtype") and hasattr(grad, "dtype"):
        params, grads = model(backend)
        with pytest.raises(error) as raised:
            opt.update_all([params, [param]], [grads, [grad]], 9.0)
        assert "'1/0'" in str(raised.value)
        for word in words:
            assert word in str(raised.value)
    assert frozen(backend, arrays) == values


@pytest.fixture
def opt(backend):
    """An optimizer in training, in which nothing has changed when the test is over."""
    opt = Adam(lr=0.125, **OPTIMIZER)
    train(backend, opt, 3)
    with nothing_changes(backend, opt):
        yield opt


@pytest.mark.parametrize("shape", [(3, 2), (2, 3, 1), (6,), (1, 3), (2, 1), (), (0,), (2, 0)], ids=str)
def test_a_gradient_of_another_shape(backend, opt, shape):
    """Also one that would be broadcast."""
    W, g = backend.array(np.ones((2, 3))), backend.array(np.ones(shape))
    refuse(backend, opt, W, g, ValueError, ["gradient of", str(shape), "(2, 3)"], W, g)
    refuse(backend, opt, g, W, ValueError, ["gradient of", str(shape), "(2, 3)"], W, g)


@every_optimizer
def test_every_optimizer_refuses_in_time(backend, make):
    opt = make(**OPTIMIZER)
    train(backend, opt, 4)
    W, g = backend.array(np.ones((2, 3))), backend.array(np.ones((3, 2)))
    with nothing_changes(backend, opt):
        refuse(backend, opt, W, g, ValueError, ["(2, 3)", "(3, 2)"], W, g)
        refuse(backend, opt, W, None, TypeError, ["gradient of", "NoneType"], W)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64", "uint64", "bool"])
def test_dtypes_without_a_meaning_here(backend, opt, dtype):
    if backend.name == "jax" and dtype in ("int64", "uint64"):
        dtype = {"int64": "int16", "uint64": "uint16"}[dtype]
    good, bad = backend.array([1.0, 2.0]), backend.xp.ones((2,), dtype=getattr(backend.xp, dtype))
    way_out = ["float32", "float64", "complex64", "complex128"]
    refuse(backend, opt, bad, bad, TypeError, ["parameter", dtype, *way_out])
    refuse(backend, opt, good, bad, TypeError, ["gradient of", dtype, *way_out])
    refuse(backend, opt, bad, good, TypeError, ["parameter", dtype, *way_out])


def test_one_that_is_complex_alone(backend, opt):
    real, z = backend.array([1.0, 2.0]), backend.complex([1, 2j])
    refuse(backend, opt, real, z, TypeError, ["gradient of", backend.widest_complex, backend.widest, "grad.real"])
    refuse(backend, opt, z, real, TypeError, ["gradient of", backend.widest_complex, backend.widest, "1j *"])
    refuse(backend, opt, real, 1j, ValueError, ["gradient of", "shape ()"])
    refuse(backend, opt, backend.array(1.0), 1j, TypeError, ["gradient of", backend.widest_complex, "grad.real"])
    refuse(backend, opt, 1.0, backend.complex(1j), TypeError, ["gradient of", backend.widest_complex, "grad.real"])


class Nothing:
    pass


NO_ARRAYS = [
    None,
    "1.0",
    b"1.0",
    {},
    {"W": 1.0},
    set(),
    range(3),
    object(),
    Nothing,
    np.ndarray,
    Nothing(),
    Fraction(1, 2),
    array.array("d", [1.0]),
    memoryview(b"12345678"),
    iter([1.0]),
    slice(3),
    len,
]


def test_what_is_no_array(backend, opt):
    good = backend.array([1.0])
    for value in NO_ARRAYS:
        kind = type(value).__name__
        refuse(backend, opt, good, value, TypeError, ["gradient of", kind, "wanted"])
        refuse(backend, opt, value, good, TypeError, ["parameter", kind, "wanted"])
        refuse(backend, opt, value, value, TypeError, ["parameter", kind, "wanted"])
    assert equal(backend, good, [1.0])


NO_FLOATS = [
    1,
    True,
    10**400,
    [1, 2],
    [True, False],
    [1.0, "a"],
    [[1.0], [2.0, 3.0]],
    [None],
    [object()],
    [[1.0, [2.0]]],
    np.int64(3),
    np.bool_(True),
    np.str_("a"),
    np.datetime64("2020"),
    *([np.longdouble(1)] if np.dtype(np.longdouble) != np.float64 else []),
]


def test_numbers_and_lists_that_are_no_floats(backend, opt):
    good = backend.array([1.0])
    for value in NO_FLOATS:
        kind = type(value).__name__
        refuse(backend, opt, good, value, TypeError, ["gradient of", kind, "wanted"])
        refuse(backend, opt, value, good, TypeError, ["parameter", kind, "wanted"])
        refuse(backend, opt, value, value, TypeError, ["parameter", kind, "wanted"])
    assert equal(backend, good, [1.0])


@pytest.mark.backends("torch", "jax", "jax-x64", "dask", "array-api-strict", "cupy")
def test_arrays_of_two_libraries(backend, opt):
    library = {"dask": "dask", "array_api_strict": "array_api_strict"}.get(backend.library, backend.library)
    mine, other = backend.array([1.0]), np.ones(1, dtype=backend.widest)
    refuse(backend, opt, mine, other, TypeError, ["gradient of", "numpy", library], mine)
    refuse(backend, opt, other, mine, TypeError, ["gradient of", "numpy", library], mine)
    g = np.ones((2, 3), dtype=backend.widest)
    with pytest.raises(ValueError, match=r"'W'.*numpy") as raised:
        opt.update(g, g, "W", 9.0)  # the name is that of a parameter of the other library
    assert library in str(raised.value)


# The loss


def test_a_loss_that_is_no_number(backend):
    """Whether or not a schedule reads it: what was meant for `out` would otherwise change nothing, in silence."""
    params, grads = model(backend)
    array = params["b"]
    whole = f"of {backend.widest} and shape (3,)"
    bad = [
        (params, "dict"),
        ([array], "list"),
        ((1.0,), "tuple"),
        ("1.0", "str"),
        (object(), "object"),
        (1j, "complex"),
    ]
    bad += [
        (array, whole),
        (array[:1], "shape (1,)"),
        (np.ones((1, 1)), "shape (1, 1)"),
        (np.complex64(1), "complex64"),
    ]
    bad += [(np.array(None), "object"), (np.datetime64("2020"), "datetime64"), (np.array("1"), "U1"), (float, "type")]
    for options in ({}, {"lr_scheduler": "noam"}, {"lr_scheduler": KING}, {"nonfinite": "skip"}):
        opt = Adam(**options)
        opt.update_all(params, grads, 1.0)
        said = []
        with nothing_changes(backend, opt):
            for loss, _ in bad:
                with pytest.raises(TypeError, match=r"cur_loss is a .*number.*out=params$") as raised:
                    opt.update_all(params, grads, loss)
                said.append(str(raised.value))
                with pytest.raises(TypeError, match=r"cur_loss is a .*number.*out=param$") as raised:
                    opt.update(params["W"], grads["W"], "W", loss)
                said.append(str(raised.value))
        for text, (_, came) in zip(said, [one for one in bad for _ in range(2)], strict=True):
            assert came in text


def test_every_number_is_a_loss(backend):
    x = backend.array([1.0])
    numbers = [0, True, 1.5, Fraction(1, 2), Decimal("0.5"), np.float16(1), np.int8(1), np.float64(1), np.longdouble(1)]
    numbers += [np.array(1), backend.array(2.0), backend.array(2.0, backend.dtypes[0])]
    for scheduler in (None, KING):
        opt = SGD(lr=1.0, lr_scheduler=scheduler)
        for loss in numbers:
            opt.update(x, x, "W", loss)
            opt.update_all([x], [x], loss)
        assert opt.cur_step == len(numbers)


# NumPy's own oddities


SWAPPED = ">" if sys.byteorder == "little" else "<"
ODD = {
    "matrix": (np.asmatrix, "matrix"),
    "masked": (lambda x: np.ma.masked_array(x, mask=[[0, 1], [0, 0]]), "MaskedArray"),
    "masked without a mask": (np.ma.masked_array, "MaskedArray"),
    "record": (lambda x: x.view(np.recarray), "recarray"),
    "subclass": (lambda x: x.view(type("Units", (np.ndarray,), {})), "Units"),
    "float64 of another byte order": (lambda x: x.astype(f"{SWAPPED}f8"), "byte order"),
    "float32 of another byte order": (lambda x: x.astype(f"{SWAPPED}f4"), "byte order"),
    "longdouble": (lambda x: x.astype(np.longdouble), "float"),
    "object": (lambda x: x.astype(object), "object"),
    "text": (lambda x: x.astype(str), "U32"),
    "bytes": (lambda x: x.astype("S3"), "S3"),
    "dates": (lambda x: x.astype("M8[s]"), "datetime64"),
    "structured": (lambda x: np.zeros((2, 2), dtype=[("a", "f8")]), "f8"),
}
if np.dtype(np.longdouble) == np.float64:
    del ODD["longdouble"]


@numpy_only
@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@pytest.mark.parametrize("case", ODD)
def test_numpy_arrays_whose_arithmetic_is_another(backend, opt, case):
    make, word = ODD[case]
    bad = make(np.ones((2, 2)))
    good = backend.array(np.ones((2, 2)))
    refuse(backend, opt, bad, bad, TypeError, ["parameter", word], good)
    refuse(backend, opt, good, bad, TypeError, ["gradient of", word], good)
    refuse(backend, opt, bad, good, TypeError, ["parameter", word], good)
    known = SGD()
    known.update(good, good, "V")
    with nothing_changes(backend, known), pytest.raises(TypeError, match="gradient of 'V'"):
        known.update(good, bad, "V")
    if case in ("matrix", "masked", "record", "subclass", "float64 of another byte order"):
        refuse(backend, opt, good, good, TypeError, ["out of"], good, out=bad)


@numpy_only
def test_dtypes_of_extensions(backend, opt):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    for name in ("float8_e5m2", "float8_e4m3fn", "int4"):
        bad = np.ones(2, dtype=getattr(ml_dtypes, name))
        refuse(backend, opt, bad, bad, TypeError, ["parameter", name])


# out=


@writes
def test_out_of_another_shape(backend, opt):
    W = backend.array(np.ones((2, 3)))
    for shape in [(3, 2), (6,), (2, 3, 1), (1, 2, 3), (), (2, 2)]:
        out = backend.writable(np.zeros(shape))
        refuse(backend, opt, W, W, ValueError, ["out of", str(shape), "(2, 3)"], W, out, out=out)


@writes
def test_out_of_another_dtype(backend, opt):
    for dtype in backend.dtypes:
        W = backend.array([1.0], dtype)
        for other in backend.dtypes:
            if other != dtype:
                out = backend.writable([0.0], other)
                refuse(backend, opt, W, W, TypeError, ["out of", f"is {other}", f"is {dtype}"], W, out, out=out)
        for wrong in (backend.xp.int32, backend.xp.bool, backend.xp.complex64):
            out = backend.xp.zeros((1,), dtype=wrong)
            refuse(backend, opt, W, W, TypeError, ["out of"], W, out=out)


@writes
@pytest.mark.parametrize(
    "out", [3.0, "W", [1.0], (1.0,), {}, np.float64(1.0), object()], ids=lambda out: type(out).__name__
)
def test_out_that_is_no_array(backend, opt, out):
    W = backend.array([1.0])
    refuse(backend, opt, W, W, TypeError, ["out of", type(out).__name__, backend.library], W, out=out)


@pytest.mark.backends("torch", "array-api-strict", "cupy")
def test_out_of_another_library(backend, opt):
    W, out = backend.array([1.0]), np.zeros(1)
    refuse(backend, opt, W, W, TypeError, ["out of", backend.library], W, out=out)


@numpy_only
def test_out_that_is_read_only(backend, opt):
    W, out = backend.array([1.0]), np.zeros(1)
    out.flags.writeable = False
    refuse(backend, opt, W, W, ValueError, ["out of", "read-only"], W, out, out=out)
    target, b = np.zeros((2, 3)), np.zeros(3)
    b.flags.writeable = False
    params, grads = model(backend)
    with pytest.raises(ValueError, match="out of 'b' is read-only"):
        opt.update_all(params, grads, 9.0, out={"W": target, "b": b})
    assert not np.any(target)
    if backend.name == "numpy-readonly":
        with pytest.raises(ValueError, match="out of 'W' is read-only"):
            opt.update_all(params, grads, 9.0, out=params)


@writes
def test_an_error_in_the_last_of_many_leaves_the_first(backend, opt):
    """Everything is checked before anything is written."""
    _, grads = model(backend)
    names = [f"p{i}" for i in range(20)]
    mine = {name: backend.writable(np.ones(3)) for name in names}
    many = dict.fromkeys(names, grads["b"])
    for bad in (backend.writable(np.ones(4)), backend.writable(np.ones((3, 1)))):
        for arguments in (
            (mine, {**many, "p19": bad}, mine),
            ({**mine, "p19": bad}, many, mine),
            (mine, many, {**mine, "p19": bad}),
        ):
            with pytest.raises(ValueError, match="'p19'"):
                opt.update_all(arguments[0], arguments[1], 9.0, out=arguments[2])
    assert all(equal(backend, x, [1.0, 1.0, 1.0]) for x in mine.values())


def test_after_an_error_the_name_is_still_free(backend):
    """A first update that fails fixes neither shape nor dtype."""
    opt = Adam()
    x, y = backend.array([1.0]), backend.array([1.0, 2.0])
    with pytest.raises(ValueError, match="shape"):
        opt.update(x, y, "W")
    with pytest.raises(ValueError, match="shape"):
        opt.update_all({"W": y, "b": x}, {"W": y, "b": y})
    assert opt.cache == {}
    opt.update(y, y, "W")
    opt.update(x, x, "b")
    assert set(opt.cache) == {"W", "b"}


@pytest.mark.backends("numpy")
def test_of_many_names_a_few_are_shown(backend, opt):
    many = {f"p{i}": backend.array([1.0]) for i in range(10_000)}
    for params, grads, words in [(many, {}, "lacks 'p0', "), ({}, many, "has 'p0', ")]:
        with pytest.raises(ValueError, match=f"^grads {words}.* and 9992 more") as raised:
            opt.update_all(params, grads, 9.0)
        assert len(str(raised.value)) < 300


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("name", ["x" * 10**5, ("enc", "x" * 10**5), b"x" * 10**5, tuple(range(10**5))], ids=type)
def test_a_long_name_is_shown_shortened(backend, opt, name):
    x = backend.array([1.0])
    with pytest.raises(
        ValueError, match=r"gradient of .*\.\.\..* has shape \(2,\), the parameter has \(1,\)"
    ) as raised:
        opt.update(x, backend.array([1.0, 2.0]), name, 9.0)
    assert len(str(raised.value)) < 300


# Calls that other libraries would take


class Model:
    """A model as torch has them, as far as anybody asks."""

    def parameters(self):
        yield np.ones(2)

    def named_parameters(self):
        yield "W", np.ones(2)


W = np.ones(2)
PARAMETERS = {
    "list": [W],
    "tuple": (W, W),
    "dict": {"W": W},
    "groups": [{"params": [W], "lr": 0.1}],
    "array": W,
    "generator": (x for x in [W]),
    "view": {"W": W}.values(),
    "model": Model(),
    "parameters()": Model().parameters(),
    "named_parameters()": Model().named_parameters(),
}


@pytest.mark.parametrize("params", PARAMETERS.values(), ids=PARAMETERS)
@pytest.mark.parametrize("cls", [SGD, Adam])
def test_parameters_in_the_place_of_the_rate(cls, params):
    for call in (lambda: cls(params), lambda: cls(params, lr=0.1), lambda: cls(params, 0.1, clip_norm=1.0)):
        with pytest.raises(
            TypeError, match=rf"^{cls.__name__}: lr, the first argument, is a \w+; wanted a n"
        ) as raised:
            call()
        assert type(params).__name__ in str(raised.value)
        assert f"opt = {cls.__name__}(lr=...), then params = opt.update_all(params, grads)" in str(raised.value)
        assert len(str(raised.value)) < 300


class Blend(OptimizerBase):
    """Its first argument is no rate, and may be a tuple."""

    ranges = {"a": Range(), "b": Range()}

    def __init__(self, betas=(0.5, 0.25), lr=0.1, **kwargs):
        super().__init__(lr, a=betas[0], b=betas[1], **kwargs)

    @staticmethod
    def rule(xp, param, grad, s, h):
        return param - h.lr * (h.a + h.b) * grad, s


class Bare(OptimizerBase):
    def __init__(self):
        super().__init__(0.1)

    @staticmethod
    def rule(xp, param, grad, s, h):
        return param - h.lr * grad, s


def test_an_optimizer_of_ones_own_may_begin_with_other_arguments():
    assert Blend((0.5, 0.5), 0.25).update(W, W, "W").tolist() == [0.75, 0.75]
    assert Blend([0.25, 0.5], 0.5, scheduler="king").hyperparameters["lr"] == 0.5
    assert Bare().update(W, W, "W").tolist() == [0.9, 0.9]
    for make in (Blend, Bare):
        opt = make()
        twins = [
            opt.copy(),
            copy.copy(opt),
            copy.deepcopy(opt),
            *(pickle.loads(pickle.dumps(opt, n)) for n in range(6)),
        ]
        assert {str(twin) for twin in twins} == {str(opt)}


def test_the_bases_word_for_a_schedule():
    with pytest.raises(TypeError, match=r"^Adam takes no keyword 'scheduler'; did you mean 'lr_scheduler'\?"):
        Adam(scheduler="king")


def gives(error, words, call):
    with pytest.raises(error) as raised:
        call()
    text = str(raised.value)
    assert words in text, text
    assert len(text) < 400


@pytest.mark.parametrize("loss", [(), (9.0,)], ids=["no loss", "loss"])
def test_a_model_in_the_place_of_a_parameter(backend, opt, loss):
    params, grads = model(backend)
    both = "update(param, param_grad, param_name) updates one parameter, update_all(params, grads) a model"
    x = params["W"]
    for call in (opt, opt.update):
        gives(TypeError, f"param_name is missing: {both}", lambda call=call: call(params, grads))
        gives(TypeError, f"param_name is missing: {both}", lambda call=call: call(x, x))
        gives(TypeError, f"param_name is missing: {both}", lambda call=call: call(param=x, param_grad=x))
        for name in (params, [x], {"W"}, bytearray(3)):
            gives(TypeError, both, lambda call=call, name=name: call(grads, {}, name, *loss))
            gives(TypeError, "cannot be hashed", lambda call=call, name=name: call(x, x, name, *loss))
        gives(TypeError, "parameter 'W' is a dict; wanted an array", lambda call=call: call(params, grads, "W", *loss))
        gives(TypeError, "(for a model: update_all)", lambda call=call: call(params, grads, "W", *loss))
        gives(TypeError, "(for a model: update_all)", lambda call=call: call(Model(), x, "W", *loss))


def test_pairs_in_the_place_of_a_mapping(backend, opt):
    params, grads = model(backend)
    words = (
        "parameter '0/0' is a str; wanted an array, a float or a nested list of floats (of pairs of names and arrays: "
    )
    gives(TypeError, words, lambda: opt.update_all(list(params.items()), list(grads.items()), 9.0))


def test_step_takes_nothing(backend, opt):
    params, grads = model(backend)
    for given in ([params, grads], [grads], [lambda: 0.0], [None]):
        words = f"Adam.step() takes no arguments, and got {len(given)}: it counts a step."
        gives(TypeError, words, lambda given=given: opt.step(*given))
        gives(TypeError, "params = opt.update_all(params, grads)", lambda given=given: opt.step(*given))


def test_what_is_no_container(backend, opt):
    params, grads = model(backend)
    x = params["W"]
    once = "convert it before the update, with dict() of names and arrays or list() of arrays"
    cases = [
        (x, "(for one array: update)"),
        (1.0, "(for one array: update)"),
        (Model(), "{name: p for name, p in model.named_parameters()}"),
        (Model().named_parameters(), once),
        (iter([x]), once),
        (params.items(), once),
        (params.values(), once),
        (None, "wanted a mapping, list or tuple of arrays"),
        ("W", "wanted a mapping, list or tuple of arrays"),
    ]
    for value, words in cases:
        kind = type(value).__name__
        for what, call in [
            ("params", lambda value=value: opt.update_all(value, grads, 9.0)),
            ("params", lambda value=value: opt.explain(value)),
            ("grads", lambda value=value: opt.update_all(params, value, 9.0)),
        ]:
            gives(TypeError, f"{what} is a {kind}; wanted a mapping, list or tuple of arrays", call)
            gives(TypeError, words.replace(": p for", ": p.grad for") if what == "grads" else words, call)


ABSENT = {
    "zero_grad": "none is kept",
    "apply_gradients": "params = opt.update_all(params, grads)",
    "minimize": "params = opt.update_all(params, grads)",
    "init": "opt.cache",
    "param_groups": "opt.hyperparameters",
    "add_param_group": "begins with its first update",
    "get_config": "opt.hyperparameters",
    "learning_rate": "opt.hyperparameters['lr']",
}


@pytest.mark.parametrize("name", ABSENT)
@pytest.mark.parametrize("cls", [SGD, Adam, Bare])
def test_what_optimizers_elsewhere_have_is_not_there(cls, name):
    opt = cls()
    with pytest.raises(AttributeError) as raised:
        getattr(opt, name)
    assert str(raised.value).startswith(f"{cls.__name__} has no attribute {name!r}: ")
    assert ABSENT[name] in str(raised.value)
    assert not hasattr(opt, name)
    assert not hasattr(cls, name)
    assert getattr(opt, name, None) is None
    assert name not in dir(opt)
    assert not hasattr(opt, f"{name}s")


def test_what_is_there_is_listed():
    opt = SGD()
    opt.mine = 3
    assert {"update", "update_all", "step", "cache", "hyperparameters", "mine", "copy", "__init__"} <= set(dir(opt))
    assert "mine" not in dir(SGD())


def test_an_optimizer_of_ones_own_may_have_them():
    class Full(Bare):
        def zero_grad(self):
            return "done"

        def __init__(self):
            super().__init__()
            self.param_groups = []

    opt = Full()
    assert opt.zero_grad() == "done"
    assert opt.copy().param_groups == []
    assert {"zero_grad", "param_groups"} <= set(dir(opt))
    assert "minimize" not in dir(opt)


@pytest.mark.backends("torch")
def test_a_model_of_torch(backend):
    torch = backend.xp
    net = pytest.importorskip("torch").nn.Linear(2, 1)
    for params in (net, net.parameters(), net.named_parameters(), list(net.parameters())):
        with pytest.raises(TypeError, match=r"update_all\(params, grads\)"):
            SGD(params, lr=0.1)
    opt = SGD(lr=0.1)
    for params in (net, net.parameters(), net.named_parameters()):
        with pytest.raises(TypeError, match=f"params is a {type(params).__name__}; wanted a mapping, list or tuple"):
            opt.update_all(params, params)
    net(torch.ones((1, 2))).sum().backward()
    params = {name: p for name, p in net.named_parameters()}  # noqa: C416 - as the message says it
    grads = {name: p.grad for name, p in net.named_parameters()}
    new = opt.update_all(params, grads)
    assert torch.equal(new["bias"], params["bias"].detach() - 0.1)
