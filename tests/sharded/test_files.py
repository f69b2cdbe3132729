"""State of some ranks on disk, read by other numbers of ranks; and what interrupts a save."""

import json

import numpy as np
import pytest
from _kit.ranks import filled, leaves, of_all, run_ranks, write

import xpopt
from xpopt._checkpoint import file
from xpopt.sharded import Sharded, _files

pytest.importorskip("safetensors")
pytestmark = [pytest.mark.backends("numpy"), pytest.mark.any_engine]

SHAPES = {"a": (90, 101), "b": {"c": (5003,), "d": (), "e": (0, 3)}, "f": (7,)}
OPTIMIZERS = {
    "Adam": lambda: xpopt.Adam(lr=0.1, lr_scheduler="king(patience=2)"),
    "clipped": lambda: xpopt.Adam(clip_norm=0.5, groups={"f": {"rounding": "nearest", "clip_norm": None}}),
    "accumulating": lambda: xpopt.SGD(momentum=0.9, accumulate=2),
    "Prodigy": lambda: xpopt.Prodigy(clip_global=1.0),
    "Adafactor": lambda: xpopt.Adafactor(clip_global=1.0),
    "LAMB": lambda: xpopt.LAMB(),
    "frozen": lambda: xpopt.RMSProp(groups={"a": "freeze"}),
    "elements": lambda: xpopt.Adam(groups={"f": {"bounds": (-np.ones(7), 1.0)}}),
}


def walk(opt, params, grads, steps):
    for step in steps:  # the same on all ranks, whose mean is then exact for any number of them that is a power of two
        write(grads, filled(SHAPES, 10 + step))
        opt.update_all(1.0 + step)
    return params


def copies(params):
    return [x.copy() for x in leaves(params)]


def trained(make, folder, ranks, monkeypatch, steps=range(3)):
    def work(comm):
        opt = Sharded(make(), comm)
        params, grads = opt.bind(filled(SHAPES, 0))
        walk(opt, params, grads, steps)
        opt.save(folder)
        return copies(params), copies(walk(opt, params, grads, range(3, 6)))

    return of_all(ranks, work, monkeypatch)[0]


def goes_on(make, folder, start, ranks, monkeypatch):
    def work(comm):
        opt = Sharded(make(), comm)
        params, grads = opt.bind(filled(SHAPES, 0))
        write(params, dict(enumerate(start)))
        opt.load(folder)
        assert opt.cur_step == 1 if opt.hyperparameters["accumulate"] == 2 else opt.cur_step == 3
        return copies(walk(opt, params, grads, range(3, 6)))

    return of_all(ranks, work, monkeypatch)


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_four_ranks_are_read_by_any_number(name, ranks, tmp_path, monkeypatch):
    make = OPTIMIZERS[name]
    start, expected = trained(make, tmp_path, 4, monkeypatch)
    exact = name not in ("Prodigy", "Adafactor")  # whose sums over the model are those of ranks
    for found in goes_on(make, tmp_path, start, ranks, monkeypatch):
        for x, y in zip(found, expected, strict=True):
            np.testing.assert_allclose(x, y, rtol=0 if exact else 1e-5, atol=0 if exact else 1e-6)


def test_three_ranks_read_what_four_wrote(tmp_path, monkeypatch):
    """The mean of three equal gradients is not exact; the state is."""
    make = OPTIMIZERS["Adam"]
    start, _ = trained(make, tmp_path, 4, monkeypatch)

    def work(comm):
        opt = Sharded(make(), comm)
        params, _ = opt.bind(filled(SHAPES, 0))
        write(params, dict(enumerate(start)))
        opt.load(tmp_path)
        opt.save(tmp_path / "again")

    of_all(3, work, monkeypatch)

    def slots(folder):
        index = json.loads((folder / "index.json").read_text())
        found = {}
        for k, name in enumerate(index["files"]):
            _, arrays = file.read(folder / name, None)
            for one in index["parameters"]:
                text = one["name"] if isinstance(one["name"], str) else json.dumps(one["name"], separators=(",", ":"))
                for slot in ("mean", "var"):
                    pieces = [(at, arrays[f"{text}/{slot}"]) for rank, at, _ in one["pieces"] if rank == k]
                    found.setdefault((text, slot), []).extend(pieces)
        return {
            key: np.concatenate([x.ravel() for _, x in sorted(of, key=lambda one: one[0])]) for key, of in found.items()
        }

    first, second = slots(tmp_path), slots(tmp_path / "again")
    assert first.keys() == second.keys()
    assert len(first) == 10
    for key, x in first.items():
        assert x.tobytes() == second[key].tobytes()


@pytest.mark.parametrize("name", ["Adam", "clipped", "Prodigy"])
def test_the_file_of_one_optimizer_is_read(name, tmp_path, monkeypatch):
    make, path = OPTIMIZERS[name], tmp_path / "one.safetensors"
    one, params = make(), filled(SHAPES, 0)
    for step in range(3):
        params = one.update_all(params, filled(SHAPES, 10 + step), 1.0 + step)
    one.save(path)
    start = copies(params)
    for step in range(3, 6):
        params = one.update_all(params, filled(SHAPES, 10 + step), 1.0 + step)
    for found in goes_on(make, path, start, 2, monkeypatch):
        for x, y in zip(found, leaves(params), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-5 if name == "Prodigy" else 0, atol=0)


def test_complex_and_narrow_slots(tmp_path, monkeypatch):
    shapes = {"a": (3000, 3)}

    def work(comm, folder, steps):
        opt = Sharded(xpopt.Adam(lr=0.1), comm)
        params, grads = opt.bind(filled(shapes, 0, np.complex64))
        if steps[0]:
            opt.load(folder)
            params["a"][...] = after["a"]
        for step in steps:
            write(grads, {"a": filled(shapes, step)["a"] * (1 + 0.5j)})
            opt.update_all()
        opt.save(folder)
        return {"a": params["a"].copy()}

    expected = of_all(2, lambda comm: work(comm, tmp_path / "all", [0, 1, 2]), monkeypatch)[0]
    after = of_all(4, lambda comm: work(comm, tmp_path / "part", [0, 1]), monkeypatch)[0]
    for found in of_all(2, lambda comm: work(comm, tmp_path / "part", [2]), monkeypatch):
        assert found["a"].tobytes() == expected["a"].tobytes()


def test_a_save_that_fails_on_one_rank_leaves_the_older_checkpoint(tmp_path, monkeypatch):
    make, write_file = OPTIMIZERS["Adam"], file.write
    start, expected = trained(make, tmp_path, 2, monkeypatch)
    old = {path.name for path in tmp_path.iterdir()}

    def full(path, *more):
        if "-00001-of" in path.name:
            raise OSError("no space left")
        write_file(path, *more)

    def work(comm):
        opt = Sharded(make(), comm)
        params, grads = opt.bind(filled(SHAPES, 0))
        walk(opt, params, grads, range(1))
        opt.save(tmp_path)

    monkeypatch.setattr(_files.file, "write", full)
    for result in run_ranks(2, work, monkeypatch):
        assert isinstance(result, OSError)
        assert str(result) == "rank 1: no space left"
    monkeypatch.setattr(_files.file, "write", write_file)
    assert old < {path.name for path in tmp_path.iterdir()}
    for found in goes_on(make, tmp_path, start, 2, monkeypatch):
        for x, y in zip(found, expected, strict=True):
            np.testing.assert_array_equal(x, y)
    theirs = tmp_path / "000000003-model-00000-of-00002.safetensors"
    theirs.write_bytes(b"weights")
    trained(make, tmp_path, 2, monkeypatch)  # and the next one leaves nothing of it, and what is no file of its own
    assert len(list(tmp_path.iterdir())) == 4
    assert theirs.read_bytes() == b"weights"


def test_an_index_of_the_users_own_is_not_replaced(tmp_path, monkeypatch):
    index = tmp_path / "index.json"
    index.write_text('{"weight_map": {}}')

    def work(comm):
        opt = Sharded(OPTIMIZERS["Adam"](), comm)
        opt.bind(filled(SHAPES, 0))
        opt.save(tmp_path)

    for error in run_ranks(2, work, monkeypatch):
        with pytest.raises(FileExistsError, match="is not the index of a checkpoint"):
            raise error
    assert [path.name for path in tmp_path.iterdir()] == ["index.json"]
    assert index.read_text() == '{"weight_map": {}}'


def edited(change):
    def damage(folder):
        index = json.loads((folder / "index.json").read_text())
        change(index)
        (folder / "index.json").write_text(json.dumps(index))

    return damage


def cut_short(folder):
    victim = max(folder.glob("*.safetensors"))
    victim.write_bytes(victim.read_bytes()[:-100])


DAMAGES = {
    "no index": (lambda folder: (folder / "index.json").unlink(), FileNotFoundError, "index.json"),
    "no file": (lambda folder: max(folder.glob("*.safetensors")).unlink(), FileNotFoundError, "does not exist"),
    "short": (cut_short, ValueError, "damaged"),
    "text": (lambda folder: (folder / "index.json").write_text("{"), ValueError, "index.json is damaged"),
    "newer": (edited(lambda index: index.update(format=2)), ValueError, "has format 2, and this xpopt reads 1"),
    "outside": (edited(lambda index: index.update(files=["../x", "y"])), ValueError, "outside of the folder"),
    "others": (edited(lambda index: index["parameters"].pop()), ValueError, "it lacks 'f'"),
    "shape": (
        edited(lambda index: index["parameters"][0].update(shape=[2])),
        ValueError,
        r"with shape \(2,\) in the checkpoint",
    ),
    "hole": (edited(lambda index: index["parameters"][0]["pieces"].pop()), ValueError, "the checkpoint is incomplete"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_told_on_all_ranks_and_nothing_changes(damage, tmp_path, monkeypatch):
    make, (spoil, kind, message) = OPTIMIZERS["Adam"], DAMAGES[damage]
    trained(make, tmp_path, 2, monkeypatch)
    spoil(tmp_path)

    def work(comm):
        opt = Sharded(make(), comm)
        params, grads = opt.bind(filled(SHAPES, 0))
        walk(opt, params, grads, range(1))
        try:
            opt.load(tmp_path)
        except Exception as error:
            return error, opt.cur_step, copies(walk(opt, params, grads, range(1, 3)))

    (first, step, found), (second, *_) = of_all(2, work, monkeypatch)
    assert str(first) == str(second)
    assert isinstance(first, kind if kind is not FileNotFoundError else OSError)
    with pytest.raises(type(first), match=message):
        raise first
    assert step == 1
    one, params = make(), filled(SHAPES, 0)
    for k in range(3):
        params = one.update_all(params, filled(SHAPES, 10 + k), 1.0 + k)
    for x, y in zip(found, leaves(params), strict=True):
        np.testing.assert_array_equal(x, y)


def test_settings_that_would_cut_other_parameters_are_refused(tmp_path, monkeypatch):
    """In pieces, each would be clipped to the norm of the whole."""
    trained(lambda: xpopt.Adam(clip_norm=0.5), tmp_path, 2, monkeypatch)

    def work(comm):
        opt = Sharded(xpopt.Adam(), comm)
        opt.bind(filled(SHAPES, 0))
        opt.load(tmp_path)

    for result in run_ranks(2, work, monkeypatch):
        assert isinstance(result, ValueError)
        assert "the new settings need another layout of 'a', 'b/c'" in str(result)
