"""Whether settings are such as a parameter can be updated with: its axes, shape and dtypes."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from .._arrays.elements import PerElement
from .._arrays.library import FLUSHING, is_complex, real_of
from .._arrays.parameter import Spec, dtype_text
from .._arrays.tree import show, text_of
from .._graph.slots import check_in_dtype, check_of_complex
from .._settings.companion import takes_others
from ..schedulers.kinds.base import Schedule
from ..transforms.base import Transform

if TYPE_CHECKING:
    from .settings import Settings


def check_fit(settings: Settings, spec: Spec, name: Hashable) -> None:
    """Raise unless settings are those of a rule for a parameter, and mean something in its compute dtype.

    Parameters
    ----------
    settings : Settings
        The settings of the parameter.
    spec : Spec
        Its shape and dtypes.
    name : hashable
        Its name.

    Raises
    ------
    ValueError
        A value that must stay above 0 rounds to 0; or a slot would start at infinity; or the rule is for another
        number of axes, or an array in the place of a number for another shape.
    TypeError
        A complex parameter that cannot be updated.
    """
    dtype = real_of(dtype_text(spec.compute))
    for draw in settings.drawn.draws if settings.drawn is not None else ():
        if draw.allowed.in_dtype and draw.group == settings.number:
            draw.dtypes[dtype] = show(name)
    _check_axes(settings.cls, spec, name)
    _check_above_zero(settings.cls, settings.cls.__name__, settings.values, dtype, spec, name)
    for one in settings.transforms:
        place = settings.cls.__name__ if one.keyword else f"{settings.cls.__name__}: {type(one).__name__}"
        _check_above_zero(type(one), place, one.settings(), dtype, spec, name)
        _check_shapes(place, one, spec, name)
        one.check_dtype(dtype_text(spec.dtype), show(name))
    rule = settings.rule.of(dtype_text(spec.dtype), spec.shape)
    if is_complex(spec.dtype):
        elementwise = rule.fused or rule.whole != ""  # or it knows of pairs
        check_of_complex(rule.fields, rule.specs, fused=elementwise, owner=settings.cls.__name__, param=show(name))
    if not rule.plain:
        h = SimpleNamespace(**settings.of_rule)
        check_in_dtype(rule.fields, rule.specs, h, dtype, settings.cls.__name__, show(name))


def _check_axes(cls: type[Any], spec: Spec, name: Hashable) -> None:
    """Raise a ValueError if a class updates parameters with another number of axes alone."""
    if cls.axes is not None and len(spec.shape) != cls.axes:
        raise ValueError(
            f"{cls.__name__} updates parameters with {cls.axes} axes, and {show(name)} has shape {spec.shape}; give "
            f"it to another optimizer, such as groups={{{text_of(name)!r}: AdamW()}}"
            f"{', or all of other shapes, others=AdamW()' if takes_others(cls) else ''}"
        )


def _check_above_zero(
    kind: type[Any], place: str, values: Mapping[str, Any], dtype: str, spec: Spec, name: Hashable
) -> None:
    """Raise a ValueError if a setting that must stay above 0 rounds to 0 in a parameter's compute dtype."""
    for key, declared in kind.ranges.items():
        if getattr(declared, "in_dtype", False) and not isinstance(values[key], Schedule):
            rounded = np.dtype(dtype).type(values[key])
            if rounded == 0 or (spec.library in FLUSHING and rounded < np.finfo(dtype).tiny):
                raise ValueError(
                    f"{place}: {key}={values[key]!r} rounds to 0 in {dtype}, the compute dtype of {show(name)}; choose "
                    f"a larger one"
                )


def _check_shapes(place: str, one: Transform, spec: Spec, name: Hashable) -> None:
    """Raise a ValueError if an array in the place of a number is not of a parameter's shape."""
    for key, value in one.settings().items():
        if isinstance(value, PerElement) and value.shape != spec.shape:
            which = key if key == one.keyword else f"{one.keyword}: {key}"
            raise ValueError(
                f"{place}: {which} is an array of shape {value.shape}, and {show(name)} has shape {spec.shape}; "
                f"give it to the parameters that it is for, groups={{{text_of(name)!r}: {{{one.keyword!r}: ...}}}}"
            )
