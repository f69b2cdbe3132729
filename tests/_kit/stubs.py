"""What type checkers and editors read of the packages whose names load when touched: ``python -m _kit.stubs``."""

from pathlib import Path

import xpopt
from xpopt import _names

PACKAGES = ("xpopt", "xpopt.optimizers", "xpopt.prox", "xpopt.schedulers", "xpopt.sharded")
PACKAGES += ("xpopt.solvers", "xpopt.testing", "xpopt.transforms")
HEAD = "# Written by tests/_kit/stubs.py from the table in xpopt/_names.py."


def stub(package: str) -> str:
    """Return the stub of one of the packages."""
    names = _names.names_of(package)
    modules = _names.MODULES if package == "xpopt" else ()
    lines = [HEAD, *(f"from . import {name} as {name}" for name in sorted(modules))]
    in_order = sorted(names, key=_as_ruff_sorts)
    lines += [f"from .{names[name]} import {name} as {name}" for name in sorted(in_order, key=names.__getitem__)]
    lines += ["", "__all__ = [", *(f'    "{name}",' for name in in_order), "]", ""]
    return "\n".join(lines)


def _as_ruff_sorts(name: str) -> tuple[bool, bool, str]:
    return not name.isupper(), not name[0].isupper(), name


def path(package: str) -> Path:
    """Return where it lies."""
    return Path(xpopt.__file__).parent.joinpath(*package.split(".")[1:], "__init__.pyi")


if __name__ == "__main__":
    for package in PACKAGES:
        path(package).write_text(stub(package))
