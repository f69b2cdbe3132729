"""What a checkpoint is, on disk and in memory; knows no optimizer."""

from .header import CheckpointError, Current, Header, Parameter, Schedule, refusal
from .names import Renaming, array_key

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
