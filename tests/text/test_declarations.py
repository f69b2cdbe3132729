"""Settings that a class declares: constructor, signature, ranges, text, attributes and files follow from one line."""

import copy
import inspect
import pickle
import re

import numpy as np
import pytest
from _kit.states import equal, held, nothing_changes, train
from _kit.table import ONE_BY_ONE, SIGNATURES, apart_of
from _kit.variants import DEFAULTS

import xpopt
from xpopt import SGD, Adam, OptimizerBase, Range, make_optimizer, make_scheduler, setting
from xpopt.schedulers import ConstantScheduler, SchedulerBase

pytestmark = [pytest.mark.backends("numpy"), pytest.mark.any_engine]  # of a library, settings know nothing


def descend(xp, param, grad, s, h):
    return param - h.lr * grad, s


class Damped(OptimizerBase):
    """Declared whole."""

    lr: float = setting(default=0.5)
    damping: float = setting(default=0.5, range=Range(low=0, high=1))
    power: int = setting(default=1, range=Range(low=1, kind="int"))

    @staticmethod
    def rule(xp, param, grad, s, h):
        return param - h.lr * (1 - h.damping) ** h.power * grad, s


class ByName(Damped):
    """One setting more, by keyword alone, and another default."""

    damping = 0.25
    late: bool = setting(default=False, kw_only=True)


class Rateless(OptimizerBase):
    """Its rate must be given, as that of the base."""

    floor: float = setting(default=0.0)

    rule = staticmethod(descend)


class Passing(Adam):
    """It states no setting, and takes all."""

    def __init__(self, *args, **kwargs):
        self.made_with = args, kwargs
        super().__init__(*args, **kwargs)


class Fixing(Adam):
    """It states one setting, fixes another, and passes on the rest."""

    def __init__(self, lr=0.125, **kwargs):
        super().__init__(lr, decay1=0.5, **kwargs)


class Silent(SGD):
    """It states nothing, and takes nothing."""

    def __init__(self):
        super().__init__(0.25, momentum=0.5)


class Older(OptimizerBase):
    """Written without declarations."""

    ranges = {"decay": Range(low=0, high=1)}

    def __init__(self, lr=0.5, decay=0.5, clip_norm=None, lr_scheduler=None, **kwargs):
        super().__init__(lr, lr_scheduler, decay=decay, clip_norm=clip_norm, **kwargs)

    rule = staticmethod(descend)


class Short(OptimizerBase):
    """Without declarations, and with fewer words."""

    ranges = {"decay": Range(low=0, high=1)}

    def __init__(self, lr=0.5, **kwargs):
        super().__init__(lr, decay=0.5, **kwargs)

    rule = staticmethod(descend)


OWN = [Damped, ByName, Passing, Fixing, Silent, Older, Short]
updating = pytest.mark.parametrize("cls", [*ONE_BY_ONE, *OWN], ids=lambda cls: cls.__name__)
every_class = pytest.mark.parametrize("cls", [*SIGNATURES, *OWN], ids=lambda cls: cls.__name__)


def test_the_signature_is_the_declaration():
    P = inspect.Parameter
    for cls, wanted in [
        (
            Damped,
            [
                *[
                    (name, value, P.POSITIONAL_OR_KEYWORD)
                    for name, value in [("lr", 0.5), ("damping", 0.5), ("power", 1)]
                ],
                ("clip_norm", None, P.POSITIONAL_OR_KEYWORD),
                ("lr_scheduler", None, P.POSITIONAL_OR_KEYWORD),
                ("options", P.empty, P.VAR_KEYWORD),
            ],
        ),
        (
            ByName,
            [
                *[
                    (name, value, P.POSITIONAL_OR_KEYWORD)
                    for name, value in [("lr", 0.5), ("damping", 0.25), ("power", 1)]
                ],
                *[(name, value, P.KEYWORD_ONLY) for name, value in [("late", False), ("clip_norm", None)]],
                ("lr_scheduler", None, P.KEYWORD_ONLY),
                ("options", P.empty, P.VAR_KEYWORD),
            ],
        ),
    ]:
        assert [(p.name, p.default, p.kind) for p in inspect.signature(cls).parameters.values()] == wanted
    assert str(inspect.signature(Fixing)) == "(lr=0.125, **kwargs)"
    assert str(inspect.signature(Passing)) == "(*args, **kwargs)"
    assert list(inspect.signature(Damped()).parameters) == list(inspect.signature(Damped().update).parameters)
    assert inspect.signature(Rateless).parameters["lr"].default is P.empty


SCHEDULES = [
    kind
    for kind in (getattr(xpopt.schedulers, name) for name in xpopt.schedulers.__all__)
    if hasattr(kind, "rate_name")
]


@pytest.mark.parametrize("cls", [*SIGNATURES, *SCHEDULES], ids=lambda cls: cls.__name__)
def test_the_docstring_has_the_settings_in_the_order_of_the_signature(cls):
    section = re.search(r"Parameters\n-+\n(.*?)\n\n", inspect.getdoc(cls), re.DOTALL)[1]
    documented = [
        name for names in re.findall(r"^(\S.*?)(?: :.*)?$", section, re.MULTILINE) for name in names.split(", ")
    ]
    assert documented == [
        str(p).partition("=")[0].partition(":")[0] for p in inspect.signature(cls).parameters.values()
    ]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ByName(0.1, 0.2, 2, True), "ByName takes 3 settings by position, lr, damping, power, and got 4"),
        (lambda: Damped(0.1, 0.2, damping=0.3), "Damped got 'damping' by position and by keyword; give it once"),
        (lambda: Rateless(), "Rateless needs lr, which has no default"),
        (
            lambda: Damped(dampign=0.1),
            r"Damped takes no keyword 'dampign'; did you mean 'damping'\? Known: lr, damping, ",
        ),
        (lambda: Damped(damping=2), r"Damped: damping=2.0 is out of range; wanted a finite number in \[0, 1\]"),
        (lambda: ByName(late=1), "ByName: late=1 is a int; wanted True or False"),
        (lambda: Damped(power=1.5), "Damped: power=1.5 is a float; wanted an int"),
    ],
)
def test_a_call_that_does_not_fit_says_why(call, words):
    with pytest.raises((TypeError, ValueError), match=f"^{words}"):
        call()


def test_by_position_and_by_keyword():
    by_keyword = Damped(lr=0.25, damping=0.75, power=2, clip_norm=3.0, lr_scheduler="king", seed=4)
    assert str(Damped(0.25, 0.75, 2, 3.0, "king", seed=4)) == str(by_keyword)
    assert str(ByName(0.25, 0.75, 2, late=True)) == (
        "ByName(lr=0.25, damping=0.75, power=2, late=True, clip_norm=None, lr_scheduler=ConstantScheduler(lr=0.25))"
    )


def test_the_rule_reads_them(backend):
    W = backend.array([1.0])
    assert equal(backend, Damped(1.0, 0.5, 2).update(W, W, "W"), [0.75])
    assert equal(backend, ByName(1.0).update(W, W, "W"), [0.25])


def test_a_plain_value_is_another_default_of_the_same_setting():
    class Fast(Adam):
        lr: float = 0.5

    class Seeded(Fast):
        seed = 3
        lr_scheduler = "exponential"

    assert str(Fast()) == str(Adam(0.5)).replace("Adam", "Fast")
    assert Fast(0.25).lr == 0.25
    assert Adam().lr == 0.001
    seeded = Seeded()
    assert (seeded.seed, seeded.lr, type(seeded.lr_scheduler).__name__) == (3, 0.5, "ExponentialScheduler")
    assert "seed" not in str(seeded)
    assert "seed=0" in str(Seeded(seed=0))
    for opt in (Seeded(), Seeded(seed=0)):
        assert make_optimizer(str(opt)).hyperparameters == opt.hyperparameters
    with pytest.raises(ValueError, match="Fast: lr=-1"):
        Fast(lr=-1.0)


def test_a_range_may_be_narrowed_with_or_without_a_declaration():
    class Narrow(Adam):
        decay1: float = setting(default=0.5, range=Range(low=0, high=0.5))

    class Older(Adam):
        ranges = {**Adam.ranges, "decay1": Range(low=0, high=0.5)}

    class Below(Older):
        decay1 = 0.25

    class Both(Adam):
        decay1 = 0.5
        ranges = Older.ranges

    class BelowBoth(Both):
        decay1 = 0.25

    for cls in (Narrow, Older, Below, Both, BelowBoth):
        assert cls(decay1=0.5).decay1 == 0.5
        with pytest.raises(ValueError, match=r"decay1=0.75 is out of range; wanted a finite number in \[0, 0.5\]"):
            cls(decay1=0.75)
        assert list(cls.ranges) == ["decay1", "decay2", "eps", "eps_place"]
    assert Adam(decay1=0.75).decay1 == 0.75
    assert Below().decay1 == 0.25


@pytest.mark.parametrize("name", ["update", "cache", "slots", "rule", "ranges", "copy"])
def test_a_name_that_means_something_else_is_refused(name):
    with pytest.raises(TypeError, match=f"^Own declares the setting '{name}', which its base has as something else"):
        type("Own", (Adam,), {name: setting(default=0.5)})


def test_a_setting_without_a_default_after_one_with_a_default_is_refused():
    with pytest.raises(TypeError, match=r"^Own: more has no default and eps has; give it one, or kw_only=True"):
        type("Own", (Adam,), {"more": setting()})
    assert type("Own", (Adam,), {"more": setting(kw_only=True)})(more=3).more == 3


# What the base takes is shown, whatever a constructor's signature says


@every_class
def test_every_setting_is_an_attribute_to_read(cls):
    opt = cls()
    for name, value in opt.hyperparameters.items():
        if name not in ("id", "lr_scheduler", *(set(cls.ranges) - set(inspect.signature(cls).parameters))):
            found = getattr(opt, name)
            assert (list(found) if isinstance(found, tuple) else found) == value
            assert name in dir(opt)
    opt.set_params({"lr": 0.75})
    assert opt.lr == 0.75
    opt.lr_scheduler = "ExponentialScheduler(initial_lr=0.5)"
    assert opt.lr == 0.5


@every_class
def test_what_is_set_by_assignment_points_to_set_params(cls):
    opt = cls()
    before = str(opt)
    for name in ("lr", "clip_norm", *DEFAULTS):
        with pytest.raises(
            AttributeError, match=rf"^{cls.__name__}.{name} is changed by set_params\({{'{name}': 0.5}}\)"
        ):
            setattr(opt, name, 0.5)
    assert str(opt) == before


CHANGES = {"lr": 0.375, "clip_norm": 2.0, "nonfinite": "skip", "seed": 5}


@updating
def test_every_setting_is_shown_and_comes_back(backend, cls):
    opt = cls()
    names = ["lr", *cls.ranges, "clip_norm", "lr_scheduler", *(name for name in DEFAULTS if name not in cls.ranges)]
    apart = {name for base in cls.__mro__ if base in SIGNATURES for name in apart_of(base)}
    assert list(opt.hyperparameters) == ["id", *names]
    for changes in ({}, CHANGES, {**CHANGES, "lr_scheduler": "ExponentialScheduler(initial_lr=0.375)"}):
        opt.set_params(changes)
        train(backend, opt, 2)
        wanted = held(backend, opt)
        assert all(f"{name}=" in str(opt) for name in names[: 3 + len(cls.ranges)] if name not in apart)
        twins = [opt.copy(), copy.copy(opt), copy.deepcopy(opt)]
        twins += [pickle.loads(pickle.dumps(opt, protocol)) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
        for twin in twins:
            assert type(twin) is cls
            assert held(backend, twin) == wanted
        again = cls()
        again.load_state_dict(opt.state_dict())
        assert held(backend, again) == wanted
        for spec in (str(opt), opt.hyperparameters, {"hyperparameters": opt.hyperparameters}):
            assert make_optimizer(spec).hyperparameters == opt.hyperparameters


@every_class
def test_a_file_alone_makes_it_again(cls, tmp_path):
    pytest.importorskip("safetensors")
    opt = cls()
    opt.set_params(CHANGES)
    opt.save(tmp_path / "opt")
    again = xpopt.load_optimizer(tmp_path / "opt")
    assert type(again) is cls
    assert again.hyperparameters == opt.hyperparameters


def test_a_constructor_gets_what_it_passes_on():
    opt = make_optimizer("passing(lr=0.25, decay1=0.5, seed=3)")
    assert opt.made_with == ((), {"lr": 0.25, "seed": 3})
    assert opt.decay1 == 0.5
    assert (Fixing().lr, Fixing().decay1, Fixing(0.5, decay2=0.5).decay2) == (0.125, 0.5, 0.5)
    for text in ("Silent(lr=2.0)", "Fixing(decay1=0.25)", "Short(decay=0.25)"):
        assert text.partition("(")[2].strip(")") in str(make_optimizer(text))
    with pytest.raises(ValueError, match="Fixing has no keyword 'decay3'; did you mean"):
        make_optimizer("fixing(decay3=0.5)")


def test_a_constructor_of_a_base_is_never_left_out():
    class Loud(Adam):
        def __init__(self, lr=0.5, **kwargs):
            super().__init__(lr, **kwargs)
            self.heard = True

    class Below(Loud):
        more: float = setting(default=0.5)

    for opt in (Below(), Below(0.25, more=0.75)):
        assert opt.heard
        assert "more=" in str(opt)
        assert make_optimizer(str(opt)).hyperparameters == opt.hyperparameters


def test_a_constructor_that_assigns_is_told_where_values_go():
    class Own(SGD):
        def __init__(self, lr=0.5):
            self.lr = lr

    class Rate(SchedulerBase):
        rate: float = setting(default=0.5)

        def __init__(self, rate=0.5):
            self.rate = rate

        def learning_rate(self, step, cur_loss=None):
            return self.rate

    for cls, name in [(Own, "lr"), (Rate, "rate")]:
        with pytest.raises(AttributeError, match=rf"^{cls.__name__}.{name} is .*super\(\).__init__\({name}={name}\)$"):
            cls()


def test_a_constructor_may_read_defaults():
    class Own(SGD):
        momentum = 0.75

        def __init__(self):
            super().__init__(self.lr * 2, momentum=self.momentum)

    class Rate(xpopt.KingScheduler):
        patience = 7

        def __init__(self):
            super().__init__(self.initial_lr * 2, patience=self.patience + 1)

    assert (Own().lr, Own().momentum) == (0.02, 0.75)
    assert str(Rate()) == "Rate(initial_lr=0.02, patience=8, decay=0.99)"
    for schedule in (copy.copy(Rate()), pickle.loads(pickle.dumps(xpopt.KingScheduler(0.5, 3)))):
        assert schedule.patience == {"Rate": 8, "KingScheduler": 3}[type(schedule).__name__]


@updating
def test_changes_are_made_all_or_none(backend, cls):
    opt = cls()
    train(backend, opt, 2)
    last = list(cls.ranges)[-1] if cls.ranges else "lr"
    with nothing_changes(backend, opt):
        for bad in ({last: -1.0}, {last: "0.5"}, {"nonsense": 1}, {"rounding": "stochastic", "master": True}):
            for changes in ({**CHANGES, **bad}, {**bad, **CHANGES}):
                with pytest.raises((TypeError, ValueError, KeyError)):
                    opt.set_params({**changes, **bad})


def test_another_default_leaves_the_value_without_effect_as_it_was(backend):
    class Declared(SGD):
        momentum: float = setting(default=0.75)

    class Plain(SGD):
        momentum = 0.75

    for cls in (Declared, Plain):
        opt = cls()
        state = opt.state_dict()
        assert state["header"]["groups"][0]["settings"].pop("momentum") == 0.75
        opt.load_state_dict(state)
        assert opt.momentum == 0.0


@pytest.mark.usefixtures("eager")
def test_a_rule_reads_no_option(backend):
    class Own(Damped):
        @staticmethod
        def rule(xp, param, grad, s, h):
            return param - h.lr * h.damping * h.power * h.seed * grad, s

    x = backend.array([1.0])
    with pytest.raises(AttributeError, match="seed"):
        Own(seed=3).update(x, x, "W")


def test_a_setting_that_a_class_got_later_is_read_from_older_states(backend):
    class Own(Adam):
        damping: float = setting(default=0.5, neutral=0.0)

    class Without(Adam):
        damping: float = setting(default=0.5)

    assert Own(damping=0.0).state_dict()["header"]["groups"][0]["settings"].keys() == {"lr", "decay1", "decay2", "eps"}
    opt = Own()
    state = opt.state_dict()
    assert state["header"]["groups"][0]["settings"].pop("damping") == 0.5
    opt.load_state_dict(state)
    assert opt.damping == 0.0
    state["header"]["rule"]["name"] = "Without"
    with pytest.raises(
        xpopt.CheckpointError, match="Without has the hyperparameter 'damping', and the checkpoint does not"
    ):
        Without().load_state_dict(state)


# Schedules


class HalfWave(SchedulerBase):
    lr: float = setting(default=0.5, range=Range(low=0))
    steps: int = setting(default=4, range=Range(low=1, kind="int"))
    shift: float = setting(default=0.0, kw_only=True)
    rate_name = "lr"

    def learning_rate(self, step, cur_loss=None):
        return self.lr * (1 + np.cos(np.pi * min(step / self.steps, 1)).item()) / 2 + self.shift


class Longer(HalfWave):
    steps = 8


def test_schedules_declare_in_the_same_way():
    assert str(HalfWave()) == "HalfWave(lr=0.5, steps=4, shift=0.0)"
    assert str(inspect.signature(HalfWave)) == "(lr=0.5, steps=4, *, shift=0.0)"
    assert HalfWave(1.0, 2, shift=0.25)(2) == 0.25
    assert Longer()(4) == 0.25
    assert str(make_scheduler("longer(shift=1)", lr=0.25)) == "Longer(lr=0.25, steps=8, shift=1.0)"
    schedule = Longer()
    for twin in (schedule.copy(), pickle.loads(pickle.dumps(schedule)), make_scheduler(str(schedule))):
        assert str(twin) == str(schedule)
    with pytest.raises(TypeError, match="HalfWave takes 2 settings by position, lr, steps, and got 3"):
        HalfWave(1.0, 2, 3.0)
    with pytest.raises(ValueError, match="Longer: steps=0 is out of range"):
        Longer(steps=0)
    with pytest.raises(AttributeError, match=r"Longer.steps is changed by set_params\({'steps': 3}\)"):
        schedule.steps = 3
    with pytest.raises(TypeError, match=r"HalfWave takes no keyword 'stpes'; did you mean 'steps'\?"):
        HalfWave(stpes=3)
    schedule.set_params({"steps": 3, "id": "Longer"})
    assert schedule.steps == 3
    assert SGD(lr_scheduler=schedule).lr == 0.5


def test_a_schedule_may_narrow_a_range():
    class Small(ConstantScheduler):
        ranges = {"lr": Range(low=0, high=1)}

    assert Small(0.5)() == 0.5
    with pytest.raises(ValueError, match=r"Small: lr=2.0 is out of range; wanted a finite number in \[0, 1\]"):
        Small(2.0)
