"""State handed out and taken back: what is in it, where it goes, what does not fit, and new names."""

import json
from types import MappingProxyType

import numpy as np
import pytest
from _kit.states import KING, every_optimizer, frozen, held, kind, model, nothing_changes, same, train, writes

import xpopt
from xpopt import SGD, Adam, CheckpointError, RMSProp
from xpopt.schedulers import SchedulerBase

pytestmark = pytest.mark.any_width


def trained(backend, dtype=None, **settings):
    opt = Adam(lr_scheduler=KING, **settings)
    return opt, train(backend, opt, 4, dtype=dtype)


def restored(opt, state, **options):
    again = type(opt)()
    again.load_state_dict(state, **options)
    return again


def slots(shape):
    """What the header says of Adam's, for a parameter of float32."""
    return {name: {"shape": shape, "dtype": "float32"} for name in ("mean", "var")}


def test_the_header_says_everything_but_the_arrays(backend):
    opt, params = trained(backend, "float32", clip_norm=2.0)
    opt.update(params["b"], params["b"], "b", 9.0)
    state = opt.state_dict()
    assert state["header"] == {
        "format_version": 1,
        "xpopt_version": xpopt.__version__,
        "rule": {"name": "Adam", "version": 1},
        "groups": [
            {"match": None, "settings": {"lr": 0.125, "decay1": 0.9, "decay2": 0.999, "eps": 1e-7, "clip_norm": 2.0}}
        ],
        "schedule": {
            "name": "KingScheduler",
            "hyperparameters": {"initial_lr": 0.125, "patience": 2, "decay": 0.5},
            "state": {"rate": 0.03125, "losses": [2.0, 3.0, 4.0, 9.0]},
        },
        "cur_step": 4,
        "skipped": 0,
        "pass": {"rate": 0.03125, "names": ["b"]},
        "parameters": [
            {"name": "W", "shape": [2, 3], "dtype": "float32", "updates": 4, "slots": slots([2, 3])},
            {"name": "b", "shape": [3], "dtype": "float32", "updates": 5, "slots": slots([3])},
        ],
    }
    assert json.loads(json.dumps(state["header"], allow_nan=False)) == state["header"]
    assert list(state["arrays"]) == ["W/mean", "W/var", "b/mean", "b/var"]
    for key, x in state["arrays"].items():
        name, _, slot = key.partition("/")
        assert same(backend, x, opt.cache[name][slot])
        assert kind(x) == kind(opt.cache[name][slot])


def test_narrow_parameters_keep_their_dtype_in_the_header(backend):
    for dtype in backend.dtypes:
        opt, _ = trained(backend, dtype)
        state = opt.state_dict()
        assert [p["dtype"] for p in state["header"]["parameters"]] == [dtype] * 2
        kept = backend.dtype("float64" if dtype == "float64" else "float32")
        assert {x.dtype for x in state["arrays"].values()} == {kept}


@every_optimizer
def test_what_is_handed_out_stays_as_it_was(backend, make):
    for copy in (True, False):
        opt = make(lr_scheduler=KING)
        params = train(backend, opt, 3)
        state = opt.state_dict(copy)
        before = frozen(backend, state["arrays"]), json.dumps(state["header"])
        train(backend, opt, 3, params)
        assert (frozen(backend, state["arrays"]), json.dumps(state["header"])) == before


@writes
def test_copies_are_the_callers_and_views_are_not(backend):
    opt, _ = trained(backend)
    before = held(backend, opt)
    state = opt.state_dict()
    state["arrays"]["W/mean"][...] = backend.array(np.ones((2, 3)))
    state["header"]["schedule"]["state"]["losses"].clear()
    assert held(backend, opt) == before
    assert opt.state_dict(copy=False)["arrays"]["W/mean"] is opt.cache["W"]["mean"]


@writes
def test_what_is_loaded_is_copied(backend):
    opt, params = trained(backend)
    state = opt.state_dict()
    for options in ({}, {"like": params}):
        again = restored(opt, state, **options)
        before = held(backend, again)
        for x in state["arrays"].values():
            x[...] = x + 1
        assert held(backend, again) == before


def test_a_state_goes_where_its_parameter_is(backend):
    """From this library to NumPy and back, with `like` and without, through memory."""
    for dtype in backend.dtypes:
        opt, params = trained(backend, dtype)
        state = opt.state_dict()
        there = {name: backend.numpy(x).astype(_numpy_dtype(dtype)) for name, x in params.items()}
        on_numpy = restored(opt, state, like=there)
        for entry in on_numpy.cache.values():
            assert type(entry["mean"]) is type(entry["var"]) is np.ndarray
        back = restored(opt, on_numpy.state_dict(), like=MappingProxyType(params))
        met = restored(opt, on_numpy.state_dict())
        assert back.state_dict()["header"] == on_numpy.state_dict()["header"] == state["header"]
        assert same(backend, back.cache, opt.cache)
        want = frozen(backend, train(backend, opt, 2, params, dtype))
        for one in (back, met):
            assert frozen(backend, train(backend, one, 2, params, dtype)) == want
            assert same(backend, one.cache, opt.cache)


def _numpy_dtype(name):
    return pytest.importorskip("ml_dtypes").bfloat16 if name == "bfloat16" else name


def test_like_is_any_container(backend):
    params = {"enc": {"W": backend.array(np.ones((2, 2)))}, "layers": [backend.array([1.0]), backend.array([2.0])]}
    opt = Adam()
    params = opt.update_all(params, params)
    state = opt.state_dict()
    assert list(state["arrays"])[0::2] == ['["enc","W"]/mean', '["layers",0]/mean', '["layers",1]/mean']
    again = restored(opt, state, like=params)
    assert same(backend, again.update_all(params, params), opt.update_all(params, params))
    listed = Adam()
    values = listed.update_all(params["layers"], params["layers"])
    assert list(restored(opt, listed.state_dict(), like=tuple(values)).cache) == [0, 1]


def test_all_mismatches_are_listed_in_one_error(backend):
    opt, _ = trained(backend)
    state = opt.state_dict()
    state["header"]["rule"]["version"] = 2
    state["header"]["groups"][0]["settings"] |= {"decay1": 2.0, "momentum": 0.5}
    del state["header"]["groups"][0]["settings"]["eps"]
    state["header"]["schedule"]["state"]["losses"] = ["low"]
    state["header"]["parameters"].append({**state["header"]["parameters"][1], "name": "lost"})
    state["arrays"]["b/var"] = state["arrays"]["b/mean"][:2]
    state["arrays"]["b/more"] = state["arrays"].pop("W/var")
    like = {"W": backend.array(np.ones((3, 2)), "float32"), "new": backend.array([1.0])}
    with nothing_changes(backend, opt), pytest.raises(CheckpointError) as error:
        opt.load_state_dict(state, like=like, rename={"x*": "y*"})
    listed = str(error.value)
    for line in (
        "'x*' fits no name",
        "version 2, and this is 1",
        "decay1=2.0 is out of range",
        "no hyperparameter 'momentum', and the checkpoint has 0.5",
        "has the hyperparameter 'eps'",
        "the schedule 'KingScheduler': KingScheduler: a loss='low'",
        "array 'W/var' is missing",
        "'W' has shape (2, 3) in the checkpoint, and (3, 2) in like",
        "array 'b/var' is",
        "'b' has state in the checkpoint and is not in like",
        "array 'lost/mean' is missing",
        "array 'lost/var' is missing",
        "'new' has no state in the checkpoint",
        "array 'b/more' is not in the header",
    ):
        assert listed.count(line) == 1, listed
    if backend.widest == "float64":
        assert "'W' is float64 in the checkpoint, and float32 in like; cast=True" in listed
    assert isinstance(error.value, ValueError)


@every_optimizer
def test_another_algorithm_is_refused(backend, make):
    opt, _ = trained(backend)
    other = xpopt.AdaGrad() if not isinstance(make(), xpopt.AdaGrad) else RMSProp()
    train(backend, other, 2)
    for options in ({}, {"strict": False}):
        with nothing_changes(backend, opt), pytest.raises(CheckpointError, match="this is Adam"):
            opt.load_state_dict(other.state_dict(), **options)


def test_a_newer_format_says_so_and_nothing_else(backend):
    opt, _ = trained(backend)
    state = opt.state_dict()
    state["header"] = {"format_version": 2, "everything": "else"}
    with nothing_changes(backend, opt), pytest.raises(CheckpointError, match=r"format version 2.*update xpopt"):
        opt.load_state_dict(state)


def test_what_does_not_fit_may_be_left_out(backend):
    """The rest is loaded, and what was left out starts from zeros."""
    opt, params = trained(backend)
    wide = {"W": params["W"], "b": backend.array(np.ones(5)), "new": backend.array([1.0])}
    again = Adam()
    report = again.load_state_dict(opt.state_dict(), strict=False, like=wide)
    assert report.loaded == ("W",)
    assert report.not_loaded.keys() == {"b", "new"}
    assert "(5,)" in report.not_loaded["b"]
    assert list(again.cache) == ["W"]
    again.update_all(wide, wide, 1.0)
    assert [entry["t"] for entry in again.cache.values()] == [5, 1, 1]
    assert opt.load_state_dict(opt.state_dict()) == (("W", "b"), {})


def test_before_the_first_update_no_state_is_missing(backend):
    params, _ = model(backend)
    opt = Adam(lr=0.5)
    assert restored(opt, opt.state_dict(), like=params).hyperparameters == opt.hyperparameters


def test_a_dtype_is_converted_when_asked_for(backend):
    for source in backend.dtypes:
        opt, _ = trained(backend, source)
        state = opt.state_dict()
        for target in backend.dtypes:
            params, _ = model(backend, target)
            again = restored(opt, state, like=params, cast=True)
            assert [p["dtype"] for p in again.state_dict()["header"]["parameters"]] == [target] * 2
            train(backend, again, 1, params, target)
            if source != target:
                with nothing_changes(backend, again, dtype=target), pytest.raises(CheckpointError, match="cast=True"):
                    again.load_state_dict(state, like=params)
                met = restored(opt, state)
                with pytest.raises(ValueError, match=r"'W' was loaded as .*like="):
                    met.update(params["W"], params["W"], "W", 1.0)
                assert same(backend, met.cache, opt.cache)


@pytest.mark.parametrize(
    ("rename", "names"),
    [
        ({"W": "V"}, ["V", "b", ("enc", 0, "w"), ("enc", 1)]),
        ({"*": "net.*.1"}, ["net.W.1", "net.b.1", ("enc", 0, "w"), ("enc", 1)]),
        ({"W": "b", "b": "W"}, ["b", "W", ("enc", 0, "w"), ("enc", 1)]),
        ({("enc", "*"): ("dec", "deep", "*")}, ["W", "b", ("dec", "deep", 0, "w"), ("dec", "deep", 1)]),
        ({("e*", 0, "w"): 7, ("enc", 1): (None, b"x")}, None),
        ({("e*", 0, "w*"): ("*", "*"), ("enc", 1): (None, b"x")}, None),
        ({("e*", 0, "w*"): ("d*", ("w*",)), ("enc", 1): 7}, ["W", "b", ("dnc", ("w",)), 7]),
    ],
    ids=repr,
)
def test_parameters_get_new_names(rename, names):
    opt, x = Adam(), np.ones(2)
    for name in ("W", "b", ("enc", 0, "w"), ("enc", 1)):
        opt.update(x, x * len(opt.cache), name)
    again = Adam()
    if names is None:
        with pytest.raises(ValueError, match=r"must have the same '\*'"):
            again.load_state_dict(opt.state_dict(), rename=rename)
        return
    again.load_state_dict(opt.state_dict(), rename=rename, like=dict.fromkeys(names, x))
    assert list(again.cache) == names
    assert [float(entry["mean"][0]) for entry in again.cache.values()] == [
        float(entry["mean"][0]) for entry in opt.cache.values()
    ]
    assert [again.update(x, x, name)[0] for name in names] == [opt.update(x, x, name)[0] for name in opt.cache]


def test_two_parameters_do_not_get_one_name(backend):
    opt, _ = trained(backend)
    for options in ({}, {"strict": False}):
        with nothing_changes(backend, opt), pytest.raises(CheckpointError, match="'W' and 'b' would both be"):
            opt.load_state_dict(opt.state_dict(), rename={"b": "W"}, **options)


@pytest.mark.parametrize(
    ("state", "options", "error"),
    [
        (None, {}, CheckpointError),
        ({"header": {}}, {}, CheckpointError),
        ({"header": {}, "arrays": []}, {}, CheckpointError),
        ({"header": None, "arrays": {}}, {}, CheckpointError),
        ({"header": {}, "arrays": {}}, {"rename": [("a", "b")]}, TypeError),
        ({"header": {}, "arrays": {}}, {"cast": True}, TypeError),
        ({"header": {}, "arrays": {}}, {"like": 3}, TypeError),
        ({"header": {}, "arrays": {}}, {"like": {"W": None}}, TypeError),
    ],
    ids=repr,
)
def test_what_is_no_state_and_no_option(state, options, error):
    with pytest.raises(error):
        Adam().load_state_dict(state, **options)


def test_an_eps_that_the_new_dtype_rounds_to_zero_does_not_fit(backend):
    opt = Adam(eps=1e-50)
    opt.update(np.ones(2), np.ones(2), "W")
    like = {"W": backend.array([1.0, 1.0], "float32")}
    again = Adam()
    with nothing_changes(backend, again), pytest.raises(CheckpointError, match="eps=1e-50 rounds to 0"):
        again.load_state_dict(opt.state_dict(), like=like, cast=True)
    met = restored(opt, opt.state_dict())
    with pytest.raises(ValueError, match="eps=1e-50 rounds to 0"):
        met.update(like["W"], like["W"], "W")


@pytest.mark.parametrize("name", [1.5, frozenset(), ("a", 1j), ("a", (0, np.int64(3))), np.str_("W")], ids=repr)
def test_a_name_of_another_kind_is_named(name):
    opt = Adam()
    opt.update(np.ones(2), np.ones(2), name)
    with pytest.raises(TypeError, match=r"parameter name .* is or holds a .*None, bool, int, str, bytes and tuples"):
        opt.state_dict()


class Remembering(SchedulerBase):
    kept = None

    def state(self):
        return {"kept": [self.kept]}

    def restore(self, state):
        (self.kept,) = state["kept"]

    def learning_rate(self, step, cur_loss=None):
        return 0.5


@pytest.mark.parametrize("kept", [(1, 2), {3: 4}, object(), np.ones(2), b"x"], ids=lambda x: type(x).__name__)
def test_a_schedule_that_remembers_another_kind_is_named(kept):
    scheduler = Remembering()
    scheduler.kept = kept
    with pytest.raises(TypeError, match=r"Remembering.state\(\)\['kept'\]\[0\]"):
        Adam(lr_scheduler=scheduler).state_dict()


def test_numbers_of_numpy_in_a_schedule_are_kept_as_numbers():
    scheduler = Remembering()
    scheduler.kept = {"a": np.float32(0.1), "b": np.int64(3), "c": [True, None, float("-inf")]}
    opt = Adam(lr_scheduler=scheduler)
    again = restored(opt, json.loads(json.dumps(opt.state_dict())))
    assert again.lr_scheduler.kept == {"a": float(np.float32(0.1)), "b": 3, "c": [True, None, float("-inf")]}


def test_what_a_schedule_restores_is_its_own():
    scheduler = Remembering()
    scheduler.kept = [1.0]
    opt = Adam(lr_scheduler=scheduler)
    state = opt.state_dict()
    again = restored(opt, state)
    state["header"]["schedule"]["state"]["kept"][0].append(2.0)
    assert again.lr_scheduler.kept == [1.0]


def test_a_cache_of_the_wrong_form_cannot_be_saved(backend):
    opt, _ = trained(backend)
    for wrong in (None, {"t": 1}, {"t": -1, **{k: v for k, v in opt.cache["W"].items() if k != "t"}}):
        opt.cache["W"] = wrong
        with pytest.raises(ValueError, match="cache of 'W'"):
            opt.state_dict()
    opt = xpopt.SGD()
    opt.cache["W"] = backend.xp.zeros((2,), dtype=backend.xp.int32)
    with pytest.raises(ValueError, match=r"cache of 'W' is of .*int32"):
        opt.state_dict()


@every_optimizer
def test_entries_from_set_params_are_saved_as_far_as_they_are_known(backend, make):
    """Their parameter's dtype is not; a shape is that of the slots."""
    source, opt = make(), make()
    params = train(backend, source, 2, dtype=backend.dtypes[0])
    opt.set_params(source.hyperparameters, source.cache)
    opt.cur_step = 2
    state = opt.state_dict()
    slots = state["header"]["parameters"][0]["slots"]
    assert [p["dtype"] for p in state["header"]["parameters"]] == [None, None]
    assert [p["shape"] for p in state["header"]["parameters"]] == ([[2, 3], [3]] if slots else [None, None])
    want = frozen(backend, train(backend, source, 2, params, backend.dtypes[0]))
    for options in ({}, {"like": params}):
        again = make()
        again.load_state_dict(state, **options)
        assert frozen(backend, train(backend, again, 2, params, backend.dtypes[0])) == want
    if slots and backend.widest == "float64" and backend.dtypes[0] != "float64":
        wide, _ = model(backend, "float64")
        refused = pytest.raises(CheckpointError, match=r"'b' is float32 .* float64 in like")
        with nothing_changes(backend, opt, dtype=backend.dtypes[0]), refused:
            opt.load_state_dict(state, like=wide)
        opt.load_state_dict(state, like=wide, cast=True)
        train(backend, opt, 1, wide, "float64")


class Damped(Adam):
    """Adam with a setting that older checkpoints of it do not have."""

    ranges = {**Adam.ranges, "damping": xpopt.Range(0)}

    def __init__(self, lr=0.125, damping=0.5, **kwargs):
        super(Adam, self).__init__(lr, damping=damping, decay1=0.9, decay2=0.999, eps=1e-7, **kwargs)


def test_a_setting_that_is_not_there_leaves_the_formula_as_it_was(backend):
    """The one that `neutral` names, whatever the default is; without `neutral` it is an error."""

    class Later(Damped):
        neutral = {"damping": 0.0}

    opt = Later()
    train(backend, opt, 2)
    state = opt.state_dict()
    assert state["header"]["groups"][0]["settings"].pop("damping") == 0.5
    opt.load_state_dict(state)
    assert opt.hyperparameters["damping"] == 0.0
    assert "damping" not in opt.state_dict()["header"]["groups"][0]["settings"]
    state["header"]["rule"]["name"] = "Damped"
    with pytest.raises(CheckpointError, match="Damped has the hyperparameter 'damping', and the checkpoint does not"):
        Damped().load_state_dict(state)


def test_neutral_values_are_not_written(backend):
    opt = SGD(lr=0.5, momentum=0.0, clip_norm=None, nonfinite="propagate", master=False, rounding="nearest", seed=0)
    assert opt.state_dict()["header"]["groups"] == [{"match": None, "settings": {"lr": 0.5}}]
    opt.set_params({"momentum": 0.5, "seed": 3})
    assert opt.state_dict()["header"]["groups"][0]["settings"] == {"lr": 0.5, "momentum": 0.5, "seed": 3}


def test_a_schedule_that_remembers_what_could_not_be_read_is_not_written(backend):
    class Counts(SchedulerBase):
        def reset(self):
            self.count = 10**320

        def state(self):
            return {"counts": [self.count]}

        def learning_rate(self, step, cur_loss=None):
            return 0.1

    with pytest.raises(ValueError, match=r"Counts.state\(\) has an int beyond 1.8e308"):
        SGD(lr_scheduler=Counts()).state_dict()


def test_an_array_unlike_an_older_header_is_told_what_was_wanted(backend):
    """Such a header names slots alone; then their parameter says what they are."""
    opt, _ = trained(backend, "float32")
    state = opt.state_dict()
    for parameter in state["header"]["parameters"]:
        parameter["slots"] = list(parameter["slots"])
    opt.load_state_dict(state)
    state["arrays"]["W/var"] = state["arrays"]["b/var"]
    with pytest.raises(
        CheckpointError, match=r"array 'W/var' is float32 of shape \(3,\); by the header float32 of \(2, 3\)"
    ):
        opt.load_state_dict(state)
