# Written by tests/_kit/stubs.py from the table in xpopt/_names.py.
from .checks import Check as Check
from .checks import CheckError as CheckError
from .hosts import check_host as check_host
from .hosts import host_checks as host_checks
from .optimizers import check_optimizer as check_optimizer
from .optimizers import optimizer_checks as optimizer_checks
from .parametrize import parametrize as parametrize

__all__ = [
    "Check",
    "CheckError",
    "check_host",
    "check_optimizer",
    "host_checks",
    "optimizer_checks",
    "parametrize",
]
