"""Values of hyperparameters for hypothesis."""

from typing import Any

from hypothesis import strategies as st

from .table import Interval, Setting


def legal(allowed: Interval) -> Any:
    """Draw whatever a hyperparameter may be."""
    *others, low, _, high = allowed.inside()
    return st.floats(low, high) | st.none() if None in others else st.floats(low, high)


def drawn(setting: Setting) -> Any:
    """Draw what leaves a walk with digits to compare."""
    values = st.floats(*setting.drawn)
    return st.sampled_from(setting.also) | values if setting.also else values
