"""Public names load when touched, and are the same for the loader, for type checkers and for tools."""

import ast
import importlib
import inspect
import pickle
import pydoc
from pathlib import Path
from runpy import run_path

import numpy as np
import pytest
from _kit import stubs
from _kit.programs import run
from _kit.table import SIGNATURES

import xpopt

PUBLISHED = {  # what programs may rely on; more may come
    **dict.fromkeys(["OptimizerBase", *(cls.__name__ for cls in SIGNATURES)], "xpopt.optimizers"),
    **dict.fromkeys(["SchedulerBase", "make_scheduler", "SchedulerInitializer"], "xpopt.schedulers"),
    **dict.fromkeys([f"{kind}Scheduler" for kind in ("Constant", "Exponential", "King", "Noam")], "xpopt.schedulers"),
    **dict.fromkeys(["make_optimizer", "OptimizerInitializer"], "xpopt.config"),
    "load_optimizer": "xpopt.checkpoint",
    "kernel_source": "xpopt.explain",
}
ELSEWHERE = {"CheckpointError", "Range", "Rule", "setting", "__version__", "default_namespace", "engine", "num_threads"}

START = "import json, sys\nimport numpy as np, array_api_compat.numpy\nbefore = set(sys.modules)\n"
NEW = "print(json.dumps(sorted(set(sys.modules) - before)))\n"
TRAIN = """
import xpopt
x = np.ones(3)
opt = xpopt.make_optimizer("adam")
opt.update(x, x, "W")
opt.step()
opt.copy().update_all({"W": x}, {"W": x})
str(opt), opt.hyperparameters, opt.cache, opt.explain([x])
"""
SLOW = {"hashlib", "importlib.metadata", "importlib.resources", "json", "pathlib", "tempfile"}


def test_the_import_loads_the_table_alone(tmp_path):
    [new] = run(START + "import xpopt\n" + NEW, tmp_path)
    assert set(new) - {"__future__"} == {"xpopt", "xpopt._names"}


def test_one_name_loads_no_other_method(tmp_path):
    [new] = run(START + "import xpopt\nxpopt.SGD()\n" + NEW, tmp_path)
    methods = {name for name in new if name.startswith("xpopt.optimizers.")}
    assert methods == {"xpopt.optimizers.base", "xpopt.optimizers.sgd"}


def test_training_loads_nothing_that_only_files_and_printed_kernels_need(tmp_path):
    """NumPy's own namespace of the array API loads some of it: that is loaded before, and forgotten."""
    forget = f"slow = {sorted(SLOW)}\nfor name in list(sys.modules):\n"
    forget += "    if any(f'{name}.'.startswith(f'{one}.') for one in slow):\n        del sys.modules[name]\n"
    found = "found.append([name for name in slow if name in sys.modules])\n"
    unknown = "try:\n    xpopt.make_optimizer('nobody')\nexcept ValueError:\n    pass\n"
    program = f"{START}{forget}found = []\n{TRAIN}{found}{unknown}{found}import json\nprint(json.dumps(found))"
    [[trained, unknown]] = run(program, tmp_path)
    assert trained == []
    assert "importlib.metadata" in unknown  # so the check would tell


def test_published_names_are_there():
    assert set(xpopt.__all__) >= PUBLISHED.keys() | ELSEWHERE
    for name, package in PUBLISHED.items():
        assert getattr(importlib.import_module(package), name) is getattr(xpopt, name)
        assert getattr(xpopt, name).__name__ == name
    assert set(xpopt.clipping.__all__) == {"global_norm", "clip_by_global_norm"}


def test_a_star_and_dir_see_every_name():
    found = {}
    exec("from xpopt import *", found)
    assert set(xpopt.__all__) == set(found) - {"__builtins__"}
    assert all(found[name] is getattr(xpopt, name) for name in xpopt.__all__)
    assert set(dir(xpopt)) >= set(xpopt.__all__) | {"clipping", "optimizers", "schedulers"}
    assert set(dir(xpopt.optimizers)) >= {"Adam", "OptimizerBase"}


def test_dir_of_a_fresh_import_is_complete(tmp_path):
    names, loaded = run(
        "import json, sys, xpopt\nprint(json.dumps(dir(xpopt)))\n"
        "print(json.dumps([m for m in sys.modules if m.startswith('xpopt.')]))",
        tmp_path,
    )
    assert set(names) >= set(xpopt.__all__) | {"clipping", "optimizers", "schedulers"}
    assert loaded == ["xpopt._names"]


@pytest.mark.parametrize("package", stubs.PACKAGES)
def test_type_checkers_read_what_is_there(package):
    """The stub of a package, read as a checker reads it, beside the package as it runs."""
    module, tree = importlib.import_module(package), ast.parse(stubs.path(package).read_text())
    imported = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            assert node.level == 1
            for alias in node.names:
                assert alias.asname == alias.name  # else it is private to a checker
                imported[alias.name] = f"{package}.{node.module}" if node.module else package
    [listed] = [ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign)]
    assert sorted(listed) == sorted(module.__all__), "tests/_kit/stubs.py: cd tests && python -m _kit.stubs"
    assert set(listed) <= imported.keys()
    for name, defined in imported.items():
        value = getattr(module, name)
        if inspect.ismodule(value):
            assert value.__name__ == f"{package}.{name}"
        else:
            assert value is getattr(importlib.import_module(defined), name)


@pytest.mark.parametrize("package", stubs.PACKAGES)
def test_stubs_are_of_this_table(package):
    written = "the table has changed: cd tests && python -m _kit.stubs"
    assert stubs.path(package).read_text() == stubs.stub(package), written


def test_tools_see_the_names():
    assert dict(inspect.getmembers(xpopt))["Adam"] is xpopt.Adam
    assert inspect.getmodule(xpopt.make_scheduler).__name__.startswith("xpopt.schedulers")
    assert inspect.getsource(xpopt.Adam).startswith("class Adam")
    assert "class Adam" in pydoc.render_doc(xpopt, renderer=pydoc.plaintext)


def test_pickles_of_older_releases_name_what_is_there():
    for module, name in [("xpopt.schedulers", "make_scheduler"), ("xpopt.optimizers", "Adam"), ("xpopt", "Range")]:
        assert pickle.loads(f"c{module}\n{name}\n.".encode()) is getattr(importlib.import_module(module), name)
    assert pickle.loads(pickle.dumps(xpopt.SchedulerInitializer)) is xpopt.SchedulerInitializer
    opt = pickle.loads(pickle.dumps(xpopt.Adam(lr=0.5)))
    assert type(opt) is xpopt.Adam
    assert opt.hyperparameters["lr"] == 0.5


def test_a_pickle_loads_what_was_not_touched(tmp_path):
    opt = xpopt.Adam(lr=0.5, lr_scheduler="king")
    opt.update(np.ones(2), np.ones(2), "W", 1.0)
    [text, t] = run(
        f"import json, pickle\nopt = pickle.loads({pickle.dumps(opt)!r})\n"
        "print(json.dumps(str(opt)))\nprint(json.dumps(opt.cache['W']['t']))",
        tmp_path,
    )
    assert (text, t) == (str(opt), 1)


@pytest.mark.parametrize("module", [xpopt, xpopt.optimizers, xpopt.schedulers], ids=lambda module: module.__name__)
def test_a_name_that_is_not_there(module):
    with pytest.raises(AttributeError, match=f"module '{module.__name__}' has no attribute 'Adem'") as caught:
        module.Adem
    assert not hasattr(module, "_nothing")
    assert (caught.value.name, caught.value.obj) == ("Adem", module)  # for which Python suggests another
    with pytest.raises(ImportError, match="cannot import name 'Adem'"):
        exec(f"from {module.__name__} import Adem")


def test_a_missing_dependency_is_named_with_what_needs_it(tmp_path):
    [(kind, missing, notes)] = run(
        "import json, sys\nsys.modules['array_api_compat'] = None\nimport xpopt\ntry:\n    xpopt.Adam\n"
        "except Exception as error:\n"
        "    print(json.dumps([type(error).__name__, error.name, error.__notes__]))",
        tmp_path,
    )
    assert (kind, missing) == ("ModuleNotFoundError", "array_api_compat")
    assert "while xpopt.Adam was loaded" in notes


def test_an_attribute_error_on_the_way_is_not_taken_for_a_missing_name(tmp_path):
    """`hasattr`, and `from xpopt import Adam`, would hide it."""
    [text] = run(
        "import json, numpy\ndel numpy.errstate\nimport xpopt\ntry:\n    hasattr(xpopt, 'Adam')\n"
        "except ImportError as error:\n    print(json.dumps(str(error)))",
        tmp_path,
    )
    assert text.startswith("xpopt.Adam cannot be loaded: ")
    assert "errstate" in text


def test_packages_import_none_of_their_modules():
    """A thread that imports such a module holds it while it waits for the package, and another one the reverse."""
    root = Path(xpopt.__file__).parent
    for path in root.rglob("__init__.py"):
        imported = [
            node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)
        ]
        assert [alias.name for node in imported for alias in node.names] in ([], ["_names"]), path


PURGE = """
import json, sys, threading
import numpy as np
sys.dont_write_bytecode = True

def fresh():
    for name in [name for name in sys.modules if name.partition(".")[0] == "xpopt"]:
        del sys.modules[name]
    import xpopt
    return xpopt
"""

THREADS = f"""{PURGE}
sys.setswitchinterval(1e-6)
for _ in range(4):
    xpopt = fresh()
    names, found = xpopt.__all__ + ["clipping", "optimizers", "schedulers"], []
    barrier = threading.Barrier(8)

    def touch(number):
        barrier.wait()
        turned = names[number * 3:] + names[:number * 3]
        found.append([getattr(xpopt, name) for name in turned][-number * 3:] if number else None)
        here = {{name: getattr(xpopt, name) for name in names}}
        opt = xpopt.make_optimizer("adam")
        found.append((here, type(opt), opt.update(np.ones(2), np.ones(2), "W").tolist()))

    threads = [threading.Thread(target=touch, args=(number,), daemon=True) for number in range(8)]
    [thread.start() for thread in threads]
    [thread.join(300) for thread in threads]
    ends = [x for x in found if type(x) is tuple]
    assert len(ends) == 8, "a thread failed or waits"
    assert all(x is xpopt.Adam and y == ends[0][2] for _, x, y in ends)
    assert all(here[name] is getattr(xpopt, name) for here, _, _ in ends for name in names)
print(json.dumps(len(names)))
"""


def test_threads_that_touch_names_at_once_get_the_same_objects(tmp_path):
    [count] = run(THREADS, tmp_path)
    assert count == len(xpopt.__all__) + 3


INTERRUPTS = f"""{PURGE}
import os
here = os.path.dirname(fresh().__file__)
events = left = 0
hit = []

def watch(frame, event, arg):
    global events, left
    if frame.f_code.co_name != "<module>" or not frame.f_code.co_filename.startswith(here):
        return None
    events += 1
    left -= 1
    if left == 0:
        hit.append(frame.f_code.co_filename)
        raise KeyboardInterrupt
    frame.f_trace_lines = False
    return watch

def load(stop):
    global events, left
    xpopt = fresh()
    events, left = 0, stop
    sys.settrace(watch)
    try:
        for name in ("load_optimizer", "Adam"):
            getattr(xpopt, name)
    finally:
        sys.settrace(None)
    return xpopt

load(0)
total = events
assert total > 100
for stop in range(1, total + 1, 53):
    try:
        load(stop)
    except KeyboardInterrupt:
        pass
    else:
        raise AssertionError(stop)
    xpopt = sys.modules["xpopt"]
    opt = xpopt.make_optimizer("adam")
    assert type(opt) is xpopt.Adam is sys.modules["xpopt.optimizers.adam"].Adam
    assert isinstance(opt, xpopt.OptimizerBase) and issubclass(xpopt.SGD, xpopt.OptimizerBase)
    assert (opt.update(np.ones(2), np.ones(2), "W") < 1).all()
    assert str(xpopt.make_optimizer(str(opt))) == str(opt)
    assert isinstance(opt.copy().lr_scheduler, xpopt.ConstantScheduler)
    [getattr(xpopt, name) for name in xpopt.__all__]
print(json.dumps(len(set(hit))))
"""


def test_an_interrupt_in_a_lazy_load_leaves_nothing_half_done(tmp_path):
    [modules] = run(INTERRUPTS, tmp_path)
    assert modules > 7


def test_readme_has_the_table_of_what_there_is():
    """As `python docs/inventory.py` prints it."""
    root = Path(__file__).parents[1]
    table = run_path(str(root / "docs/inventory.py"))["inventory"](lambda name, module: f"`{name}`")
    assert table in (root / "README.md").read_text("utf-8")
