"""What a checkpoint is, on disk and in memory; knows no optimizer."""

from .._state.names import array_key
from .header import CheckpointError, Current, Header, Parameter, Schedule, refusal
from .renaming import Renaming

__all__ = [
    "CheckpointError",
    "Current",
    "Header",
    "Parameter",
    "Renaming",
    "Schedule",
    "array_key",
    "refusal",
]
