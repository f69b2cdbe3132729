"""Importing costs NumPy and array-api-compat, loads nothing optional, and works under another name."""

import ast
import importlib.resources
import re
import shutil
import sys
from pathlib import Path

import pytest
from _kit.programs import run

import xpopt

PACKAGE = Path(xpopt.__file__).parent
OPTIONAL = {
    "cupy",
    "cupyx",
    "llvmlite",
    "numba",
    "torch",
    "jax",
    "jaxlib",
    "dask",
    "ml_dtypes",
    "mpi4py",
    "scipy",
    "sklearn",
    "safetensors",
    "sparse",
    "ndonnx",
}

LOADED = """
import json, sys
import numpy, array_api_compat{wrapped}
before = set(sys.modules)
{work}
print(json.dumps(sorted({{name.partition(".")[0] for name in set(sys.modules) - before}})))
print(json.dumps(sorted({{name.partition(".")[0] for name in sys.modules}})))
"""

TRAIN = """
import numpy as np
for opt in (m.SGD(momentum=0.9), m.AdaGrad(), m.RMSProp(), m.Adam(clip_norm=1.0, lr_scheduler="king")):
    W = opt.update(np.ones((3, 2), np.float32), np.ones((3, 2), np.float32), "W", 1.0)
    opt.step()
    opt.update_all({"a": np.ones(3)}, {"a": np.ones(3)}, 1.0)
    assert W.dtype == np.float32 and (W < 1).all()
    assert str(m.make_optimizer(str(opt))) == str(opt)
    assert (opt.copy().update(W, W, "W", 1.0) < W).all()
try:
    m.SGD().update([0, 1], np.ones(2), "W"), m.SGD().update(object(), np.ones(2), "W")
except TypeError as error:
    assert "W" in str(error)
else:
    raise AssertionError
"""


@pytest.mark.parametrize("work", ["", TRAIN], ids=["import", "train"])
def test_what_is_loaded(tmp_path, work):
    # array_api_compat.numpy, which NumPy arrays need and the import does not, loads every corner of NumPy
    wrapped = ".numpy" if work else ""
    new, everything = run(LOADED.format(wrapped=wrapped, work="import xpopt as m\n" + work), tmp_path)
    assert set(new) - set(sys.stdlib_module_names) <= {"xpopt", "numpy", "array_api_compat"}
    assert "xpopt" in new
    assert not OPTIONAL & set(everything)


def test_the_check_would_tell(tmp_path):
    new, _ = run(LOADED.format(wrapped="", work="import pytest"), tmp_path)
    assert set(new) - set(sys.stdlib_module_names) - {"xpopt", "numpy", "array_api_compat"}


@pytest.mark.parametrize("place", ["renamed", "host/_vendor/opt"])
def test_a_renamed_copy_works(tmp_path, place):
    """Nothing in it says its own name: a host may keep a copy inside."""
    ignore = shutil.ignore_patterns("__pycache__")
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(PACKAGE, tmp_path / place, ignore=ignore)
    name = place.replace("/", ".")
    [loaded] = run(
        f"import sys, json\nsys.path.insert(0, {str(tmp_path)!r})\nimport {name} as m\n{TRAIN}\n"
        "print(json.dumps([m.__name__, m.__file__, 'xpopt' in sys.modules]))",
        tmp_path,
    )
    assert loaded == [name, str(tmp_path / place / "__init__.py"), False]


HOST = """
import warnings
import numpy as np
from ._vendor import opt as m

class Odd(m.OptimizerBase):
    @staticmethod
    def rule(xp, param, grad, s, h):
        return (param - h.lr * grad if float(xp.sum(grad)) > 0 else param), s

def train():
    x = np.ones(2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        opt = m.SGD(lr_scheduler="exponential")
        opt(x, x, "W")
        opt(x, x, "W")  # a step() was forgotten
        opt.update_all([x], [x])
        opt.step()
        opt.update_all([x], [x])  # and here it is one too many
        Odd(lr=0.1).update(x, x, "W")  # no kernel
    return [(w.lineno, w.filename) for w in caught]
"""


def test_warnings_of_a_copy_inside_a_host_point_into_the_host(tmp_path):
    """Its name begins with the host's, whose own lines are the caller's all the same."""
    shutil.copytree(PACKAGE, tmp_path / "host/_vendor/opt", ignore=shutil.ignore_patterns("__pycache__"))
    host = tmp_path / "host/training.py"
    host.write_text(HOST)
    lines = HOST.splitlines()
    wanted = [number for number, line in enumerate(lines, 1) if "#" in line]
    [caught] = run(
        f"import sys, json\nsys.path.insert(0, {str(tmp_path)!r})\nfrom host.training import train\n"
        "print(json.dumps(train()))",
        tmp_path,
    )
    assert caught == [[number, str(host)] for number in wanted]


def test_imports_are_relative():
    for path in PACKAGE.rglob("*.py"):
        assert not re.search(r"^\s*(from|import) xpopt", path.read_text(), re.MULTILINE), path


def test_type_hints_are_shipped():
    assert importlib.resources.files("xpopt").joinpath("py.typed").is_file()


METHODS = [path for path in (PACKAGE / "optimizers").glob("*.py") if path.stem not in ("__init__", "base")]
ALLOWED = {
    ".base",
    "..schedulers",
    ".._settings.setting",
    ".._settings.ranges",
    ".._arrays.typing",
    ".._graph.rule",
    ".._graph.slots",
}
DERIVED = {"adamw": ".adam"}
"""Methods that are another one with another default, and where that is."""


def test_optimizers_are_a_base_and_one_file_for_each_method():
    assert not [path.name for path in METHODS if path.stem.startswith("_")]
    defined = {getattr(xpopt.optimizers, name).__module__.rpartition(".")[2] for name in xpopt.optimizers.__all__}
    assert {path.stem for path in METHODS} | {"base"} == defined


@pytest.mark.parametrize("path", METHODS, ids=lambda path: path.stem)
def test_a_method_imports_nothing_but_what_a_rule_is_written_with(path):
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom) and node.level]
    assert nodes
    assert {"." * node.level + (node.module or "") for node in nodes} <= ALLOWED | {DERIVED.get(path.stem)}
