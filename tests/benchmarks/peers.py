"""Adam on a whole model, by xpopt's engines and by other libraries: in place, or with donated buffers."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, ClassVar

import numpy as np
import textbook
from limit import Limit
from measuring import Array, Side
from works import Model

import xpopt

RATES: dict[str, float] = {"lr": 0.001, "decay1": 0.9, "decay2": 0.999, "eps": 1e-7}


class Peer:
    """A library at work on a model; `feed` hands over gradients, `step` is timed."""

    name: ClassVar[str]
    needs: ClassVar[str] = "numpy"
    tolerance: ClassVar[float] = 1e-5  # beside the textbook
    clips: ClassVar[bool] = False  # whether it is measured with a norm for each gradient too
    share: ClassVar[float] = 0.4  # of the rounds; all of them where there is a goal

    def __init__(self, model: Model, threads: int) -> None:
        raise NotImplementedError

    @classmethod
    def why_not(cls) -> str | None:
        """Return why it cannot be measured here, or None if it can."""
        return None if importlib.util.find_spec(cls.needs) else "not installed"

    def feed(self, number: int) -> None:
        """Hand over the gradients of a step."""
        self._now = self._grads[number % 2]

    def step(self) -> None:
        """Update the model once."""
        raise NotImplementedError

    def params(self) -> list[Array]:
        """Return the parameters now."""
        raise NotImplementedError

    def around(self) -> AbstractContextManager[Any]:
        """Return the context to work in."""
        return nullcontext()

    def side(self) -> Side:
        return Side(self.step, self.feed, self.around)


class Compiled(Peer):
    name = "xpopt compiled"
    needs = "llvmlite"
    engine: ClassVar[str] = "compiled"
    clips = True
    make: ClassVar[Callable[..., xpopt.OptimizerBase]] = partial(xpopt.Adam, **RATES)

    def __init__(self, model: Model, threads: int) -> None:
        self._opt = self.make(clip_norm=model.clip_norm)
        self._params = {f"w{i}": x for i, x in enumerate(model.params())}
        self._grads = [dict(zip(self._params, grads, strict=True)) for grads in model.grads]

    def around(self) -> AbstractContextManager[Any]:
        return xpopt.engine(self.engine)

    def step(self) -> None:
        self._opt.update_all(self._params, self._now, out=self._params)

    def params(self) -> list[Array]:
        return list(self._params.values())


class Blocked(Compiled):
    name, needs, engine = "xpopt blocked", "numpy", "blocked"


class Eager(Compiled):
    name, needs, engine, clips = "xpopt eager", "numpy", "eager", False


class Textbook(Peer):
    name = "textbook NumPy"
    make: ClassVar[Callable[[Array], textbook.Step]] = textbook.adam

    def __init__(self, model: Model, threads: int) -> None:
        self._steps = [type(self).make(x) for x in model.params()]
        self._grads = model.grads
        self._params: list[Array] = []

    def step(self) -> None:
        self._params = [step(g) for step, g in zip(self._steps, self._now, strict=True)]

    def params(self) -> list[Array]:
        return self._params


class Fused(Peer):
    name, needs = "torch, fused", "torch"
    clips, share = True, 1.0
    options: ClassVar[dict[str, bool]] = {"fused": True}

    def __init__(self, model: Model, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self._params = [torch.nn.Parameter(self.view(x).clone()) for x in model.params()]
        self._sources = [[self.view(x) for x in grads] for grads in model.grads]
        self._grads = self._sources
        rates = {"lr": RATES["lr"], "betas": (RATES["decay1"], RATES["decay2"]), "eps": RATES["eps"]}
        self._opt = torch.optim.Adam(self._params, **rates, **self.options)
        self._clip_norm = model.clip_norm
        self._clip = partial(torch.nn.utils.clip_grad_norm_, max_norm=model.clip_norm)
        if model.clip_norm is not None:  # which is done in place
            self._grads = [[x.clone() for x in grads] for grads in self._sources]

    def feed(self, number: int) -> None:
        grads = self._grads[number % 2]
        if self._clip_norm is not None:
            for x, source in zip(grads, self._sources[number % 2], strict=True):
                x.copy_(source)
        for param, grad in zip(self._params, grads, strict=True):
            param.grad = grad

    def step(self) -> None:
        if self._clip_norm is not None:
            for param in self._params:
                self._clip(param)
        self._opt.step()

    def params(self) -> list[Array]:
        return [x.detach().cpu().numpy() for x in self._params]

    def view(self, x: Any) -> Any:
        """Return torch's view of an array."""
        import torch

        return torch.from_numpy(x)


class Foreach(Fused):
    name, options = "torch, foreach", {"foreach": True}
    clips, share = False, 0.4


class Optax(Peer):
    name, needs = "optax, jitted", "optax"

    def __init__(self, model: Model, threads: int) -> None:
        import jax
        import optax

        self._wait = jax.block_until_ready
        self._params = [jax.numpy.array(x) for x in model.params()]
        self._grads = [[jax.numpy.array(x) for x in grads] for grads in model.grads]
        adam = optax.adam(RATES["lr"], RATES["decay1"], RATES["decay2"], RATES["eps"])
        self._state = adam.init(self._params)

        def update(params: Any, state: Any, grads: Any) -> tuple[Any, Any]:
            updates, state = adam.update(grads, state)
            return optax.apply_updates(params, updates), state

        self._update = jax.jit(update, donate_argnums=(0, 1))

    def step(self) -> None:
        self._params, self._state = self._wait(self._update(self._params, self._state, self._now))

    def params(self) -> list[Array]:
        return [np.asarray(x) for x in self._params]


class Thinc(Peer):
    name, needs, tolerance = "thinc", "thinc", 1e-3  # its eps is added before the bias correction

    def __init__(self, model: Model, threads: int) -> None:
        from thinc.api import Adam, NumpyOps, set_current_ops

        set_current_ops(NumpyOps())
        rates = {"beta1": RATES["decay1"], "beta2": RATES["decay2"], "eps": RATES["eps"]}
        self._opt = Adam(RATES["lr"], **rates, L2=0.0, grad_clip=0.0, use_averages=False)
        self._params = list(model.params())
        self._sources = model.grads
        self._grads = [[x.copy() for x in grads] for grads in model.grads]

    def feed(self, number: int) -> None:
        self._now = self._grads[number % 2]
        for x, source in zip(self._now, self._sources[number % 2], strict=True):
            np.copyto(x, source)  # for it leaves zeros there

    def step(self) -> None:
        for i, (param, grad) in enumerate(zip(self._params, self._now, strict=True)):
            self._params[i], _ = self._opt((i, "W"), param, grad)

    def params(self) -> list[Array]:
        return self._params


class Traffic(Peer):
    name, needs = "the traffic alone", "numba"
    share = 1.0

    def __init__(self, model: Model, threads: int) -> None:
        self._limit = Limit(model, slots=2, threads=threads)
        self.feed, self.step = self._limit.feed, self._limit.step  # type: ignore[method-assign]


PEERS: tuple[type[Peer], ...] = (Fused, Foreach, Optax, Thinc, Textbook, Blocked, Eager, Traffic)
"""What stands beside the compiled engine."""


def check(kinds: tuple[type[Peer], ...], threads: int) -> None:
    """Raise unless all compute the same."""
    model = Model(((50, 7), (1000,), (1,)))
    wanted: list[Array] = []
    for kind in (Textbook, *kinds):
        if kind.why_not() is not None or kind is Traffic:
            continue
        peer = kind(model, threads)
        with peer.around():
            for number in range(4):
                peer.feed(number)
                peer.step()
        wanted = wanted or peer.params()
        for got, x in zip(peer.params(), wanted, strict=True):
            np.testing.assert_allclose(got, x, rtol=kind.tolerance, atol=kind.tolerance / 10, err_msg=kind.name)
