"""Text, dicts and files find classes by name: a user's before xpopt's, and xpopt's before those of entry points."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from _kit.programs import run

import xpopt

RULE = """
    def __init__(self, lr=0.5, **options):
        super().__init__(lr, **options)

    @staticmethod
    def rule(xp, param, grad, s, h):
        return param - {factor} * h.lr * grad, s
"""


def own(name, factor=2, base="xpopt.OptimizerBase", head=""):
    return f"import xpopt\n{head}\nclass {name}({base}):{RULE.format(factor=factor)}"


def distribution(folder, name, points, modules, version="1.2"):
    """Lay a distribution with entry points into a folder."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = [f"{point} = {value}" for point, value in points.items()]
    (info / "entry_points.txt").write_text("\n".join(["[xpopt.optimizers]", *lines, ""]))
    for module, source in modules.items():
        path = folder / f"{module.replace('.', '/')}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(source)


def say(folder, *expressions, before=""):
    """Return what expressions are in a process that finds what lies in a folder; an error as its type and message."""
    program = f"import json, sys\nsys.path.insert(0, {str(folder)!r})\nimport xpopt\n{before}\n"
    for expression in expressions:
        program += (
            f"try:\n    found = {expression}\n"
            "except Exception as error:\n    found = [type(error).__name__, str(error)]\n"
            "print(json.dumps(found))\n"
        )
    return run(program, folder)


def test_what_was_never_touched_is_found(tmp_path):
    assert say(
        tmp_path,
        "str(xpopt.make_scheduler('king', lr=1.0))",
        "str(xpopt.make_optimizer('adagrad'))",
        "str(xpopt.make_optimizer({'id': 'RMSProp', 'lr': 0.5, 'lr_scheduler': 'NoamScheduler(model_dim=8)'}))",
    ) == [
        str(xpopt.KingScheduler(initial_lr=1.0)),
        str(xpopt.AdaGrad()),
        str(xpopt.RMSProp(lr=0.5, lr_scheduler=xpopt.NoamScheduler(model_dim=8))),
    ]


def test_a_file_finds_what_was_never_touched(tmp_path):
    pytest.importorskip("safetensors", reason="files need safetensors")
    opt = xpopt.RMSProp(lr=0.5, lr_scheduler="exponential")
    opt.update(np.ones(2), np.ones(2), "W")
    opt.save(tmp_path / "opt")
    assert say(tmp_path, "str(xpopt.load_optimizer('opt'))") == [str(opt)]


def test_an_unknown_name_is_told_all_that_there_are(tmp_path):
    distribution(tmp_path, "more-optimizers", {"Plug": "plugged:Plug"}, {"plugged": own("Plug")})
    optimizer, scheduler = say(
        tmp_path, "xpopt.make_optimizer('qqq')", "xpopt.make_scheduler('qqq')", before=own("Mine")
    )
    known = sorted(name for name in xpopt.optimizers.__all__ if name != "OptimizerBase")
    assert optimizer[1].splitlines()[0] == f"unknown optimizer 'qqq'; known: {', '.join(known)}, Mine, Plug"
    known = sorted(name for name in xpopt.schedulers.__all__ if name[-9:] == "Scheduler" and name[0].isupper())
    assert scheduler[1].splitlines()[0] == f"unknown scheduler 'qqq'; known: {', '.join(known)}"


@pytest.mark.parametrize("touched", ["", "xpopt.Adam; xpopt.KingScheduler"], ids=["first", "after"])
def test_a_users_class_wins(tmp_path, touched):
    mine = own("Adam") + "\nclass KingScheduler(xpopt.ConstantScheduler): pass"
    found = say(
        tmp_path,
        "[xpopt.make_optimizer(name).__class__.__module__ for name in ('Adam', 'adam', 'sgd')]",
        "[xpopt.make_scheduler(name, lr=1.0).__class__.__module__ for name in ('KingScheduler', 'king')]",
        before=f"{touched}\n{mine}",
    )
    assert found == [["__main__", "__main__", "xpopt.optimizers.sgd"], ["__main__"] * 2]


def test_of_two_that_users_defined_the_last_counts(tmp_path):
    before = own("Mine", 1) + "\nfirst = Mine\n" + own("Mine", 2)
    assert say(tmp_path, "type(xpopt.make_optimizer('mine')) is Mine is not first", before=before) == [True]


def test_a_name_in_the_same_case_is_preferred(tmp_path):
    found = say(
        tmp_path,
        "[type(xpopt.make_optimizer(name)).__name__ for name in ('ADAM', 'Adam', 'adam')]",
        before=own("ADAM"),
    )
    assert found == [["ADAM", "Adam", "ADAM"]]


def test_an_entry_point_is_found(tmp_path):
    distribution(tmp_path, "more-optimizers", {"Plug": "plugged.one:Plug"}, {"plugged.one": own("Plug")})
    loaded = "'plugged' in sys.modules"
    step = "xpopt.make_optimizer('Plug(lr=0.5)').update([1.0], [1.0], 'W').tolist()"
    text = "str(xpopt.make_optimizer({'id': 'plug', 'lr': 0.5}))"
    found = say(tmp_path, "str(xpopt.make_optimizer('adam'))", loaded, step, loaded, text)
    assert found[1:4] == [False, [0.0], True]
    assert found[4].startswith("Plug(lr=0.5, ")


@pytest.mark.parametrize("imported", ["", "import plugged", "xpopt.make_optimizer('plug')"])
@pytest.mark.parametrize("touched", ["", "xpopt.Adam"])
def test_xpopts_class_wins_over_an_entry_point_whatever_was_loaded(tmp_path, imported, touched):
    source = own("Plug") + own("Adam") + own("SGD")
    distribution(tmp_path, "more-optimizers", {"Plug": "plugged:Plug", "Adam": "plugged:Adam"}, {"plugged": source})
    names = "[xpopt.make_optimizer(name).__class__.__module__ for name in ('adam', 'SGD', 'plug')]"
    found = say(tmp_path, names, before=f"{touched}\n{imported}")
    assert found == [["xpopt.optimizers.adam", "xpopt.optimizers.sgd", "plugged"]]


@pytest.mark.parametrize("imported", ["", "import plugged"])
def test_a_users_class_wins_over_an_entry_point(tmp_path, imported):
    distribution(tmp_path, "more-optimizers", {"Plug": "plugged:Plug"}, {"plugged": own("Plug")})
    found = say(tmp_path, "xpopt.make_optimizer('plug').__class__.__module__", before=f"{own('Plug')}\n{imported}")
    assert found == ["__main__"]


def test_a_file_loads_no_entry_point(tmp_path):
    pytest.importorskip("safetensors", reason="files need safetensors")
    distribution(tmp_path, "more-optimizers", {"Plug": "plugged:Plug"}, {"plugged": own("Plug")})
    saved = "xpopt.make_optimizer('Plug(lr=0.5)').save('opt')"
    assert say(tmp_path, saved) == [None]
    load = "str(xpopt.load_optimizer('opt'))"
    refused, loaded = say(tmp_path, load, "'plugged' in sys.modules")
    assert refused[0] == "CheckpointError"
    assert "unknown optimizer 'Plug'; import the module that defines it first" in refused[1]
    assert not loaded
    [text] = say(tmp_path, load, before="import plugged")
    assert text.startswith("Plug(lr=0.5, ")


SHOWN = "the distribution more-optimizers 1.2 (entry point Plug = "


@pytest.mark.parametrize(
    ("value", "source", "kind", "reason"),
    [
        ("plugged:Plug", "import no_such_module", "ImportError", "ModuleNotFoundError: No module named 'no_such"),
        ("plugged:Plug", "1 / 0", "ImportError", "ZeroDivisionError: division by zero"),
        ("plugged:Plugg", own("Plug"), "ImportError", "AttributeError: module 'plugged' has no attribute 'Plugg'"),
        ("nowhere:Plug", "", "ImportError", "ModuleNotFoundError: No module named 'nowhere'"),
        ("plugged:Plug", "Plug = 1", "TypeError", "wanted an optimizer's class of the entry point's name"),
        ("plugged:Plug", "class Plug: pass", "TypeError", "wanted an optimizer's class of the entry point's name"),
        ("plugged:Plug", "import xpopt\nclass Plug(xpopt.OptimizerBase): pass", "TypeError", "wanted an optimizer's"),
        ("plugged:Other", own("Other"), "TypeError", "wanted an optimizer's class of the entry point's name"),
    ],
    ids=["import", "any", "attribute", "module", "value", "class", "no rule", "other name"],
)
def test_an_entry_point_that_does_not_load_names_its_distribution(tmp_path, value, source, kind, reason):
    distribution(tmp_path, "more-optimizers", {"Plug": value}, {"plugged": source})
    [(got, text)] = say(tmp_path, "xpopt.make_optimizer('plug')")
    assert got == kind
    assert f"{SHOWN}{value})" in text
    assert reason in text


def test_two_distributions_with_one_name_are_both_named(tmp_path):
    distribution(tmp_path, "more-optimizers", {"Plug": "plugged:Plug"}, {"plugged": own("Plug")})
    distribution(tmp_path, "other-optimizers", {"Plug": "others:Plug"}, {"others": own("Plug")}, "3.0")
    found = say(tmp_path, "xpopt.make_optimizer('plug')", "'plugged' in sys.modules or 'others' in sys.modules")
    assert found[0][0] == "ValueError"
    assert f"{SHOWN}plugged:Plug)" in found[0][1]
    assert "the distribution other-optimizers 3.0 (entry point Plug = others:Plug)" in found[0][1]
    assert not found[1]


def test_a_copy_under_another_name_loads_none(tmp_path):
    shutil.copytree(Path(xpopt.__file__).parent, tmp_path / "host/opt", ignore=shutil.ignore_patterns("__pycache__"))
    distribution(tmp_path, "more-optimizers", {"Plug": "plugged:Plug"}, {"plugged": own("Plug")})
    found = say(tmp_path, "host.opt.make_optimizer('Plug')", "'plugged' in sys.modules", before="import host.opt")
    assert found[0][0] == "ValueError"
    assert found[0][1].startswith("unknown optimizer 'Plug'")
    assert not found[1]
