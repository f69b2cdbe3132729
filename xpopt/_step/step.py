"""The two kinds of update, each as a transaction: read, compute, then write."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from .._arrays.parameter import check_out
from .._engine import choose
from .._engine.group import make_work
from .._state.configured import Configured
from .._state.interrupts import HELD, WRITING, enter
from .commit import forget, storing
from .draws import key_of
from .finite import Guard, Skipped
from .loss import check_loss
from .whole import Each, LeftOut, again


class Updating(Configured):
    """The part of an optimizer that updates parameters, when it is its turn."""

    _skipped: Skipped

    def _update(self, param: Any, param_grad: Any, name: Hashable, cur_loss: Any, out: Any) -> Any:
        state, clock = self._state, self._clock
        lr: float | None = None
        try:
            if cur_loss is not None and type(cur_loss) is not float:
                check_loss(cur_loss, "param")
            while True:
                shown = state.shown
                task = state.take_in(self._formula_now, param, param_grad, name, self._check_new)
                rule, library, spec, taken, grad, t, slots, owned = task
                target = None
                if out is not None:
                    taken, target = check_out(library, spec, taken, out, name)
                guard = Guard(self._values["nonfinite"], {name: grad}) if self._guards else None
                if guard is not None and guard.refuses:
                    return self._leave_out_one(param, taken, out)
                if lr is None:
                    lr = clock.ask(name, cur_loss)
                h = rule.scalars_at(self._settings, lr, t)
                proceed = None if guard is None else guard.proceed(self._formula_now, {t: h}, {name: t})
                if proceed is False:
                    return self._leave_out_one(param, taken, out)
                noise = key_of(self._values, spec, name, t) if self._draws else None
                work = make_work((rule, library, spec, taken, grad, slots, owned, h, target, noise, proceed))
                launch = choose.prepare([work])
                change = storing(state, rule, name, spec, t, launch.results[0][1], owned)
                skipped = self._skipped if proceed is None else self._skipped.unless(proceed)
                enter(WRITING)
                if state.shown == shown:
                    break
                enter(HELD)  # the user's code has looked at the cache meanwhile: what it saw is not to be written
            change.around(launch.finish)
            clock.confirm(lr)
            if proceed is not None:
                self._skipped = skipped
        except BaseException:
            enter(WRITING)
            clock.take_back()
            raise
        entries = len(state._cache)
        if len(state._known) > entries or len(clock._names) > entries:
            forget(state, clock)
        return launch.results[0][0] if out is None else out

    def _update_all(self, params: Any, grads: Any, cur_loss: Any, out: Any) -> Any:
        state, clock, rule = self._state, self._clock, self._formula_now
        lr: float | None = None
        try:
            if cur_loss is not None and type(cur_loss) is not float:
                check_loss(cur_loss, "params")
            while True:
                shown = state.shown
                update = again(state, rule, params, grads, out) or Each(
                    state, rule, params, grads, out, self._check_new
                )
                guard = Guard(self._values["nonfinite"], update.gradients) if self._guards else None
                if guard is not None and guard.refuses:
                    return self._leave_out(LeftOut(params, out, update.taken))
                if lr is None:
                    lr = clock.ask_whole(cur_loss)
                scalars = {t: rule.scalars_at(self._settings, lr, t) for t in update.counts}
                proceed = None if guard is None else guard.proceed(rule, scalars, update.count_of)
                if proceed is False:
                    return self._leave_out(LeftOut(params, out, update.taken))
                answer = update.prepare(scalars, self._values, proceed)
                skipped = self._skipped if proceed is None else self._skipped.unless(proceed)
                step = clock.cur_step + 1
                enter(WRITING)
                if state.shown == shown:
                    break
                enter(HELD)  # as in `_update`
            update.finish()
            clock.confirm_whole(step)
            if proceed is not None:
                self._skipped = skipped
        except BaseException:
            enter(WRITING)
            clock.take_back()
            raise
        update.keep()
        return answer

    def _leave_out_one(self, param: Any, taken: Any, out: Any) -> Any:
        """Leave out the update of one parameter; return what that does."""
        step = LeftOut([param if param is out else taken], None if out is None else [out], {0: taken})
        return self._leave_out(step)[0]

    def _leave_out(self, step: LeftOut) -> Any:
        """Count a step that changes nothing; return what the update does."""
        skipped = self._skipped.one_more()
        enter(WRITING)
        self._clock.take_back()  # the rate, if it has been asked for
        step.finish()
        self._skipped = skipped
        return step.answer
