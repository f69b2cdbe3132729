"""A training that was saved, and goes on in another process, ends as if it had never stopped: with the same bits."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from _kit import resumption
from _kit.rows import KINDS, not_read_only, rows
from _kit.states import OPTIMIZERS, SCHEDULERS, every_optimizer, every_scheduler, frozen, held, model, train

import xpopt
from xpopt.schedulers import SchedulerBase

pytest.importorskip("safetensors", reason="checkpoints need safetensors: pip install 'xpopt[checkpoint]'")


@not_read_only
@pytest.mark.any_width
def test_a_new_process_goes_on_as_if_nothing_had_happened(backend, engine, tmp_path):
    undisturbed = []
    for case in resumption.cases(backend):
        opt, params = resumption.make(backend, case)
        params = resumption.go_on(backend, opt, params, resumption.MOVES, case[3])
        undisturbed.append(resumption.outcome(backend, opt, params))
    assert resumption.save_all(backend, tmp_path) == undisturbed  # to save changes nothing
    command = [sys.executable, "-W", "error", "-m", resumption.__name__, tmp_path, backend.name, engine]
    places = [str(Path(resumption.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)
    assert done.returncode == 0, done.stderr
    finished = json.loads(done.stdout)
    assert len(finished) == len(undisturbed) * len(resumption.cuts(backend))
    for key, outcome in finished.items():
        assert outcome == undisturbed[int(key.partition("-")[0])], key


@every_scheduler
@pytest.mark.any_width
def test_a_cut_after_every_single_move(backend, scheduler, tmp_path):
    case = ("Adam", scheduler, 0.5, backend.widest, {})
    opt, params = resumption.make(backend, case)
    ways = [(opt, params)]
    for move in resumption.MOVES:
        opt.save(tmp_path / "cut")
        ways.append((xpopt.load_optimizer(tmp_path / "cut"), params))
        ways = [(one, resumption.go_on(backend, one, params, [move], case[3])) for one, params in ways]
        opt, params = ways[0]
    first, *others = (resumption.outcome(backend, *way) for way in ways)
    assert others == [first] * len(resumption.MOVES)


@every_optimizer
def test_in_memory_it_is_the_same(backend, make):
    """Also with views, which later updates leave alone."""
    for copy in (True, False):
        opt, other = make(lr_scheduler=SCHEDULERS[3]), make()
        params = train(backend, opt, 3)
        state = opt.state_dict(copy=copy)
        want = train(backend, opt, 2, params)
        other.load_state_dict(state)
        assert frozen(backend, train(backend, other, 2, params)) == frozen(backend, want)
        assert held(backend, other) == held(backend, opt)


class Plateau(SchedulerBase):
    """A user's schedule whose state is nested, and begins with infinity."""

    ranges = {"lr": xpopt.Range(low=0)}
    rate_name = "lr"
    reads_loss = True

    def __init__(self, lr=0.125):
        super().__init__(lr=lr)

    def reset(self):
        self.best, self.seen = float("inf"), []

    def state(self):
        return {"best": self.best, "seen": {"losses": list(self.seen), "note": None}}

    def restore(self, state):
        self.best, self.seen = state["best"], list(state["seen"]["losses"])

    def learning_rate(self, step, cur_loss=None):
        self.best, self.seen = min(self.best, cur_loss), [*self.seen, cur_loss]
        return self.lr / (1 + len(self.seen) - (cur_loss == self.best))


class Averaged(xpopt.OptimizerBase):
    """A user's optimizer, with a keyword that has no default and one that it sets itself."""

    class State(NamedTuple):
        mean: object
        total: object

    slots = State
    ranges = {"decay": xpopt.Range(low=0, high=1), "power": xpopt.Range(low=0)}
    version = 3

    def __init__(self, decay, lr=0.125, lr_scheduler=None):
        super().__init__(lr, lr_scheduler, decay=decay, power=2.0)

    @staticmethod
    def scalars(h):
        return {"weight": 1 / (h.t + h.power)}

    @staticmethod
    def rule(xp, param, grad, s, h):
        mean = h.decay * s.mean + h.weight * grad
        total = s.total + grad * grad
        return param - h.lr * mean / (1 + xp.sqrt(total)), Averaged.State(mean, total)


@pytest.mark.parametrize("scheduler", [None, Plateau(lr=0.25)], ids=["constant", "own schedule"])
def test_optimizers_and_schedules_of_ones_own(backend, scheduler, tmp_path):
    opt = Averaged(0.5, lr_scheduler=scheduler)
    opt.save(tmp_path / "start")
    opt.set_params({"power": 3.0})
    params = train(backend, opt, 2)
    opt.save(tmp_path / "opt")
    want = train(backend, opt, 3, params)
    for again in (xpopt.load_optimizer(tmp_path / "opt", like=params), Averaged(0.25)):
        if again.cur_step == 0:
            again.load(tmp_path / "opt")
        assert type(again) is Averaged
        assert frozen(backend, train(backend, again, 3, params)) == frozen(backend, want)
        assert held(backend, again) == held(backend, opt)
    fresh = xpopt.load_optimizer(tmp_path / "start")
    assert held(backend, fresh) == held(backend, Averaged(0.5, lr_scheduler=scheduler))


@pytest.mark.parametrize("name", rows({name: name for name in OPTIMIZERS}, KINDS))
def test_counts_survive_where_the_cache_does_not_hold_them(backend, name, tmp_path):
    opt = OPTIMIZERS[name]()
    params = train(backend, opt, 3)
    opt.save(tmp_path / "opt")
    opt.load(tmp_path / "opt")
    opt.save(tmp_path / "opt")  # before any update
    again = xpopt.load_optimizer(tmp_path / "opt", like=params)
    for one in (opt, again, opt.copy()):
        assert [p["updates"] for p in one.state_dict()["header"]["parameters"]] == [3, 3]
    train(backend, opt, 1, params)
    assert [p["updates"] for p in opt.state_dict()["header"]["parameters"]] == [4, 4]


def test_a_momentum_that_is_off_keeps_what_it_had(backend, tmp_path):
    """Velocity stays in the cache until the next update: off and on again at once, it goes on."""
    opt = xpopt.SGD(lr=0.125, momentum=0.5)
    params = train(backend, opt, 2)
    opt.set_params({"momentum": 0.0})
    opt.save(tmp_path / "off")
    again = xpopt.load_optimizer(tmp_path / "off")
    for one in (opt, again):
        one.set_params({"momentum": 0.5})
    assert frozen(backend, train(backend, again, 2, params)) == frozen(backend, train(backend, opt, 2, params))


@every_optimizer
def test_one_goes_back_and_on_again(backend, make, tmp_path):
    """In the middle of a training, with whatever an engine keeps from step to step."""
    opt, (params, grads) = make(lr_scheduler=SCHEDULERS[3]), model(backend)
    for _ in range(3):
        params = opt.update_all(params, grads, 1.0)
    opt.save(tmp_path / "opt")
    views, here, ends = opt.state_dict(copy=False), params, []
    ways = [
        lambda: None,
        lambda: opt.load(tmp_path / "opt"),
        lambda: opt.load_state_dict(views),
        lambda: opt.load(tmp_path / "opt", like=here),
        lambda: opt.load_state_dict(views, like=here),
    ]
    for go_back in ways:
        go_back()
        params = here
        for loss in (2.0, 3.0, 4.0):
            params = opt.update_all(params, grads, loss)
        ends.append((frozen(backend, params), held(backend, opt)))
    assert ends == ends[:1] * len(ways)
