"""The version, which the package and its checkpoints name."""

__version__ = "0.1.0"
