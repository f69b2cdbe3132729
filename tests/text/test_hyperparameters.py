"""Hyperparameters: documented names, order and defaults; checked when they come, read-only where they are shown."""

import copy
import inspect
import json
import math
import pickle
from collections.abc import Mapping, MutableMapping
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from _kit.states import SCHEDULERS, every_optimizer, held, model, nothing_changes, same, train
from _kit.strategies import legal
from _kit.table import CHOICES, ONE_BY_ONE, ROWS, SIGNATURES, apart_of
from _kit.variants import defaults_of as options_of
from hypothesis import example, given
from hypothesis import strategies as st

from xpopt import SGD, AdaGrad, Adam, ConstantScheduler, OptimizerBase, RMSProp, make_optimizer

pytestmark = [pytest.mark.any_immutable, pytest.mark.any_engine]

every_class = pytest.mark.parametrize("cls", SIGNATURES, ids=lambda cls: cls.__name__)
every_value = pytest.mark.parametrize(
    ("cls", "name"), [(cls, name) for cls, settings in SIGNATURES.items() for name in settings], ids=str
)


def defaults_of(cls):
    return {name: setting.default for name, setting in SIGNATURES[cls].items() if not setting.apart}


@every_class
def test_documented_names_order_and_defaults(cls):
    *parameters, options = inspect.signature(cls).parameters.values()
    wanted = {**defaults_of(cls), "lr_scheduler": None}
    first = parameters[: len(wanted)]
    assert [(p.name, p.default) for p in first] == list(wanted.items())
    assert all(p.kind is p.POSITIONAL_OR_KEYWORD for p in first)
    assert {p.name: p.default for p in parameters[len(wanted) :] if p.kind is p.KEYWORD_ONLY} == apart_of(cls)
    assert options.kind is inspect.Parameter.VAR_KEYWORD


def test_the_base_takes_a_rate_and_a_scheduler():
    parameters = inspect.signature(OptimizerBase).parameters
    assert list(parameters)[:2] == ["lr", "scheduler"]
    assert parameters["lr"].default is inspect.Parameter.empty
    assert parameters["scheduler"].default is None
    with pytest.raises(TypeError, match="OptimizerBase has no rule"):
        OptimizerBase(0.1)


@every_class
def test_what_is_shown(cls):
    defaults = defaults_of(cls)
    constant = f"ConstantScheduler(lr={defaults['lr']!r})"
    others = {**options_of(cls), "transforms": [], **apart_of(cls)}
    shown = cls().hyperparameters
    assert shown == {"id": cls.__name__, **defaults, "lr_scheduler": constant, **others}
    assert [name for name in shown if name not in others] == ["id", *defaults, "lr_scheduler"]
    values = ", ".join(f"{name}={value!r}" for name, value in defaults.items())
    assert str(cls()) == repr(cls()) == f"{cls.__name__}({values}, lr_scheduler={constant})"
    assert cls().cache == {}
    assert cls().cur_step == 0
    assert isinstance(cls().lr_scheduler, ConstantScheduler)


@every_class
def test_by_position_and_by_keyword(cls):
    given = {name: SIGNATURES[cls][name].range.some(0.5) for name in defaults_of(cls)}
    values = [*{**given, "lr": 0.25, "clip_norm": 2.0}.values(), SCHEDULERS[1]]
    by_keyword = cls(**dict(zip([*given, "lr_scheduler"], values, strict=True)))
    assert str(cls(*values)) == str(by_keyword)


@every_value
def test_every_real_number_becomes_a_float(cls, name):
    value = SIGNATURES[cls][name].range.some(0.5)
    for kind in (float, np.float64, np.float32, np.float16, np.longdouble, Fraction):
        shown = cls(**{name: kind(value)}).hyperparameters
        assert shown[name] == value
        assert type(shown[name]) is float, kind


@every_value
def test_every_integer_becomes_a_float(cls, name):
    allowed = SIGNATURES[cls][name].range
    number = next(k for k in (0, 3, 1, 7) if allowed.holds(k))
    for kind in (int, np.int64, np.uint8):
        value = cls(**{name: kind(number)}).hyperparameters[name]
        assert value == number
        assert type(value) is float, kind


@every_value
def test_the_ends_of_the_ranges(cls, name):
    allowed = SIGNATURES[cls][name].range
    for value in allowed.inside():
        kept = cls(**{name: value}).hyperparameters[name]
        assert kept == value
        opt = cls()
        opt.set_params({name: value})
        assert opt.hyperparameters[name] == value
    for value in [*allowed.outside(), math.nan, math.inf, -math.inf, 10**400, np.float32("nan"), np.float64("inf")]:
        with pytest.raises(ValueError, match=rf"{cls.__name__}: {name}\b"):
            cls(**{name: value})
        opt = cls()
        before = str(opt)
        with pytest.raises(ValueError, match=rf"{cls.__name__}: {name}\b"):
            opt.set_params({name: value})
        assert str(opt) == before


@every_value
def test_what_is_no_number_is_refused_by_name(cls, name):
    wrong = [
        "0.1",
        b"1",
        True,
        np.True_,
        0.5j,
        Decimal("0.5"),
        [0.5],
        (0.5,),
        {},
        np.array(0.5),
        np.array([0.5]),
        object(),
    ]
    for value in wrong if name == "clip_norm" else [*wrong, None]:
        with pytest.raises(TypeError, match=rf"{cls.__name__}: {name}=") as error:
            cls(**{name: value})
        assert type(value).__name__ in str(error.value)
        with pytest.raises(TypeError, match=rf"{cls.__name__}: {name}="):
            cls().set_params({name: value})


def refusals(cls, keyword):
    """What each way to give an unknown keyword says of it."""
    ways = {
        TypeError: lambda: cls(**{keyword: 0.1}),
        KeyError: lambda: cls().set_params({keyword: 0.1}),
        ValueError: lambda: make_optimizer({"id": cls.__name__, keyword: 0.1}),
    }
    for error, way in ways.items():
        with pytest.raises(error) as raised:
            way()
        text = raised.value.args[0]
        assert text.startswith(f"{cls.__name__} "), text
        _, found, end = text.partition(f"{keyword!r}; ")
        assert found, text
        yield end


@pytest.mark.parametrize(
    ("cls", "keyword", "meant"),
    [
        (SGD, "learning_rate", "'lr'"),
        (SGD, "learningRate", "'lr'"),
        (SGD, "step_size", "'lr'"),
        (SGD, "alpha", "'lr'"),
        (RMSProp, "alpha", "'decay' or 'lr'"),  # torch calls the one so, papers the other
        (SGD, "clipnorm", "'clip_norm'"),
        (SGD, "beta", "'momentum'"),
        (RMSProp, "beta", "'momentum' or 'decay'"),
        (Adam, "beta", "'decay1' and 'decay2'"),
        (Adam, "betas", "'decay1' and 'decay2'"),
        (Adam, "beta1", "'decay1'"),
        (Adam, "beta_2", "'decay2'"),
        (Adam, "b2", "'decay2'"),
        (Adam, "momentum", "'decay1'"),
        (Adam, "decay", "'decay1' or 'decay2'"),
        (Adam, "epsilon", "'eps'"),
        (RMSProp, "rho", "'decay'"),
        (RMSProp, "decay_rate", "'decay'"),
        (Adam, "learning_rate_schedule", "'lr_scheduler'"),
        (Adam, "error_if_nonfinite", "'nonfinite'"),
        (Adam, "master_weights", "'master'"),
        (Adam, "stochastic_rounding", "'rounding'"),
        (Adam, "random_state", "'seed'"),
        *[(cls, "wd", "'weight_decay'") for cls in SIGNATURES],
        *[(cls, "l2_reg", "'l2'") for cls in SIGNATURES],
        (Adam, "clipvalue", "'clip_value'"),
        (SGD, "clip", "'clip_norm' or 'clip_value'"),
        (SGD, "penalty", "'weight_decay' or 'l2'"),
    ],
)
def test_a_keyword_of_other_libraries_suggests_what_means_the_same(cls, keyword, meant):
    assert set(refusals(cls, keyword)) == {f"did you mean {meant}?"}


@pytest.mark.parametrize(
    ("cls", "keyword", "words"),
    [
        *[(cls, "l1", "l1 * sign(param)") for cls in SIGNATURES if "l1" not in SIGNATURES[cls]],
        *[(cls, "nesterov", "SGD has it") for cls in SIGNATURES if "nesterov" not in CHOICES.get(cls, {})],
        *[(cls, "params", "update_all(params, grads)") for cls in SIGNATURES],
        *[(cls, "fused", "engine()") for cls in SIGNATURES],
        (Adam, "l1_reg", "l1 * sign(param)"),
        (Adam, "amsgrad", "AMSGrad is a class of its own"),
        (Adam, "dampening", "nothing is dampened"),
        (Adam, "foreach", "engine()"),
        (Adam, "capturable", "engine()"),
        (Adam, "centered", "RMSProp has one"),
        (AdaGrad, "momentum", "SGD and RMSProp have"),
        (SGD, "decay", "is a schedule"),
        (Adam, "lr_decay", "is a schedule"),
        (Adam, "global_clipnorm", "clip_by_global_norm(grads, max_norm)"),
        (Adam, "max_grad_norm", "clip_by_global_norm(grads, max_norm)"),
        (Adam, "use_ema", "no average"),
    ],
)
def test_what_other_libraries_have_and_this_one_has_not_is_said(cls, keyword, words):
    for end in refusals(cls, keyword):
        assert words in end
        assert "did you mean" not in end
        assert ". Known: lr, " in end


@pytest.mark.backends("torch")
@pytest.mark.parametrize("row", [row for row in ROWS if row.peer], ids=str)
def test_every_keyword_of_torch_is_known_or_told(row):
    torch, cls = pytest.importorskip("torch"), row.optimizer
    theirs = inspect.signature(getattr(torch.optim, row.peer.name))
    renamed = (
        "betas",
        "etas",
        "step_sizes",
        "alpha",
        "rho",
        "momentum",
        "decoupled_weight_decay",
        "initial_accumulator_value",
    )
    for keyword in theirs.parameters.keys() - SIGNATURES[cls].keys() - cls().hyperparameters.keys():
        for end in refusals(cls, keyword):
            assert not end.startswith("known: "), keyword
            assert "did you mean" not in end or keyword in renamed, keyword


@pytest.mark.parametrize(
    ("cls", "keyword", "meant"),
    [
        (SGD, "momentun", "momentum"),
        (SGD, "mom", "momentum"),
        (Adam, "decay_1", "decay1"),
        (Adam, "Decay1", "decay1"),
        (AdaGrad, "Lr", "lr"),
        (AdaGrad, "clip_nrom", "clip_norm"),
        (AdaGrad, "non_finite", "nonfinite"),
        (Adam, "weigth_decay", "weight_decay"),
    ],
)
def test_a_misspelt_keyword_suggests_the_nearest(cls, keyword, meant):
    assert {end.partition(" Known: lr, ")[0] for end in refusals(cls, keyword)} == {f"did you mean {meant!r}?"}


@every_class
def test_a_schedule_in_the_place_of_the_rate(cls):
    for schedule in (ConstantScheduler(), ConstantScheduler, {"id": "noam"}):
        for make in (cls, lambda x: cls(lr=x), lambda x: cls().set_params({"lr": x})):
            with pytest.raises(TypeError, match=rf"^{cls.__name__}: lr\b.*wanted a.* number"):
                make(schedule)
        for make in (lambda x: cls(lr=x), lambda x: cls().set_params({"lr": x})):
            with pytest.raises(TypeError, match=r"\. A schedule is given as lr_scheduler$"):
                make(schedule)


@every_class
def test_an_unknown_keyword_without_a_likeness_lists_the_known(cls):
    for call, error in [(lambda: cls(zzz=1), TypeError), (lambda: cls().set_params({"zzz": 1}), KeyError)]:
        with pytest.raises(error, match="'zzz'") as raised:
            call()
        for name in [*SIGNATURES[cls], "lr_scheduler"]:
            assert name in str(raised.value)


@pytest.mark.parametrize(("cls", "name"), [(cls, name) for cls, names in CHOICES.items() for name in names], ids=str)
def test_what_is_chosen_by_a_word_or_a_truth(cls, name):
    """Text leaves it out at its default; nothing else is taken."""
    default, *others = CHOICES[cls][name]
    assert str(cls(**{name: default})) == str(cls())
    for value in others:
        opt = cls(**{name: value})
        assert f"{name}={value!r}, " in str(opt)
        assert make_optimizer(str(opt)).hyperparameters == opt.hyperparameters != cls().hyperparameters
        opt.set_params({name: default})
        assert str(opt) == str(cls())
    for value, error in [
        (1, TypeError),
        (None, TypeError),
        ("both", TypeError if isinstance(default, bool) else ValueError),
    ]:
        with pytest.raises(error, match=rf"{cls.__name__}: {name}=.*; wanted "):
            cls(**{name: value})


def test_nesterov_takes_gradients_whole():
    with pytest.raises(ValueError, match=r"SGD: nesterov=True and dampening=0.5 cannot be combined.*choose one"):
        SGD(momentum=0.9, nesterov=True, dampening=0.5)
    opt = SGD(momentum=0.9, nesterov=True)
    with pytest.raises(ValueError, match="choose one"):
        opt.set_params({"dampening": 0.5})
    assert opt.dampening == 0.0


@every_class
def test_id_is_accepted_if_it_matches(cls):
    assert str(cls(id=cls.__name__)) == str(cls())
    for wrong in ["OptimizerBase", "", None, 3, cls, "SGD" if cls is not SGD else "Adam"]:
        with pytest.raises(ValueError, match=cls.__name__):
            cls(id=wrong)
        with pytest.raises(ValueError, match=cls.__name__):
            cls().set_params({"id": wrong})


def ior(h):
    h |= {"lr": 1.0}


MUTATIONS = {
    "__setitem__": lambda h: h.__setitem__("lr", 1.0),
    "__delitem__": lambda h: h.__delitem__("lr"),
    "__ior__": ior,
    "update": lambda h: h.update(lr=1.0),
    "update of nothing": lambda h: h.update(),
    "pop": lambda h: h.pop("lr"),
    "pop of a missing key": lambda h: h.pop("nope", None),
    "popitem": lambda h: h.popitem(),
    "clear": lambda h: h.clear(),
    "setdefault": lambda h: h.setdefault("more", 1.0),
    "setdefault of a key that is there": lambda h: h.setdefault("lr", 1.0),
}


def test_every_way_to_change_a_dict_is_tried():
    changing = set(dir(MutableMapping)) - set(dir(Mapping)) | {"__ior__"}
    assert {name for name in changing if callable(getattr(dict, name, None))} <= set(MUTATIONS)


@pytest.mark.parametrize("mutate", MUTATIONS.values(), ids=MUTATIONS)
def test_the_dict_shown_refuses_changes_and_points_to_set_params(mutate):
    opt = Adam()
    shown, before = opt.hyperparameters, str(opt)
    copied = dict(shown)
    with pytest.raises(TypeError, match="set_params"):
        mutate(shown)
    assert shown == copied
    assert str(opt) == before


@every_class
def test_it_copies_and_pickles_as_a_plain_dict(cls):
    shown = cls(clip_norm=2.0).hyperparameters
    for duplicate in [
        dict,
        copy.copy,
        copy.deepcopy,
        lambda h: h.copy(),
        lambda h: h | {},
        lambda h: {} | h,
        lambda h: {**h},
        lambda h: pickle.loads(pickle.dumps(h)),
        lambda h: json.loads(json.dumps(h)),
        lambda h: copy.deepcopy({"nested": [h]})["nested"][0],
    ]:
        plain = duplicate(shown)
        assert type(plain) is dict
        assert list(plain.items()) == list(shown.items())
        plain["clip_norm"] = 5.0
        assert str(cls(**plain)) == str(cls(clip_norm=5.0))
    assert str(cls(**shown)) == str(cls(clip_norm=2.0))


def test_it_shows_what_was_and_not_what_comes():
    opt = SGD(lr=0.25)
    shown = opt.hyperparameters
    opt.set_params({"lr": 0.5})
    assert shown["lr"] == 0.25
    assert opt.hyperparameters["lr"] == 0.5


def test_it_is_read_only_as_a_whole():
    opt = SGD()
    with pytest.raises(AttributeError):
        opt.hyperparameters = {}


@every_value
def test_an_attribute_that_would_be_ignored_cannot_be_set(cls, name):
    opt = cls()
    with pytest.raises(AttributeError, match="set_params"):
        setattr(opt, name, 0.5)


@every_optimizer
def test_no_hyperparameter_promotes_the_parameter(backend, make):
    """With NumPy's scalars comes what comes with the same Python floats, dtype included."""
    for dtype in backend.dtypes:
        plain = make(clip_norm=0.75, lr=0.375)
        scalar = make(clip_norm=np.float64(0.75), lr=np.longdouble(0.375))
        W = backend.array([1.0, -2.0], dtype)
        got = scalar.update(W, W, "W")
        assert got.dtype == backend.dtype(dtype)
        assert same(backend, [got, scalar.cache], [plain.update(W, W, "W"), plain.cache])


@pytest.mark.parametrize("cls", [cls for cls in SIGNATURES if "eps" in SIGNATURES[cls] and cls.axes is None])
def test_eps_must_not_round_to_0_in_the_compute_dtype(backend, cls):
    """1e-50 is nothing in float32, where float16 and bfloat16 are computed too; float64 has it."""
    for dtype in backend.dtypes:
        params, grads = model(backend, dtype)
        opt = cls(eps=1e-50)
        if dtype == "float64":
            opt.update_all(params, grads)
            assert set(opt.cache) == set(params)
            continue
        for call in (
            lambda opt=opt, W=params["W"]: opt.update(W, W, ("enc", "W")),
            lambda opt=opt, p=params, g=grads: opt.update_all({"enc": p}, {"enc": g}),
        ):
            before = held(backend, opt)
            with pytest.raises(ValueError, match=r"eps=1e-50 .*float32.*'enc/W'"):
                call()
            assert held(backend, opt) == before


@pytest.mark.parametrize("cls", [cls for cls in ONE_BY_ONE if "eps" in SIGNATURES[cls]])
def test_set_params_knows_which_dtypes_are_computed(backend, cls):
    opt = cls()
    train(backend, opt, 1, dtype="float32")
    with nothing_changes(backend, opt, dtype="float32"), pytest.raises(ValueError, match=r"eps=1e-50 .*float32.*'W'"):
        opt.set_params({"eps": 1e-50, "clip_norm": 3.0})
    opt.cache = {}
    opt.set_params({"eps": 1e-50})
    assert opt.hyperparameters["eps"] == 1e-50


@pytest.mark.parametrize("cls", [cls for cls in ONE_BY_ONE if "eps" in SIGNATURES[cls]])
def test_a_subnormal_eps_counts_as_0_where_it_would_be_flushed(backend, cls):
    opt = cls(eps=1e-40)
    x = backend.array([1.0], "float32")
    if backend.library in ("jax", "cupy"):
        with pytest.raises(ValueError, match=r"eps=1e-40 .*float32.*'W'"):
            opt.update(x, x, "W")
        assert opt.cache == {}
    else:
        opt.update(x, x, "W")
        assert set(opt.cache) == {"W"}


@st.composite
def legal_values(draw):
    cls = draw(st.sampled_from(list(SIGNATURES)))
    return cls, {name: draw(legal(setting.range)) for name, setting in SIGNATURES[cls].items()}


@given(legal_values())
def test_whatever_is_in_range_is_kept_as_it_is(values):
    cls, given = values
    opt, changed = cls(**given), cls()
    changed.set_params(given)
    for one in (opt, changed, cls(**opt.hyperparameters)):
        shown = one.hyperparameters
        assert {name: shown[name] for name in given} == given
        assert str(one) == str(opt)


@given(
    st.sampled_from([(cls, name) for cls, settings in SIGNATURES.items() for name in settings]),
    st.floats() | st.integers(),
)
@example((SGD, "lr"), 2**53 + 1)
def test_any_number_is_kept_or_refused_by_name(row, value):
    cls, name = row
    try:
        kept = SIGNATURES[cls][name].range.holds(value)
    except OverflowError:
        kept = False
    if kept:
        shown = cls(**{name: value}).hyperparameters[name]
        assert shown == type(shown)(value)  # a float of an int beyond 2**53 is the nearest one
    else:
        with pytest.raises(ValueError, match=rf"{cls.__name__}: {name}\b"):
            cls(**{name: value})
