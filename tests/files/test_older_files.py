"""Files written before the header named slots and groups: they load, and go on with the bits of their writer.

`tests/data/` has one for each optimizer, option and schedule, and in `next_step.npz` what the writer's eager engine
made of the next step.
"""

import json
from pathlib import Path

import numpy as np
import pytest

import xpopt

pytest.importorskip("safetensors", reason="checkpoints need safetensors: pip install 'xpopt[checkpoint]'")
from safetensors import safe_open

DATA = Path(__file__).parents[1] / "data"
NAMES = ["W", ("enc", 0), b"x"]

every_file = pytest.mark.parametrize("label", sorted(path.stem for path in DATA.glob("*.safetensors")))


def path_of(label):
    return DATA / f"{label}.safetensors"


def next_step(label):
    """Parameters and gradients of the step after the file was written, and the parameters after it."""
    with np.load(DATA / "next_step.npz") as file:
        return [
            {name: file[f"{label}/{i}/{kind}"] for i, name in enumerate(NAMES)} for kind in ("before", "grad", "after")
        ]


def goes_on(label, opt):
    """Make the step; return whether its bits are the writer's."""
    params, grads, after = next_step(label)
    if label == "AdaGrad-king":  # written when W had been updated, and the others had not
        after["W"] = params["W"]
        params |= {name: opt.update(params[name], grads[name], name, 9.0) for name in NAMES[1:]}
    else:
        params = opt.update_all(params, grads, 4.0)
    return all(params[name].tobytes() == after[name].tobytes() for name in NAMES)


def test_there_is_one_for_each_optimizer_and_option():
    labels = [path.stem for path in DATA.glob("*.safetensors")]
    assert len({label.partition("-")[0] for label in labels}) == 4  # all that there were
    headers = [header_of(path_of(label)) for label in labels]
    settings = [header["hyperparameters"] for header in headers]
    for name, neutral in {"clip_norm": None, "nonfinite": "propagate", "master": False, "rounding": "nearest"}.items():
        assert {one[name] == neutral for one in settings} == {False, True}, name
    assert {one["nonfinite"] for one in settings} == {"propagate", "skip", "raise"}
    assert len({header["schedule"]["name"] for header in headers}) == 4
    assert sum(header["pass"] is not None for header in headers) == 1


def header_of(path):
    with safe_open(path, framework="np") as file:
        return json.loads(file.metadata()["xpopt"])


@every_file
def test_an_optimizer_made_of_it_goes_on(label):
    params, _, _ = next_step(label)
    opt = xpopt.load_optimizer(path_of(label), like=params)
    assert opt.skipped == (label == "Adam-skip")
    assert goes_on(label, opt)


@every_file
def test_written_again_it_goes_on(label, tmp_path):
    opt = xpopt.load_optimizer(path_of(label))
    opt.save(tmp_path / "again")
    header = header_of(tmp_path / "again")
    assert "hyperparameters" not in header
    assert all(type(parameter["slots"]) is dict for parameter in header["parameters"])
    again = xpopt.load_optimizer(tmp_path / "again")
    assert str(again) == str(opt)
    assert goes_on(label, again)
