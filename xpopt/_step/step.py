"""The two kinds of update, each as a transaction: read, compute, then write."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from typing import Any

from .._arrays.typing import Scalars
from .._engine.together import when_all_are_ready
from .._graph.reading import reads_model
from .._graph.rule import RateRows, StepScalars
from .._state.clock import Clock
from .._state.interrupts import HELD, WRITING, enter
from .._state.parts import Parts
from .._state.scale import Scale
from .._state.settings import Settings
from .commit import forget
from .finite import Guard
from .loss import check_loss, read_loss
from .one import OneUpdate, bind
from .scaling import scale_of, unscaled
from .skip import SkippedUpdate, rest
from .whole import WholeUpdate

_ROUNDS = 10
"""How often an update is computed anew because the user's code looks at the cache; a schedule does so once."""


def update(parts: Parts, param: Any, param_grad: Any, name: Hashable, cur_loss: Any, out: Any) -> Any:
    """Do what `OptimizerBase.update` does."""
    settings, state, clock = parts.settings, parts.state, parts.clock
    common = settings.values["nonfinite"] if settings.guards else None
    accumulate = settings.accumulate
    if settings.groups and (settings := settings.of_array(name, param)).frozen:
        return rest(param, param_grad, name, out)
    whole = settings
    ownership, scale = state.ownership, None if settings.dynamic is None else scale_of(parts)
    scaled = param_grad
    lr: float | None = None
    rounds = 0
    try:
        if cur_loss is not None and type(cur_loss) is not float:
            check_loss(cur_loss, "param")
        others = loss = read_loss(cur_loss, settings.cls.__name__) if settings.reads_loss else None
        if accumulate > 1 and not clock.passes.begin(name, accumulate):
            if reads_model(settings.rule):  # at the first gradient, and not when some have been added up
                _ = StepScalars().model
            settings = settings.between
        while True:
            shown = ownership.shown
            if scale is not None:
                (scaled,), number = unscaled(scale, [param_grad])
                others = {**(loss or {}), "loss_scale": number}
            one = bind(state, settings, param, scaled, name, out) or OneUpdate(
                state, settings, param, scaled, name, out
            )
            guard = None if common is None else Guard(common, {name: one.grad})
            if guard is not None and guard.refuses:
                return _skip_one(parts, param, one.param, out, scale)
            if lr is None:
                lr = clock.ask(name, cur_loss, parts.settings.drawn) if settings.step else settings.of_rule["lr"]
            rate = clock.rate_of(settings.number, lr) if settings.number else lr
            drawn = None if settings.drawn is None else clock.numbers_of(settings.number)
            numbers = settings.with_numbers(others, drawn) if others or drawn else settings.of_rule
            h = one.rule.scalars_at(numbers, rate, one.t)
            proceed = None
            if guard is not None:
                formula = settings.rule, h
                if not settings.step:
                    formula = whole.rule, whole.numbers_at(one.t + 1, others=others, drawn=drawn)
                proceed = guard.proceed(
                    {one.t: formula}, {name: one.t}, partial(dict, ((name, one.param),)), state.names
                )
            if proceed is False:
                return _skip_one(parts, param, one.param, out, scale)
            after = None if scale is None else scale.noted(True if proceed is None else proceed)
            one.prepare(h, proceed)
            skipped = parts.skipped if proceed is None else parts.skipped.unless(proceed)
            enter(WRITING)
            if ownership.shown == shown:
                break
            enter(HELD)  # the user's code has looked at the cache meanwhile: what it saw is not to be written
            rounds = _next_round(rounds)
        one.finish()
        if settings.step:
            clock.confirm(lr)
        if accumulate > 1:
            clock.passes.confirm()
        if proceed is not None:
            parts.skipped = skipped
        if scale is not None:
            parts.scale = after
    except BaseException:
        enter(WRITING)
        clock.take_back()
        raise
    one.keep()
    entries = len(state.names)
    if len(state.records) > entries or len(clock._names) > entries:
        forget(state, clock)
    return one.result if out is None else out


def update_all(parts: Parts, params: Any, grads: Any, cur_loss: Any, out: Any) -> Any:
    """Do what `OptimizerBase.update_all` does."""
    settings = whole = parts.settings
    state, clock, accumulate, dynamic = parts.state, parts.clock, whole.accumulate, whole.dynamic
    scale = None if dynamic is None else scale_of(parts)
    scaled = grads
    lr: float | None = None
    rounds = 0
    try:
        if cur_loss is not None and type(cur_loss) is not float:
            check_loss(cur_loss, "params")
        others = loss = read_loss(cur_loss, settings.cls.__name__) if settings.reads_loss else None
        if accumulate > 1 and not clock.passes.begin_whole(accumulate):
            settings = whole.between
        while True:
            shown = state.ownership.shown
            if scale is not None:
                scaled, number = unscaled(scale, grads)
                others = {**(loss or {}), "loss_scale": number}
            update = WholeUpdate(state, settings, params, scaled, out)
            guard = Guard(settings.values["nonfinite"], update.gradients) if settings.guards else None
            if guard is not None and guard.refuses:
                smaller = None if scale is None or dynamic is None else scale.moved(dynamic, False)
                return _skip(parts, SkippedUpdate(params, out, update.taken), smaller)
            if lr is None:
                lr = clock.ask_whole(cur_loss, settings.drawn) if settings.step else settings.of_rule["lr"]
            scalars = _numbers(update, settings, clock, lr, others)
            proceed = None
            if guard is not None:
                rows = update.rows
                formulas = {row: (settings.numbered(row[0]).rule, h) for row, h in zip(rows, scalars, strict=True)}
                if not settings.step:  # each is to pass for a step of itself alone, so that their mean does
                    each = {(k, t): whole.numbered(k) for k, t in rows}
                    formulas = {
                        row: (own.rule, own.numbers_at(row[1] + 1, others=others, drawn=clock.numbers_of(row[0])))
                        for row, own in each.items()
                    }
                proceed = guard.proceed(formulas, update.row_of, partial(getattr, update, "taken"), state.names)
            after = None
            if scale is not None and dynamic is not None:
                after = scale.moved(dynamic, True if proceed is None else proceed)
            if proceed is False:
                return _skip(parts, SkippedUpdate(params, out, update.taken), after)
            update.prepare(scalars, proceed)
            skipped = parts.skipped if proceed is None else parts.skipped.unless(proceed)
            step = clock.cur_step + 1
            when_all_are_ready()
            enter(WRITING)
            if state.ownership.shown == shown:
                break
            enter(HELD)  # as in `update`
            rounds = _next_round(rounds)
        update.finish()
        if settings.step:
            clock.confirm_whole(step)
        if accumulate > 1:
            clock.passes.confirm()
        if proceed is not None:
            parts.skipped = skipped
        if scale is not None:
            parts.scale = after
    except BaseException:
        enter(WRITING)
        clock.take_back()
        raise
    update.keep()
    return update.answer()


def _numbers(
    update: WholeUpdate, settings: Settings, clock: Clock, lr: float, others: Mapping[str, Any] | None
) -> Sequence[Scalars]:
    """Return the numbers of a step for each row of an update."""
    alike = update.alike
    if alike is not None:
        groups, t = alike
        rates = clock.rates_of(groups, lr)
        return RateRows(settings.numbered(groups[0]).numbers_at(t, rates[0], others), rates)
    scalars = []
    for k, t in update.rows:
        own, rate = (settings.numbered(k), clock.rate_of(k, lr)) if k else (settings, lr)
        drawn = None if settings.drawn is None else clock.numbers_of(k)
        scalars.append(own.numbers_at(t, rate, others, drawn))
    return scalars


def _skip_one(parts: Parts, param: Any, taken: Any, out: Any, scale: Scale | None) -> Any:
    """Leave out the update of one parameter; return what that does."""
    step = SkippedUpdate([param if param is out else taken], None if out is None else [out], {0: taken})
    return _skip(parts, step, None if scale is None else scale.noted(False))[0]


def _skip(parts: Parts, step: SkippedUpdate, scale: Scale | None) -> Any:
    """Count a step that changes nothing; return what the update does."""
    skipped = parts.skipped.one_more()
    when_all_are_ready()
    enter(WRITING)
    parts.clock.take_back()  # the rate, if it has been asked for
    step.finish()
    parts.skipped = skipped
    if scale is not None:
        parts.scale = scale
    return step.answer


def _next_round(rounds: int) -> int:
    if rounds == _ROUNDS:
        raise RuntimeError(
            "a rule, or its scalars, reads opt.cache in each update, so that slots are never written in place; read "
            "them from s"
        )
    return rounds + 1
