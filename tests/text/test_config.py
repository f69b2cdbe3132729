"""Optimizers from text and dicts, and back."""

import copy
import pickle
from types import MappingProxyType

import pytest
from _kit.states import KING, OPTIMIZERS, SCHEDULERS, every_optimizer, frozen, held, model, same, train
from _kit.strategies import legal
from _kit.table import SIGNATURES
from hypothesis import given
from hypothesis import strategies as st

from xpopt import (
    SGD,
    Adam,
    NoamScheduler,
    OptimizerInitializer,
    Range,
    RMSProp,
    make_optimizer,
    make_scheduler,
)
from xpopt.schedulers import ConstantScheduler, ExponentialScheduler, KingScheduler

pytestmark = [pytest.mark.any_immutable, pytest.mark.any_engine]

CLASSES = list(SIGNATURES)
RATE = st.floats(0, 1e300)
ABOVE_0 = st.floats(1e-300, 1e300)
SCHEDULES = st.one_of(
    st.builds(ConstantScheduler, lr=RATE),
    st.builds(
        ExponentialScheduler,
        initial_lr=RATE,
        stage_length=st.integers(1, 10**20) | ABOVE_0,
        staircase=st.booleans(),
        decay=ABOVE_0,
    ),
    st.builds(NoamScheduler, model_dim=ABOVE_0, scale_factor=RATE, warmup_steps=st.integers(1, 10**20)),
    st.builds(KingScheduler, initial_lr=RATE, patience=st.integers(2, 10**9), decay=st.floats(1e-300, 1)),
)


@st.composite
def settings(draw):
    cls = draw(st.sampled_from(CLASSES))
    values = draw(
        st.fixed_dictionaries({}, optional={name: legal(setting.range) for name, setting in SIGNATURES[cls].items()})
    )
    return cls, values, draw(st.none() | SCHEDULES)


@pytest.mark.parametrize("make", [make_optimizer, lambda spec: OptimizerInitializer(spec)()], ids=["function", "class"])
class TestForms:
    def test_none_is_sgd(self, make):
        assert str(make(None)) == str(SGD())
        assert str(make_optimizer()) == str(OptimizerInitializer()()) == str(SGD())

    @pytest.mark.parametrize("cls", CLASSES)
    def test_a_class_name_in_any_case(self, make, cls):
        for name in (cls.__name__, cls.__name__.lower(), cls.__name__.upper(), f"  {cls.__name__}\n"):
            opt = make(name)
            assert type(opt) is cls
            assert str(opt) == str(cls())
            assert str(make(f"{name.strip()}()")) == str(cls())

    def test_an_object_passes_through(self, make):
        opt = Adam()
        assert make(opt) is opt

    def test_a_call(self, make):
        opt = make("SGD(lr=0.25, momentum=1, clip_norm=None, lr_scheduler=NoamScheduler(model_dim=64))")
        assert str(opt) == str(SGD(lr=0.25, momentum=1, lr_scheduler=NoamScheduler(model_dim=64)))
        assert str(make("adam(lr = 1e-3,\n decay1 = .5,)")) == str(Adam(decay1=0.5))
        assert str(make("rmsprop(lr_scheduler='king', lr=0.5)")) == str(RMSProp(lr=0.5, lr_scheduler="king"))
        assert str(make("sgd(lr=0.5, lr_scheduler={'id': 'exponential', 'decay': 0.5})")) == str(
            SGD(lr=0.5, lr_scheduler=ExponentialScheduler(initial_lr=0.5, decay=0.5))
        )
        assert str(make("sgd(lr=0.5, lr_scheduler=exponential())")) == str(SGD(lr=0.5, lr_scheduler="exponential"))

    @pytest.mark.parametrize("kind", [dict, MappingProxyType])
    def test_a_dict(self, make, kind):
        spec = kind({"id": "adam", "lr": 0.25, "lr_scheduler": kind({"id": "king", "patience": 7})})
        before = str(spec)
        opt = make(spec)
        assert str(opt) == str(Adam(lr=0.25, lr_scheduler=KingScheduler(initial_lr=0.25, patience=7)))
        assert str(make(kind({"hyperparameters": spec}))) == str(opt)
        assert str(make(kind({"hyperparameters": spec, "cache": {}}))) == str(opt)
        assert str(make(kind({"hyperparameters": spec, "cache": None}))) == str(opt)
        assert str(spec) == before

    def test_a_scheduler_object_in_a_dict_is_copied(self, make):
        scheduler = KingScheduler(patience=7)
        opt = make({"id": "SGD", "lr_scheduler": scheduler})
        assert opt.lr_scheduler is not scheduler
        assert str(opt.lr_scheduler) == str(scheduler)

    def test_each_call_makes_another(self, make):
        assert make("SGD") is not make("SGD")
        maker = OptimizerInitializer("SGD")
        assert maker() is not maker()


@pytest.mark.parametrize("scheduler", [None, *SCHEDULERS], ids=lambda text: str(text).partition("(")[0])
def test_str_makes_an_equal_one(scheduler):
    make = OPTIMIZERS["Adam"]  # of all others: the check "text", in tests/testing
    for clip_norm in (None, 0.1, 1e-300, 3):
        opt = make(lr=0.1, clip_norm=clip_norm, lr_scheduler=scheduler)
        for spec in (
            str(opt),
            repr(opt),
            opt.hyperparameters,
            {"hyperparameters": opt.hyperparameters},
            copy.deepcopy(opt.hyperparameters),
        ):
            again = make_optimizer(spec)
            assert type(again) is type(opt)
            assert str(again) == str(opt)
            assert again.hyperparameters == opt.hyperparameters


@given(settings())
def test_str_makes_an_equal_one_of_any_values(case):
    cls, values, scheduler = case
    opt = cls(**values, lr_scheduler=scheduler)
    again = make_optimizer(str(opt))
    assert type(again) is cls
    assert str(again) == str(opt)
    assert again.hyperparameters == opt.hyperparameters
    changed = cls()
    changed.set_params(opt.hyperparameters)
    assert changed.hyperparameters == opt.hyperparameters
    for name, value in values.items():
        if name != "lr":
            assert again.hyperparameters[name] == value


@given(settings())
def test_a_call_string_and_a_dict_say_the_same(case):
    cls, values, scheduler = case
    keywords = dict(values) if scheduler is None else {**values, "lr_scheduler": scheduler}
    text = f"{cls.__name__}({', '.join(f'{name}={value!r}' for name, value in keywords.items())})"
    assert str(make_optimizer(text)) == str(cls(**keywords)) == str(make_optimizer({"id": cls.__name__, **keywords}))


@every_optimizer
def test_state_comes_along(backend, make):
    opt = make(lr_scheduler=SCHEDULERS[1], clip_norm=0.5)
    params = train(backend, opt, 3)
    spec = {"hyperparameters": opt.hyperparameters, "cache": opt.cache}
    before, want = frozen(backend, opt.cache), train(backend, opt.copy(), 1, params)
    made = [make_optimizer(spec), make_optimizer(pickle.loads(pickle.dumps(spec)))]
    for again in made:
        again.cur_step = opt.cur_step
        assert held(backend, again) == held(backend, opt)
        assert again.cache is not opt.cache
        assert same(backend, train(backend, again, 1, params), want)
    assert frozen(backend, opt.cache) == before


def test_a_cache_of_the_wrong_form_is_an_error_that_names_the_entry(backend):
    x = backend.array([1.0])
    for wrong in ({"W": {"t": 1, "mean": x}}, {"W": x}, {"W": None}):
        with pytest.raises(ValueError, match="cache of 'W'"):
            make_optimizer({"hyperparameters": {"id": "Adam"}, "cache": wrong})


@pytest.mark.parametrize(
    ("spec", "error", "words"),
    [
        (3, TypeError, ["3"]),
        (3.5, TypeError, ["3.5"]),
        (b"SGD", TypeError, ["SGD"]),
        (["SGD"], TypeError, ["SGD"]),
        (SGD, TypeError, ["SGD", "call it, SGD()"]),
        (KingScheduler(), TypeError, ["KingScheduler"]),
        ("", ValueError, []),
        ("   ", ValueError, []),
        ("Adamm", ValueError, ["'Adamm'", "'Adam'"]),
        ("Momentum", ValueError, ["'Momentum'", *(cls.__name__ for cls in CLASSES)]),
        ("OptimizerBase", ValueError, ["OptimizerBase"]),
        ("OptimizerBase(lr=0.1)", ValueError, ["OptimizerBase"]),
        ("KingScheduler", ValueError, ["KingScheduler"]),
        ("xpopt.SGD()", ValueError, []),
        ("SGD(0.1)", ValueError, ["keyword"]),
        ("SGD(lr=0.1) + 1", ValueError, []),
        ("SGD(lr=0.1); SGD()", ValueError, []),
        ("SGD()()", ValueError, []),
        ("SGD(lr=0.1, lr=0.2)", ValueError, ["'lr'"]),
        ("SGD(learning_rate=0.1)", ValueError, ["'learning_rate'", "'lr'"]),
        ("SGD(eps=0.1)", ValueError, ["'eps'", "momentum"]),
        ("SGD(lr=1e400)", ValueError, ["lr"]),
        ("SGD(lr=-1)", ValueError, ["lr"]),
        ("SGD(lr=nan)", ValueError, ["nan"]),
        ("SGD(lr='0.1')", TypeError, ["lr", "str"]),
        ("SGD(lr=True)", TypeError, ["lr", "bool"]),
        ("SGD(lr=SGD())", TypeError, ["lr"]),
        ("SGD(lr=[0.1])", TypeError, ["lr", "list"]),
        ("SGD(lr=0.1*2)", ValueError, []),
        ("SGD(lr_scheduler=Adam())", ValueError, ["Adam"]),
        ("SGD(lr_scheduler=3)", TypeError, ["3"]),
        ("SGD(lr_scheduler=NoamScheduler(dim=3))", ValueError, ["'dim'", "model_dim"]),
        ("SGD(lr_scheduler=NoamScheduler(model_dim=0))", ValueError, ["model_dim"]),
        ("SGD(**{'lr': 0.1})", ValueError, []),
        ({}, ValueError, ["id"]),
        ({"lr": 0.1}, ValueError, ["id"]),
        ({"id": None}, ValueError, ["id"]),
        ({"id": 3}, ValueError, ["id"]),
        ({"id": "SGD(lr=0.1)"}, ValueError, ["SGD(lr=0.1)"]),
        ({"id": "SGD", "nope": 1}, ValueError, ["'nope'"]),
        ({"id": "SGD", 3: 1}, ValueError, ["3"]),
        ({"id": "SGD", "lr": "0.1"}, TypeError, ["lr"]),
        ({"id": "SGD", "cache": {}}, ValueError, ["'cache'"]),
        ({"hyperparameters": {"id": "SGD"}, "more": 1}, ValueError, ["'more'"]),
        ({"hyperparameters": "SGD"}, ValueError, ["hyperparameters"]),
        ({"hyperparameters": {}}, ValueError, ["id"]),
        ({"hyperparameters": {"id": "SGD"}, "cache": 3}, (TypeError, ValueError), ["cache"]),
        ({"hyperparameters": {"id": "SGD"}, "cache": [1]}, (TypeError, ValueError), ["cache"]),
        ({"cache": {}}, ValueError, ["id"]),
    ],
    ids=str,
)
def test_what_makes_no_optimizer_is_an_error_that_says_why(spec, error, words):
    with pytest.raises(error) as raised:
        make_optimizer(spec)
    for word in words:
        assert word in str(raised.value)
    with pytest.raises(error):
        OptimizerInitializer(spec)()


LONG = "x" * 100_000
NO_SCHEDULE = [
    ("", ValueError, "the text is empty"),
    ("0.1", ValueError, "not a name"),
    (LONG, ValueError, "a call of 100000 characters, more than 10000"),
    ("adam", ValueError, "unknown scheduler 'adam'"),
    ("King(patience=", ValueError, "never closed"),
    ("Noam(dim=3)", ValueError, "NoamScheduler has no keyword 'dim'"),
    ("Noam(model_dim=0)", ValueError, "NoamScheduler: model_dim=0 is out of range"),
    ("Noam(model_dim='3')", TypeError, "NoamScheduler: model_dim='3' is a str"),
    (0.1, TypeError, "0.1 is not a scheduler"),
    (b"noam", TypeError, "is not a scheduler"),
    ([LONG], TypeError, "is not a scheduler"),
    (KingScheduler, TypeError, "is not a scheduler"),
    ({}, ValueError, "'id' is None"),
    ({"id": LONG}, ValueError, "unknown scheduler 'xxx"),
    ({"id": "noam", LONG: 3}, ValueError, "NoamScheduler has no keyword 'xxx"),
    ({"id": "noam", "model_dim": LONG}, TypeError, "NoamScheduler: model_dim='xxx"),
    ({"hyperparameters": "noam"}, ValueError, "'hyperparameters' is a str"),
    ({"hyperparameters": {"id": "noam"}, "cache": {LONG: 3}}, ValueError, "NoamScheduler has no cache"),
]
GIVEN = {
    "constructor": lambda spec: Adam(lr_scheduler=spec),
    "by position": lambda spec: Adam(0.1, 0.9, 0.999, 1e-7, None, spec),
    "set_params": lambda spec: Adam().set_params({"lr_scheduler": spec}),
    "attribute": lambda spec: setattr(Adam(), "lr_scheduler", spec),
    "dict": lambda spec: make_optimizer({"id": "Adam", "lr_scheduler": spec}),
    "dict in a dict": lambda spec: make_optimizer({"hyperparameters": {"id": "adam", "lr_scheduler": spec}}),
}


@pytest.mark.parametrize("give", GIVEN.values(), ids=GIVEN)
@pytest.mark.parametrize(("spec", "error", "words"), NO_SCHEDULE, ids=lambda value: repr(value)[:20])
def test_errors_about_a_schedule_name_the_argument(give, spec, error, words):
    with pytest.raises(error, match=words) as raised:
        give(spec)
    text = str(raised.value)
    assert text.startswith("Adam: lr_scheduler: "), text
    assert len(text) < 700
    assert raised.value.__cause__ is None


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("Adam(lr_scheduler='')", ValueError, "the text is empty"),
        ("Adam(lr_scheduler='0.1')", ValueError, "not a name"),
        ("Adam(lr_scheduler=0.1)", TypeError, "0.1 is not a scheduler"),
        ("Adam(lr_scheduler=Nope())", ValueError, "unknown scheduler 'Nope'"),
        ("Adam(lr_scheduler='Nope()')", ValueError, "unknown scheduler 'Nope'"),
        ("Adam(lr_scheduler={'id': 'Nope'})", ValueError, "unknown scheduler 'Nope'"),
        ("Adam(lr_scheduler={'hyperparameters': {'id': 'noam', 'dim': 3}})", ValueError, "no keyword 'dim'"),
        ("Adam(lr_scheduler={'hyperparameters': 'noam'})", ValueError, "'hyperparameters' is a str"),
        ("Adam(lr_scheduler=Noam(model_dim=0))", ValueError, "model_dim=0"),
        ("Adam(lr_scheduler=Noam(model_dim=[]))", TypeError, "model_dim=\\[\\]"),
    ],
)
def test_errors_about_a_schedule_in_text_name_the_argument(text, error, words):
    for spec in (text, f" {text}\n"):
        with pytest.raises(error, match=f"^Adam: lr_scheduler: .*{words}"):
            make_optimizer(spec)


class Bounded(ConstantScheduler):
    ranges = {"lr": Range(low=0, high=1)}


def test_errors_about_the_rate_of_a_schedule_name_the_argument():
    with pytest.raises(ValueError, match=r"^SGD: lr_scheduler: Bounded: lr=2.0 is out of range; wanted .*\[0, 1\]"):
        SGD(lr=2, lr_scheduler="bounded")
    opt = SGD(lr=1, lr_scheduler="bounded")
    with pytest.raises(ValueError, match=r"^SGD: lr: Bounded: lr=2.0 is out of range; wanted .*\[0, 1\]"):
        opt.set_params({"lr": 2})
    assert opt.hyperparameters["lr"] == 1


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Shampoo", "this algorithm is not here: write it as a rule of your own. Known: "),
        ("ASGD(lr=0.1)", "this algorithm is not here: write it as a rule of your own. Known: "),
        ("sm3", "this algorithm is not here: write it as a rule of your own. Known: "),
        ("L-BFGS", None),
        ("momentum", r"momentum is a keyword, SGD\(momentum=0.9\). Known: "),
        ("gradient_descent", "did you mean 'SGD'?"),
        ("RMSPorp", "did you mean 'RMSProp'?"),
    ],
)
def test_names_of_other_algorithms_are_told_by_their_meaning(name, words):
    with pytest.raises(ValueError, match=words) as raised:
        make_optimizer(name)
    assert ("did you mean" in str(raised.value)) == ("did you mean" in (words or ""))


@pytest.mark.parametrize("cls", CLASSES)
def test_an_algorithm_that_is_here_is_not_said_to_be_missing(cls):
    with pytest.raises(ValueError, match=f"did you mean '{cls.__name__}'"):
        make_optimizer(f"{cls.__name__}_")


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("Adamm(lr=0.1)", 0),
        ("SGD(momentum=0.5, beta=0.1)", 18),
        ("SGD(lr=0.1, lr=0.2)", 12),
        ("SGD(lr=0.1) tail", 12),
        ("SGD(lr_scheduler=Nonesuch())", 17),
        ("SGD(lr_scheduler=NoamScheduler(model_dim=512, warmup=3))", 46),
        ("SGD(lr_scheduler=NoamScheduler(model_dim=512,, ))", 45),
        ("SGD(lr=__import__)", 7),
    ],
)
def test_errors_in_text_point_at_the_place(text, column):
    with pytest.raises(ValueError) as raised:
        make_optimizer(text)
    _, shown, caret = str(raised.value).split("\n")
    assert shown.strip() == text
    assert caret.index("^") - (len(shown) - len(shown.lstrip())) == column


HOSTILE = [
    "SGD(lr=touch())",
    "SGD(lr=__import__('pathlib').Path('{0}').touch())",
    "SGD(lr=open('{0}', 'w'))",
    "__import__('pathlib').Path('{0}').touch()",
    "SGD(lr=[open('{0}', 'w') for _ in (1,)])",
    "SGD(lr=(lambda: open('{0}', 'w'))())",
    "SGD(lr_scheduler=\"KingScheduler(patience=open('{0}', 'w'))\")",
    "SGD(lr_scheduler={{'id': \"open('{0}', 'w')\"}})",
    "SGD(lr=f\"{{open('{0}', 'w')}}\")",
    "open",
    "eval('1')",
    "SGD(lr=0.1) if open('{0}', 'w') else SGD()",
    "(x := SGD)(lr=open('{0}', 'w'))",
    "SGD(lr_scheduler=open(file='{0}', mode='w'))",
    "SGD.__class__(lr=0.1)",
    "os.system(lr=0.1)",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_is_executed(tmp_path, text):
    target = tmp_path / "executed"
    with pytest.raises((TypeError, ValueError)):
        make_optimizer(text.format(target))
    with pytest.raises((TypeError, ValueError)):
        make_optimizer({"id": text.format(target)})
    with pytest.raises((TypeError, ValueError)):
        make_optimizer({"id": "SGD", "lr_scheduler": text.format(target)})
    assert not target.exists()


@given(st.text(max_size=40) | st.text("SGDAdam(lr=0.1,) \n'\"{}[]:#", max_size=40))
def test_any_text_is_read_or_refused(text):
    try:
        opt = make_optimizer(text)
    except (TypeError, ValueError):
        return
    assert str(make_optimizer(str(opt))) == str(opt)


@given(
    st.dictionaries(
        st.sampled_from(["id", "lr", "momentum", "eps", "hyperparameters", "cache", "lr_scheduler"])
        | st.text(max_size=3),
        st.none() | st.floats() | st.integers() | st.sampled_from(["SGD", "adam", KING]) | st.just({"id": "SGD"}),
        max_size=4,
    )
)
def test_any_dict_is_read_or_refused(spec):
    try:
        opt = make_optimizer(spec)
    except (TypeError, ValueError):
        return
    assert str(make_optimizer(str(opt))) == str(opt)


def test_the_optimizers_scheduler_text_makes_its_scheduler():
    for text in SCHEDULERS:
        opt = SGD(lr_scheduler=text)
        assert str(make_scheduler(opt.hyperparameters["lr_scheduler"])) == str(opt.lr_scheduler)


def test_a_model_trains_with_what_was_made(backend):
    params, grads = model(backend)
    made = make_optimizer("adam(lr=0.125, clip_norm=0.5)")
    assert same(backend, made.update_all(params, grads), Adam(lr=0.125, clip_norm=0.5).update_all(params, grads))
