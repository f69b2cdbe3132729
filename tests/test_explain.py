"""What `kernel_source` shows: the rule in each language, as its present settings and the dtype make it."""

from __future__ import annotations

import re

import pytest
from states import OPTIMIZERS

import xpopt
from xpopt import kernel_source

TARGETS = ("numpy", "numba", "cuda")
DTYPES = ("float16", "bfloat16", "float32", "float64")


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_every_optimizer_has_a_source(make, target):
    source = kernel_source(make(), target)
    assert make()._rule(make()._values).name in source
    assert "float32" in source or target == "numpy"


@pytest.mark.parametrize(
    ("target", "update"),
    [
        ("numpy", ["add(x0, x1, new_velocity)", "subtract(param, new_velocity, new_param)"]),
        ("numba", ["velocity = (momentum * s_velocity) + (lr * grad)", "at_param[i] = param - velocity"]),
        (
            "cuda",
            ["const float velocity = (momentum * s_velocity) + (lr * grad);", "at_param.of[k] = param - velocity;"],
        ),
    ],
)
def test_it_reads_as_the_rule(target, update):
    lines = [line.strip() for line in kernel_source(xpopt.SGD(momentum=0.9), target).splitlines()]
    assert [line for line in lines if line in update] == update


def test_settings_select_the_rule():
    opt = xpopt.SGD()
    assert "plain_rule" in kernel_source(opt)
    opt.set_params({"momentum": 0.5})
    assert "velocity" in kernel_source(opt)


@pytest.mark.parametrize("target", TARGETS)
def test_a_bound_on_the_norm_shows(target):
    assert "clip_factor" in kernel_source(xpopt.SGD(clip_norm=1.0), target)
    assert "clip_factor" not in kernel_source(xpopt.SGD(), target)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("target", ["numba", "cuda"])
def test_dtypes_differ(target, dtype):
    sources = [kernel_source(xpopt.Adam(), target, other) for other in DTYPES]
    assert len(set(sources)) == 4
    assert dtype in kernel_source(xpopt.Adam(), target, dtype)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("opencl",), "target 'opencl'; wanted one of numpy, numba, cuda"),
        (("cuda", "int8"), "dtype 'int8'; wanted one of float16, bfloat16, float32, float64"),
        (("numpy", "bool"), "dtype 'bool'; wanted one of float16, bfloat16, float32, float64"),
    ],
)
def test_what_there_is_not_is_an_error(arguments, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        kernel_source(xpopt.Adam(), *arguments)


@pytest.mark.parametrize("target", TARGETS)
def test_a_rule_that_cannot_be_traced_says_why(target):
    class Early(xpopt.OptimizerBase):
        @staticmethod
        def rule(xp, param, grad, s, h):
            return (param, s) if h.t > 3 else (param - grad, s)

    with pytest.raises(TypeError, match=r"Early.rule cannot be traced \(line "):
        kernel_source(Early(0.1), target)
