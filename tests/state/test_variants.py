"""What holds of an optimizer holds with each of its options: text, copies, checkpoints, errors and threads."""

import contextlib
import contextvars
import copy
import pickle
import threading

import numpy as np
import pytest
from _kit.low_precision import LOST
from _kit.rows import FULL
from _kit.states import KING, RISING, LossScheduler, frozen, held, model, nothing_changes
from _kit.table import BY_LABEL, PROMISES, SIGNATURES, apart_of
from _kit.trajectories import HAVE_16_BITS
from _kit.variants import LEAVES_OUT, NARROW, VARIANTS

import xpopt

pytestmark = pytest.mark.any_immutable

OPTIONS = {name: options for name, options in VARIANTS.items() if options}
NOT_LAZY = pytest.mark.backends("numpy", "numpy-readonly", "array-api-strict", "torch", "jax", "jax-x64", "cupy")
MARKS = {"raise": [NOT_LAZY], "narrow slots": [HAVE_16_BITS]}
REMEMBER = ("skip", "raise", "master", "narrow slots", "remembered", "groups")
"""Options that keep something or make arrays of their own; libraries with one engine run no others here."""
every_variant = pytest.mark.parametrize(
    "variant",
    [
        pytest.param(name, marks=[*MARKS.get(name, []), *([] if name in REMEMBER else [pytest.mark.row_of_numpy])])
        for name in OPTIONS
    ],
)
ADAM = BY_LABEL["Adam"]
STEPS = 6


def test_every_option_is_a_variant():
    known = {name for options in OPTIONS.values() for name in options}
    for cls, settings in SIGNATURES.items():
        own = {*settings, *apart_of(cls), "id", "lr_scheduler", "transforms"}
        own.add("modulus")  # about complex parameters alone: test_modulus.py
        own |= {"clip_global", "agc", "centralize"}  # of more than an element: test_clip_global.py, test_centralize.py
        assert set(cls().hyperparameters) - own <= known


def make(row, variant, **settings):
    return row.make(lr=0.125, **VARIANTS[variant], **settings)


def dtypes_for(backend, variant):
    """Those of 16 bits where the variant is about them and the library has them, else the widest."""
    narrow = [dtype for dtype in backend.dtypes if dtype in LOST]
    return narrow if variant in NARROW and narrow else [backend.widest]


def walk(backend, opt, variant, steps, params, dtype):
    """Make some steps of a training; where the variant leaves out what is not finite, one of them is."""
    for k in steps:
        _, grads = model(backend, dtype, scale=1 + k)
        if k % 3 == 1 and variant in LEAVES_OUT:
            bad = {**grads, "W": backend.array(np.full((2, 3), np.nan), dtype)}
            with contextlib.suppress(FloatingPointError):
                params = opt.update_all(params, bad, RISING[k])
        if k % 2:
            params = opt.update_all(params, grads, RISING[k])
        else:
            params = {name: opt.update(x, grads[name], name, RISING[k]) for name, x in params.items()}
            opt.step()
    return params


def everything(backend, opt, params):
    return held(backend, opt), opt.skipped, frozen(backend, params)


@pytest.mark.backends("numpy")
@every_variant
@pytest.mark.parametrize("row", PROMISES.values(), ids=PROMISES)
def test_text_and_dicts_go_both_ways(backend, row, variant):
    opt, plain = make(row, variant), make(row, "plain")
    for name, value in VARIANTS[variant].items():
        assert f"{name}={value!r}" in str(opt)
        assert f"{name}={value!r}" not in str(plain)
        kinds = {tuple: list, **dict.fromkeys((xpopt.Lookahead, xpopt.EMA, xpopt.prox.l1), repr)}
        shown = kinds.get(type(value), lambda value: value)
        assert opt.hyperparameters[name] == shown(value)
    for again in (xpopt.make_optimizer(str(opt)), xpopt.make_optimizer(dict(opt.hyperparameters))):
        assert (str(again), again.hyperparameters) == (str(opt), opt.hyperparameters)
    plain.set_params(dict(VARIANTS[variant]))
    assert str(plain) == str(opt)


def from_state(opt):
    """Bring a state to an optimizer of the same class, made otherwise."""
    again = type(opt)()
    again.load_state_dict(opt.state_dict())
    return again


DUPLICATES = {
    "copy": lambda opt: opt.copy(),
    "pickle": lambda opt: pickle.loads(pickle.dumps(opt)),
    "state": from_state,
    "copy.copy": copy.copy,
    "deepcopy": copy.deepcopy,
}
ELSEWHERE = ("copy", "pickle", "state")  # the others differ only on the host


@every_variant
def test_copies_go_on_alone_and_bit_for_bit(backend, variant):
    for dtype in dtypes_for(backend, variant):
        opt = make(ADAM, variant, lr_scheduler=KING)
        params = walk(backend, opt, variant, range(3), model(backend, dtype)[0], dtype)
        before = everything(backend, opt, params)
        assert opt.skipped == (variant == "skip")
        twins = [DUPLICATES[name](opt) for name in (DUPLICATES if backend.name in FULL else ELSEWHERE)]
        after = everything(backend, opt, walk(backend, opt, variant, (3, 4), params, dtype))
        assert after != before
        for twin in twins:
            assert everything(backend, twin, params) == before
            assert everything(backend, twin, walk(backend, twin, variant, (3, 4), params, dtype)) == after
        assert everything(backend, opt, params)[:2] == after[:2]


@every_variant
def test_a_training_that_is_cut_ends_as_if_it_had_not_been(backend, variant, tmp_path):
    pytest.importorskip("safetensors", reason="checkpoints need safetensors: pip install 'xpopt[checkpoint]'")
    dtype = dtypes_for(backend, variant)[-1]
    start, _ = model(backend, dtype)
    opt = make(ADAM, variant, lr_scheduler=KING)
    end = everything(backend, opt, walk(backend, opt, variant, range(STEPS), start, dtype))
    for cut in (0, 2, 5) if backend.name == "numpy" else (2,):
        first = make(ADAM, variant, lr_scheduler=KING)
        params = walk(backend, first, variant, range(cut), start, dtype)
        first.save(tmp_path / "cut")
        other = type(first)()
        other.load(tmp_path / "cut")
        for again in (xpopt.load_optimizer(tmp_path / "cut", like=params if cut else None), other):
            assert again.skipped == first.skipped
            assert everything(backend, again, walk(backend, again, variant, range(cut, STEPS), params, dtype)) == end


@every_variant
def test_what_fails_leaves_everything(backend, variant):
    dtype = dtypes_for(backend, variant)[0]
    opt = make(ADAM, variant, lr_scheduler=LossScheduler())
    params = walk(backend, opt, variant, range(3), model(backend, dtype)[0], dtype)
    _, grads = model(backend, dtype)
    wrong = {**grads, "b": backend.array(np.ones(7), dtype)}
    before = opt.skipped
    with nothing_changes(backend, opt, params, grads, dtype=dtype):
        with pytest.raises(ValueError, match="shape"):
            opt.update_all(params, wrong, 1.0)
        opt.lr_scheduler.failure = RuntimeError("mine")
        for call in (
            lambda: opt.update_all(params, grads, 1.0),
            lambda: opt.update(params["b"], grads["b"], "b", 1.0),
        ):
            with pytest.raises(RuntimeError, match="mine"):
                call()
        opt.lr_scheduler.failure = None
    assert opt.skipped == before


@pytest.mark.backends("numpy")
@every_variant
def test_two_threads_at_once_are_an_error(backend, variant):
    """The first stands in its schedule, and ends as if it had been alone."""
    inside, go_on = threading.Event(), threading.Event()

    class Waiting(xpopt.SchedulerBase):
        lr: float = xpopt.setting(default=0.125)
        rate_name = "lr"

        def learning_rate(self, step, cur_loss=None):
            inside.set()
            assert go_on.wait(60)
            return self.lr

    opt, alone = make(ADAM, variant, lr_scheduler=Waiting()), make(ADAM, variant)
    params, grads = model(backend, dtypes_for(backend, variant)[0])
    for _ in range(VARIANTS[variant].get("accumulate", 1) - 1):  # for a schedule is asked where a step is whole
        for one in (opt, alone):
            one.update_all(params, grads)
    results = []
    context = contextvars.copy_context()  # which says the engine
    thread = threading.Thread(target=context.run, args=(lambda: results.append(opt.update_all(params, grads)),))
    thread.start()
    try:
        assert inside.wait(60)
        for call in (
            lambda: opt.update(params["b"], grads["b"], "b"),
            lambda: opt.update_all(params, grads),
            opt.copy,
        ):
            with pytest.raises(RuntimeError, match="in the middle of another update"):
                call()
    finally:
        go_on.set()
        thread.join()
    want = alone.update_all(params, grads)
    assert frozen(backend, [results[0], opt.cache]) == frozen(backend, [want, alone.cache])
