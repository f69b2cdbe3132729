"""A check: a promise, and the function that tests it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from .._settings.text import short

__all__ = ["Check", "CheckError"]


class CheckError(AssertionError):
    """A promise is not kept; the message gives the promise and what was found instead."""


class Check:
    """One promise of an optimizer or a host. A call returns if it is kept, and raises a `CheckError` if not.

    Parameters
    ----------
    name : str
        The name of the check, also returned by `str`.
    promise : str
        The promise, in words.
    run : callable
        A function that tests the promise. Any exception is a failure.

    Examples
    --------
    >>> from xpopt import Adam
    >>> from xpopt.testing import optimizer_checks
    >>> checks = {str(check): check for check in optimizer_checks(Adam, libraries=["numpy"])}
    >>> checks["resume"]()
    >>> checks["resume"].promise
    'a training that is saved and loaded continues with the same bits'
    """

    def __init__(self, name: str, promise: str, run: Callable[[], object]) -> None:
        self.name = name
        self.promise = promise
        self._run = run

    def __call__(self) -> None:
        """Test the promise; raise a `CheckError` if it is not kept."""
        try:
            self._run()
        except Exception as error:
            found = str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
            raise CheckError(f"{self.name}: expected that {self.promise}. {found}") from error

    def __repr__(self) -> str:
        return self.name


def chosen(checks: Iterable[Check], skip: Collection[str]) -> list[Check]:
    """Return the checks without those that are skipped.

    Parameters
    ----------
    checks : iterable of Check
        All checks.
    skip : collection of str
        The names of the checks to skip.

    Returns
    -------
    list of Check
        The remaining checks.

    Raises
    ------
    ValueError
        No check has such a name.
    """
    every = list(checks)
    unknown = [name for name in skip if name not in {check.name for check in every}]
    if unknown or isinstance(skip, str):
        names = ", ".join(repr(check.name) for check in every)
        raise ValueError(f"skip={short(skip)}; wanted a list of names of checks, some of {names}")
    return [check for check in every if check.name not in skip]


def run_all(checks: Iterable[Check], subject: str) -> None:
    """Run all checks, and raise one error that lists the failures.

    Parameters
    ----------
    checks : iterable of Check
        The checks.
    subject : str
        What the checks test, for the message.

    Raises
    ------
    CheckError
        At least one check fails.
    """
    count, failed = 0, list[CheckError]()
    for check in checks:
        count += 1
        try:
            check()
        except CheckError as error:
            failed.append(error)
    if failed:
        lines = "\n".join(f"- {error}" for error in failed)
        raise CheckError(f"{subject} fails {len(failed)} of {count} checks:\n{lines}") from failed[0].__cause__
