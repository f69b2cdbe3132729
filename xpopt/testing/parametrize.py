"""The checks as tests for pytest."""

from __future__ import annotations

from typing import Any

from .checks import Check
from .optimizers import optimizer_checks

__all__ = ["parametrize"]


def parametrize(*optimizers: Any, **options: Any) -> Any:
    """Return a pytest decorator that runs a test once for each check of each optimizer, as argument ``check``.

    This function imports pytest; no other function of this module does.

    Parameters
    ----------
    *optimizers : OptimizerBase or subclass
        As for `optimizer_checks`.
    **options : object
        As for `optimizer_checks`. They apply to all optimizers.

    Returns
    -------
    pytest.MarkDecorator
        A decorator for a test with an argument ``check``, which the test calls.

    Raises
    ------
    TypeError, ValueError
        As for `optimizer_checks`.

    Examples
    --------
    >>> import xpopt
    >>> from xpopt.testing import parametrize
    >>> @parametrize(xpopt.Adam, xpopt.SGD(momentum=0.9))
    ... def test_optimizer(check):
    ...     check()
    """
    import pytest

    rows = [pytest.param(check, id=_id(one, check)) for one in optimizers for check in optimizer_checks(one, **options)]
    return pytest.mark.parametrize("check", rows)


def _id(optimizer: Any, check: Check) -> str:
    return f"{optimizer.__name__ if isinstance(optimizer, type) else optimizer}-{check}"
