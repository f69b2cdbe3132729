"""Every optimizer of the package passes the checks that those who write one run."""

import math

import numpy as np
import pytest
from _kit import oracles
from _kit.rows import KINDS, not_read_only, rows
from _kit.table import BY_RULE, ELSEWHERE, OF_MATRICES

from xpopt.testing import check_optimizer

pytestmark = [pytest.mark.any_engine, pytest.mark.any_immutable]

MATRICES = {"tall": (3, 2), "square": (4, 4)}


def whole(row):
    """The equation of a row, which is of one element, for arrays."""

    def oracle(param, grad, memory, t, **settings):
        size = math.prod(param.shape)
        each = zip(param.ravel().tolist(), grad.ravel().tolist(), memory or [None] * size, strict=True)
        pairs = oracles.together(row.equation(p, g, m, t, settings["lr"], **row.arguments) for p, g, m in each)
        return np.reshape([p for p, _ in pairs], param.shape), [m for _, m in pairs]

    return oracle


@not_read_only
@pytest.mark.parametrize("row", rows(BY_RULE, KINDS))
def test_every_rule_passes(backend, row):
    oracle = whole(row) if backend.widest == "float64" else None
    skip = ["engines"] if backend.library == "numpy" and row.label not in KINDS else []  # their bits: test_fused.py
    check_optimizer(row.make(lr=0.1), oracle=oracle, libraries=[backend.library], skip=skip)


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("cls", ELSEWHERE, ids=lambda cls: cls.__name__)
def test_every_other_class_passes(backend, cls):
    """Those that update the whole model, matrices, or by the loss: their numbers are tested in files of their own."""
    more = {"shapes": MATRICES} if cls in OF_MATRICES else {}
    check_optimizer(cls, libraries=[backend.library], skip=["engines"], **more)
