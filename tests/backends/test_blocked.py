"""What is true of the blocked engine alone, and of choosing an engine."""

from __future__ import annotations

import pytest

import xpopt
from xpopt._graph.rule import Rule
from xpopt._graph.trace import trace
from xpopt._print.numpy import print_numpy

pytestmark = pytest.mark.backends("numpy")


def test_an_engine_that_is_none_is_an_error(backend):
    with pytest.raises(ValueError, match=r"engine 'gpu'; wanted one of auto, eager, blocked"), xpopt.engine("gpu"):
        pass


def test_the_printed_kernel_reads_as_the_rule(backend):
    assert (
        print_numpy(trace(Rule(xpopt.AdaGrad.rule, xpopt.AdaGrad.slots))).text
        == '''\
def kernel(param, grad, total, new_param, new_total, x0, x1, c0, c1):
    """AdaGrad.rule, as calls of NumPy's ufuncs."""
    # c0 = h.lr
    # c1 = h.eps
    multiply(c0, grad, x0)
    multiply(grad, grad, x1)
    add(total, x1, new_total)
    sqrt(new_total, x1)
    add(x1, c1, x1)
    divide(x0, x1, x1)
    subtract(param, x1, new_param)
'''
    )
