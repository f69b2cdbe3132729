"""Optimizers from calls."""

from __future__ import annotations

from typing import Any

from .constructor import names, takes
from .peers import hint, hint_of_class
from .registry import Registry
from .text import Call, short


def make(known: Registry[Any], call: Call) -> Any:
    """Make the optimizer that a call describes.

    Parameters
    ----------
    known : Registry
        The optimizers.
    call : Call
        Its name may be in any case.

    Returns
    -------
    OptimizerBase
        The optimizer.

    Raises
    ------
    ImportError
        An entry point of that name cannot be loaded.
    TypeError, ValueError
        A name or keyword is unknown, or a value of the wrong type or out of range.
    """
    cls = known.find_anywhere(call.name)
    if cls is None:
        raise call.error(f"unknown optimizer {short(call.name)}{hint_of_class(call.name, tuple(known.names()))}")
    keywords = names(cls)
    given: dict[str, Any] = {}
    later: dict[str, Any] = {}
    for keyword, value in call.keywords.items():
        if keyword == "id" or takes(cls, keyword):
            given[keyword] = value
        elif keyword in keywords:  # a constructor of the user's own states it
            later[keyword] = value
        else:
            raise call.error(f"{cls.__name__} has no keyword {short(keyword)}{hint(keyword, keywords)}", keyword)
    optimizer = cls(**given)
    optimizer.set_params(later, call.cache)
    return optimizer
