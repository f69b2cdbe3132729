"""What a checkpoint is, on disk and in memory; knows no optimizer."""

from .header import CheckpointError, Current, Header, Parameter, Schedule, refusal
from .names import array_key
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
