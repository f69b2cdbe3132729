"""A check: a promise, and what finds out whether it is kept."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from .._settings.text import short

__all__ = ["Check", "CheckError"]


class CheckError(AssertionError):
    """A promise is not kept: which one, what was expected and what came."""


class Check:
    """One promise of an optimizer or a host. Called, it returns, or raises a `CheckError`.

    Parameters
    ----------
    name : str
        What it is called; also its text.
    promise : str
        What is expected.
    run : callable
        Finds out; whatever it raises is a failure.

    Examples
    --------
    >>> from xpopt import Adam
    >>> from xpopt.testing import optimizer_checks
    >>> checks = {str(check): check for check in optimizer_checks(Adam, libraries=["numpy"])}
    >>> checks["resume"]()
    >>> checks["resume"].promise
    'a training that was saved and loaded goes on with the same bits'
    """

    def __init__(self, name: str, promise: str, run: Callable[[], object]) -> None:
        self.name = name
        self.promise = promise
        self._run = run

    def __call__(self) -> None:
        """Find out whether the promise is kept."""
        try:
            self._run()
        except Exception as error:
            found = str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
            raise CheckError(f"{self.name}: expected that {self.promise}. {found}") from error

    def __repr__(self) -> str:
        return self.name


def chosen(checks: Iterable[Check], skip: Collection[str]) -> list[Check]:
    """Return the checks but for those that are left out.

    Parameters
    ----------
    checks : iterable of Check
        All there are.
    skip : collection of str
        The names of those to leave out.

    Returns
    -------
    list of Check
        The others.

    Raises
    ------
    ValueError
        A name is that of no check.
    """
    every = list(checks)
    unknown = [name for name in skip if name not in {check.name for check in every}]
    if unknown or isinstance(skip, str):
        names = ", ".join(repr(check.name) for check in every)
        raise ValueError(f"skip={short(skip)}; wanted a list of names of checks, which are {names}")
    return [check for check in every if check.name not in skip]


def run_all(checks: Iterable[Check], subject: str) -> None:
    """Run checks, all of them, and raise one error that tells what failed.

    Parameters
    ----------
    checks : iterable of Check
        The checks.
    subject : str
        What they are of, for the message.

    Raises
    ------
    CheckError
        One at least has failed.
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
