"""Arrays of another library whose memory NumPy sees, on the engines of the host: each step makes views of them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Collection
from typing import Any, ClassVar, NamedTuple

from .._arrays.library import Library
from .._arrays.namespace import library_of
from .._arrays.parameter import Spec
from .._arrays.typing import Scalars
from .._graph.questions import Question
from .group import Bound, Launched, Staged, StepNumbers
from .host import HostGroup
from .numbers import Key
from .tensor import Tensor


class _Seen(Bound):
    """The arrays of one step, with their views."""

    views: Any


class _Role(NamedTuple):
    """Views of arrays, which keep nothing of these; they are looked at as long as the arrays are there alone."""

    looks: Any
    views: list[Any]


class ViewedGroup:
    """A group of the host's engines, of arrays of another library.

    Parameters
    ----------
    kind : callable
        What makes the group of the views.
    members, tensors
        As for `Group`.
    """

    in_place: ClassVar[bool] = True

    def __init__(self, kind: Callable[..., Any], members: list[int], tensors: list[Tensor]) -> None:
        seen = [_seen(tensor) for tensor in tensors]
        self._library = tensors[0].library
        self._group = kind(members, seen)
        self.members, self.bytes, self.couples = members, self._group.bytes, self._group.couples
        self.slots: list[Any] = [
            _own_slots(*each, self._library) for each in zip(tensors, seen, self._group.slots, strict=True)
        ]
        self._last = _Role(None, []), _Role(None, [])  # of parameters and gradients
        self._bound: Bound | None = None  # to these, where parameters are updated in place

    @property
    def questions(self) -> Collection[Question] | None:
        """What is asked of the whole model."""
        return self._group.questions

    @staticmethod
    def refuse(tensor: Tensor) -> str | None:
        """Return why the engines of the host cannot update a tensor, or None if they can."""
        seen = _views(tensor)
        if seen is None:
            return f"NumPy cannot see the memory of the {tensor.library.name} arrays, or of one of them"
        return HostGroup.refuse(_seen(tensor))

    def set_rows(self, rows: list[int]) -> bool:
        """Say which row of a step's numbers each tensor of the model has."""
        return bool(self._group.set_rows(rows))

    def bind(self, params: list[Any], grads: list[Any], outs: list[Any] | None) -> Bound | None:
        """Find the group's arrays among those of a model, and view them."""
        library, roles = self._library, [self._group.mine(params), self._group.mine(grads)]
        if outs is not None:
            roles.append(roles[0] if outs is params else self._group.mine(outs))
        last, last_grads = self._last
        found = self._views_of(roles[0], last), self._views_of(roles[1], last_grads)
        views, in_place = (found[0].views, found[1].views), outs is params
        if in_place and self._bound is not None and found[0] is last and found[1] is last_grads:
            bound: Bound | None = self._bound
        else:
            self._bound = None
            given = None if outs is None else views[0] if in_place else list(map(library.on_host, roles[2]))
            bound = self._group.bind(*views, given)
        if bound is None or (outs is not None and not library.all_writable(roles[2])):
            return None
        self._last = found
        if outs is None:
            roles.append(list(map(library.from_host, bound.outs)))
        if bound.grads is not views[1]:  # in the dtype of the parameters
            roles[1] = list(map(library.from_host, bound.grads))
        elif in_place:
            self._bound = bound
        seen = _Seen(roles[0], roles[1], roles[2], bound.table)
        seen.views = bound
        return seen

    def _views_of(self, arrays: list[Any], last: _Role) -> _Role:
        """Return views of arrays: the very ones of the last step where nothing has moved."""
        looks = self._library.looks(arrays)
        if looks is not None and looks == last.looks:
            return last
        return _Role(looks, list(map(self._library.on_host, arrays)))

    def launch(self, bound: Bound, numbers: StepNumbers) -> Launched:
        """Do all that can fail."""
        assert isinstance(bound, _Seen)
        return self._launched(bound, self._group.launch(bound.views, numbers))

    def staged(self, bound: Bound, numbers: StepNumbers) -> Staged:
        """Do the same, and ask on the way for what is found of the whole model."""
        assert isinstance(bound, _Seen)
        return self._launched(bound, (yield from self._group.staged(bound.views, numbers)))

    def _launched(self, bound: Bound, launched: Launched) -> Launched:
        finish = functools.partial(_written, launched.finish, self._library, bound.outs)
        return Launched(bound.outs, self.slots, finish)


class ViewedSingle:
    """A tensor of another library that one of the host's engines updates alone.

    Parameters
    ----------
    kind : callable
        What makes the single of its views.
    tensor : Tensor
        The tensor, which is not kept.
    """

    def __init__(self, kind: Callable[..., Any], tensor: Tensor) -> None:
        seen = _seen(tensor)
        self._library = tensor.library
        self._single = kind(seen)
        self.rule = tensor.rule
        self.slots = _own_slots(tensor, seen, self._single.slots, self._library)

    def bind(self, param: Any, grad: Any, out: Any) -> tuple[Any, Any] | None:
        """Return what is read and where the result goes."""
        library, single = self._library, self._single
        view = library.on_host(param)
        target = None if out is None else view if out is param else library.on_host(out)
        if out is not None and (target is None or not library.writable(out)):
            return None
        found = single.bind(view, library.on_host(grad), target)
        if found is None:
            return None
        if out is None:
            return param, library.from_host(found[1])
        return (out if found[0] is found[1] else param), out

    def launch(
        self, param: Any, grad: Any, result: Any, h: Scalars, key: Key | None, proceed: Any
    ) -> Callable[[], None]:
        """Do all that can fail; return what writes the result."""
        library = self._library
        view = library.on_host(param)
        target = view if result is param else library.on_host(result)
        finish = self._single.launch(view, library.on_host(grad), target, h, key, proceed)
        return functools.partial(_written, finish, library, [result])


def _written(finish: Callable[[], None], library: Library, outs: list[Any]) -> None:
    finish()
    library.note_written(outs)


class _Views(NamedTuple):
    """The arrays of a tensor as NumPy sees them."""

    param: Any
    grad: Any
    out: Any
    slots: list[Any]


def _views(tensor: Tensor) -> _Views | None:
    """Return the views of a tensor's arrays; None where there is none of one of them."""
    view = tensor.library.on_host
    param, grad = view(tensor.param), view(tensor.grad)
    out = param if tensor.out is None or tensor.out is tensor.param else view(tensor.out)
    slots = [None if x is None else view(x, lasting=True) for x in tensor.slots or ()]
    missing = [x is not None and seen is None for x, seen in zip(tensor.slots or (), slots, strict=True)]
    if param is None or grad is None or out is None or any(missing):
        return None
    return _Views(param, grad, None if tensor.out is None else out, slots)


def _seen(tensor: Tensor) -> Tensor:
    """Return a tensor as NumPy sees it."""
    views = _views(tensor)
    assert views is not None
    library = library_of(views.param)
    assert library is not None
    dtype = views.param.dtype
    spec = Spec(library.name, dtype, tensor.spec.shape, library.place(views.param), library.compute_dtype(dtype))
    slots = None if tensor.slots is None else tensor.rule.make_slots(views.slots)
    return dataclasses.replace(
        tensor, library=library, spec=spec, param=views.param, grad=views.grad, out=views.out, slots=slots
    )


def _own_slots(tensor: Tensor, seen: Tensor, slots: Any, library: Library) -> Any:
    """Return slots of NumPy as those of a library in the same memory; the very same where they are views of these."""
    before = [None] * len(slots) if tensor.slots is None else tensor.slots
    views = [None] * len(slots) if seen.slots is None else seen.slots
    if all(x is view for x, view in zip(slots, views, strict=True)) and tensor.slots is not None:
        return tensor.slots
    each = zip(slots, views, before, strict=True)
    return tensor.rule.make_slots([old if x is view else library.from_host(x) for x, view, old in each])
