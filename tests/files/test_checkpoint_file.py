"""The file: what is in it, names that survive, and that it is there whole or as it was."""

import hashlib
import json
import os
import stat
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from _kit.states import KING, frozen, held, model, nothing_changes, train

import xpopt
from xpopt import Adam, CheckpointError

safetensors = pytest.importorskip("safetensors", reason="checkpoints need safetensors: pip install 'xpopt[checkpoint]'")
import safetensors.numpy as tensors  # noqa: E402 - only where it is installed

pytestmark = pytest.mark.any_immutable

NAMES = [
    None, True, 7, -7, 2**80, "", "W", "a/b", ("a", "b"), ("a/b",), (), ((),), ("a", ("b",)), "7", "-7", '"7"', "true",
    "None", "null", '["a","b"]', b"W", b"", b"\x00\xff", ("a", b"b", 3, None, False), "W\n", "\0", "\u00e9", "e\u0301",
    "\u2603 and \U0001f600", "\ud800", "..", "__metadata__", "W/mean", "x" * 1000, "{", '{"bytes":"57"}', " ",
]  # fmt: skip


def trained(backend, **settings):
    opt = Adam(lr_scheduler=KING, **settings)
    return opt, train(backend, opt, 4)


def test_the_file_is_what_the_guide_says(backend, tmp_path):
    """Read with safetensors and hashlib alone."""
    opt, _ = trained(backend)
    opt.save(tmp_path / "opt")
    with safetensors.safe_open(tmp_path / "opt", framework="np") as file:
        metadata = file.metadata()
    assert metadata.keys() == {"xpopt", "sha256"}
    assert json.loads(metadata["xpopt"]) == opt.state_dict()["header"]
    arrays = tensors.load_file(tmp_path / "opt")
    checksum = hashlib.sha256(metadata["xpopt"].encode())
    for key in sorted(arrays, key=str.encode):
        checksum.update(arrays[key].tobytes())
    assert metadata["sha256"] == checksum.hexdigest()
    assert arrays.keys() == {"W/mean", "W/var", "b/mean", "b/var"}
    for key, x in arrays.items():
        name, _, slot = key.partition("/")
        assert x.dtype == backend.widest
        assert np.array_equal(x, backend.numpy(opt.cache[name][slot]))


def test_a_file_says_where_its_arrays_go(backend, tmp_path):
    """To NumPy as they are; with `like`, or at the first update, to the parameter."""
    opt, params = trained(backend)
    opt.save(tmp_path / "opt")
    read, placed = Adam(), Adam()
    assert read.load(tmp_path / "opt") == placed.load(tmp_path / "opt", like=params) == (("W", "b"), {})
    for name in params:
        assert type(read.cache[name]["mean"]) is np.ndarray
        assert frozen(backend, placed.cache[name]) == frozen(backend, opt.cache[name])
    want = frozen(backend, train(backend, opt, 1, params))
    for one in (read, placed):
        assert frozen(backend, train(backend, one, 1, params)) == want
        assert frozen(backend, one.cache) == frozen(backend, opt.cache)


def test_what_was_read_may_be_changed(tmp_path):
    opt = Adam()
    opt.update(np.ones(2), np.ones(2), "W")
    opt.save(tmp_path / "opt")
    opt.load(tmp_path / "opt")
    opt.cache["W"]["mean"][...] = 0.25
    opt.cache["W"]["t"] = 6
    want = Adam()
    want.set_params(cache_dict=opt.cache)
    assert np.array_equal(opt.update(np.ones(2), np.ones(2), "W"), want.update(np.ones(2), np.ones(2), "W"))
    assert opt.cache["W"]["t"] == 7


def test_names_survive_without_collision(tmp_path):
    opt, x = Adam(), np.ones(1)
    for i, name in enumerate(NAMES):
        opt.update(x, i * x, name)
    state = opt.state_dict()
    assert len(state["arrays"]) == 2 * len(NAMES)
    opt.save(tmp_path / "opt")
    read = tensors.load_file(tmp_path / "opt")
    assert read.keys() == state["arrays"].keys()
    again = xpopt.load_optimizer(tmp_path / "opt")
    assert [(type(name), name) for name in again.cache] == [(type(name), name) for name in NAMES]
    for i, name in enumerate(NAMES):
        assert again.cache[name]["mean"] == opt.cache[name]["mean"] == (1 - 0.9) * i
    assert again._parts.clock.current() == opt._parts.clock.current()


@pytest.mark.parametrize(("shape", "dtype"), [((), "float32"), ((0,), "float64"), ((1, 0, 2), "float32")])
def test_arrays_of_no_axes_and_of_no_elements(backend, shape, dtype, tmp_path):
    opt, W = Adam(), backend.array(np.ones(shape), dtype if dtype in backend.dtypes else None)
    opt.update(W, W, "W")
    opt.save(tmp_path / "opt")
    again = xpopt.load_optimizer(tmp_path / "opt", like={"W": W})
    assert frozen(backend, again.cache) == frozen(backend, opt.cache)
    assert frozen(backend, again.update(W, W, "W")) == frozen(backend, opt.update(W, W, "W"))


def test_slots_that_lie_in_memory_in_another_order(tmp_path):
    opt, slot = xpopt.AdaGrad(), np.arange(12.0).reshape(3, 4)
    for name, x in {"T": slot.T, "part": slot[::-1, ::2], "one": np.broadcast_to(slot[0, 1], (2, 2))}.items():
        opt.cache[name] = x
    opt.save(tmp_path / "opt")
    again = xpopt.load_optimizer(tmp_path / "opt")
    for name, x in opt.cache.items():
        assert np.array_equal(again.cache[name], x)


def test_progress_goes_from_nothing_to_all(tmp_path, capsys):
    opt = Adam()
    for i in range(5):
        opt.update(np.ones(100 + i), np.ones(100 + i), i)
    total = sum(x.nbytes for x in opt.state_dict()["arrays"].values())
    for work in (opt.save, opt.load, xpopt.load_optimizer):
        calls = []
        work(tmp_path / "opt", progress=lambda *call, calls=calls: calls.append(call))
        assert len(calls) > 4
        assert all(0 < before[0] < after[0] for before, after in pairwise(calls))
        assert {call[1] for call in calls} == {total}
        assert calls[-1] == (total, total)
    assert capsys.readouterr() == ("", "")
    opt.save(tmp_path / "opt", progress=True)
    opt.load(tmp_path / "opt", progress=True)
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert [line for line in lines if line.endswith("100%")] == ["saving opt: 100%", "loading opt: 100%"]
    empty = xpopt.SGD()
    empty.save(tmp_path / "opt", progress=True)
    assert capsys.readouterr().err == "\rsaving opt: 100%\n"


def test_an_error_in_progress_stops_it(backend, tmp_path):
    opt, params = trained(backend)
    opt.save(tmp_path / "opt")
    old = (tmp_path / "opt").read_bytes()
    train(backend, opt, 1, params)

    def stop(done, total):
        raise ValueError("no more")

    with nothing_changes(backend, opt):
        for work in (opt.save, opt.load):
            with pytest.raises(ValueError, match="no more") as error:
                work(tmp_path / "opt", progress=stop)
            assert type(error.value) is ValueError
    assert (tmp_path / "opt").read_bytes() == old
    assert os.listdir(tmp_path) == ["opt"]


@pytest.mark.parametrize("work", ["save", "load"])
def test_an_update_in_progress_is_refused(work, backend, tmp_path):
    """A file with the arrays of two steps would be a damaged one."""
    opt, params = trained(backend)
    opt.save(tmp_path / "opt")
    old = (tmp_path / "opt").read_bytes()
    train(backend, opt, 1, params)
    with nothing_changes(backend, opt), pytest.raises(RuntimeError, match=f"in the middle of a {work}, "):
        getattr(opt, work)(tmp_path / "opt", progress=lambda done, total: train(backend, opt, 1, params))
    assert (tmp_path / "opt").read_bytes() == old
    assert os.listdir(tmp_path) == ["opt"]


def test_a_copy_in_progress_of_a_save_is_of_the_same_step(backend, tmp_path):
    opt, _ = trained(backend)
    twins = []
    opt.save(tmp_path / "opt", progress=lambda done, total: twins.append(opt.copy()))
    assert twins
    assert all(held(backend, twin) == held(backend, opt) for twin in twins)


def test_a_missing_file(backend, tmp_path):
    opt, _ = trained(backend)
    for work in (opt.load, xpopt.load_optimizer):
        with nothing_changes(backend, opt), pytest.raises(FileNotFoundError, match="nowhere"):
            work(tmp_path / "nowhere")
        with nothing_changes(backend, opt), pytest.raises(OSError, match="not a regular file"):
            work(tmp_path)


@pytest.mark.parametrize("place", ["folder", "pipe", "no folder"])
def test_where_no_file_can_be_written(place, tmp_path):
    opt, target = Adam(), tmp_path / "opt"
    if place == "folder":
        target.mkdir()
    elif place == "pipe":
        os.mkfifo(target)
    else:
        target = target / "opt"
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OSError):
        opt.save(target)
    assert sorted(tmp_path.rglob("*")) == before


PLACES = {
    "a slash at the end": ("new/", IsADirectoryError),
    "a slash behind a file": ("file/", IsADirectoryError),
    "a folder": ("folder/", IsADirectoryError),
    "a dot": ("folder/.", IsADirectoryError),
    "two dots": ("folder/..", IsADirectoryError),
    "a missing folder": ("nofolder/new", FileNotFoundError),
    "back from a missing folder": ("nofolder/../new", FileNotFoundError),
    "a file as a folder": ("file/new", NotADirectoryError),
    "back from a file": ("file/../new", NotADirectoryError),
    "a link to a missing folder": ("lost", FileNotFoundError),
    "a link to itself": ("loop", OSError),
}


@pytest.mark.parametrize(("place", "error"), PLACES.values(), ids=PLACES)
def test_a_path_that_the_system_does_not_take(place, error, tmp_path, monkeypatch):
    """Whether it is absolute or not; the error names it, and nothing has changed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"mine")
    (tmp_path / "lost").symlink_to(tmp_path / "nofolder" / "new")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    before = sorted(tmp_path.rglob("*"))
    for path in (place, f"{tmp_path}/{place}"):
        with pytest.raises(OSError, match="Errno"):  # so says the system
            open(path, "xb" if "loop" not in place else "wb")  # noqa: SIM115 - it is not opened
        with pytest.raises(error) as refused:
            Adam().save(path)
        assert refused.value.filename == path
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "file").read_bytes() == b"mine"


@pytest.mark.parametrize(
    "place", ["new", "./new", "folder/../new", "folder//new", "way/new", "way/../new", "short", "way/back"]
)
def test_a_path_leads_where_the_system_goes(place, tmp_path, monkeypatch):
    """Also back from a link, which is not the folder that the link is in."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    (tmp_path / "way").symlink_to("folder/deep")
    (tmp_path / "short").symlink_to("way/../new")
    (tmp_path / "folder" / "deep" / "back").symlink_to("../../new")
    for path in (place, Path(tmp_path, place), f"{tmp_path}/{place}"):
        opt = Adam()
        opt.save(path)
        with open(path, "rb") as file:
            assert file.read(8) != b""
        written = [found for found in tmp_path.rglob("*") if found.is_file() and not found.is_symlink()]
        assert len(written) == 1
        assert os.path.samefile(written[0], path)
        written[0].unlink()


def test_a_link_is_followed(tmp_path):
    opt = Adam()
    (tmp_path / "runs").mkdir()
    (tmp_path / "latest").symlink_to(tmp_path / "runs" / "opt")
    for _ in range(2):
        opt.save(tmp_path / "latest")
        opt.step()
    assert (tmp_path / "latest").is_symlink()
    assert os.listdir(tmp_path / "runs") == ["opt"]
    assert xpopt.load_optimizer(tmp_path / "latest").cur_step == 1


def test_permissions_are_those_of_any_new_file_or_of_the_old_one(tmp_path):
    opt, path = Adam(), tmp_path / "opt"
    (tmp_path / "other").touch()
    opt.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "other").stat().st_mode)
    path.chmod(0o640)
    opt.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def fail(*args, **kwargs):
    raise OSError(28, "No space left on device")


def fail_as_safetensors(arrays, path, metadata):
    path.with_name(".tmp").write_bytes(b"half of it")
    raise safetensors.SafetensorError("I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize(
    ("what", "failure"),
    [
        ("safetensors.numpy.save_file", fail_as_safetensors),
        ("os.fsync", fail),
        ("pathlib.Path.replace", fail),
        ("pathlib.Path.touch", fail),
        ("os.fsync", KeyboardInterrupt),
    ],
)
def test_whatever_fails_the_old_file_stays_and_nothing_else(what, failure, backend, tmp_path, monkeypatch):
    opt, params = trained(backend)
    opt.save(tmp_path / "opt")
    old = (tmp_path / "opt").read_bytes()
    train(backend, opt, 1, params)
    monkeypatch.setattr(what, fail if failure is not KeyboardInterrupt else _interrupt)
    if failure is fail_as_safetensors:
        monkeypatch.setattr(what, failure)
    error = KeyboardInterrupt if failure is KeyboardInterrupt else OSError
    with nothing_changes(backend, opt), pytest.raises(error):
        opt.save(tmp_path / "opt")
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["opt"]
    assert (tmp_path / "opt").read_bytes() == old


def _interrupt(*args):
    raise KeyboardInterrupt


FULL = """
import os, resource, sys
import numpy as np
import xpopt
opt = xpopt.Adam()
opt.update(np.ones(100_000), np.ones(100_000), "W")
resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
try:
    opt.save(sys.argv[1])
except OSError as error:
    print(error)
"""


@pytest.mark.skipif(os.name != "posix", reason="needs a limit on the size of files")
def test_a_file_that_grows_too_large_for_the_disk(tmp_path):
    """For real, with a limit that acts as a full disk does."""
    Adam().save(tmp_path / "opt")
    old = (tmp_path / "opt").read_bytes()
    done = subprocess.run([sys.executable, "-c", FULL, tmp_path / "opt"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert f"cannot write {tmp_path / 'opt'}" in done.stdout
    assert os.listdir(tmp_path) == ["opt"]
    assert (tmp_path / "opt").read_bytes() == old


SAVING = """
import itertools, json, os, random, shutil, signal, sys, time
import numpy as np
import safetensors.numpy
import xpopt

path, rng = sys.argv[1], random.Random(1)

def save(pipe):
    opt, W = xpopt.Adam(), np.zeros(200_000)
    for step in itertools.count():
        opt.update(W, np.full(200_000, float(step)), "W", out=W)
        opt.step()
        opt.save(path)
        os.write(pipe, b"%d\\n" % step)

for k in range(8):
    ours, childs = os.pipe()
    child = os.fork()
    if not child:
        try:
            save(childs)
        finally:
            os._exit(1)
    os.close(childs)
    with open(ours) as pipe:
        first = pipe.readline()
        time.sleep(rng.uniform(0, 0.2))
        os.kill(child, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        print(int((first + pipe.read()).split()[-1]))
    shutil.copy(path, path + str(k))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork: this system has none")
def test_killed_at_any_moment_the_file_is_one_of_those_saved(tmp_path):
    """Processes that begin as forks, with SIGKILL."""
    command = [sys.executable, "-W", "ignore:This process:DeprecationWarning", "-c", SAVING, tmp_path / "opt"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    steps, first = [], np.zeros(200_000)
    for k, said in enumerate(map(int, done.stdout.split())):
        opt = xpopt.load_optimizer(tmp_path / f"opt{k}", like={"W": first})
        # What was announced is there; at most the next one has come since.
        assert opt.cur_step - 1 in (said, said + 1)
        assert opt.cache["W"]["t"] == opt.cur_step
        steps.append(opt.cur_step)
    assert len(steps) == 8
    assert max(steps) > 1


def test_without_safetensors_the_error_names_the_extra(backend, monkeypatch, tmp_path):
    opt, _ = trained(backend)
    opt.save(tmp_path / "opt")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    before = held(backend, opt)
    for work in (opt.save, opt.load, xpopt.load_optimizer):
        with pytest.raises(ImportError, match=r'pip install "xpopt\[checkpoint\]"'):
            work(tmp_path / "opt")
    assert held(backend, opt) == before


def test_an_optimizer_that_nobody_knows(tmp_path):
    class Unknown(Adam):
        pass

    Unknown().save(tmp_path / "opt")
    content = (tmp_path / "opt").read_bytes()
    assert type(xpopt.load_optimizer(tmp_path / "opt")) is Unknown
    (tmp_path / "opt").write_bytes(content)
    with pytest.raises(CheckpointError, match="the checkpoint is of 'Unknown', and this is Adam"):
        Adam().load(tmp_path / "opt")
    state = Adam().state_dict()
    state["header"]["rule"]["name"] = "adam"  # not in any case, as text may
    with pytest.raises(CheckpointError):
        Adam().load_state_dict(state)


def test_files_of_others(backend, tmp_path):
    opt, _ = trained(backend)
    tensors.save_file({"W": np.ones(2)}, tmp_path / "weights", metadata={"format": "pt"})
    np.save(tmp_path / "array.npy", np.ones(1000))
    for name, message in {"weights": "without the header of an optimizer", "array.npy": "damaged"}.items():
        with nothing_changes(backend, opt), pytest.raises(CheckpointError, match=message) as error:
            opt.load(tmp_path / name)
        assert str(error.value).startswith(str(tmp_path / name))


def test_parameters_that_have_not_been_updated_are_not_in_it(backend, tmp_path):
    opt, (params, grads) = Adam(), model(backend)
    opt.save(tmp_path / "opt")
    assert xpopt.load_optimizer(tmp_path / "opt", like=params).cache == {}
    params = opt.update_all(params, {**grads, "b": None})
    opt.save(tmp_path / "opt")
    with pytest.raises(CheckpointError, match="'b' has no state in the checkpoint; leave it out of like"):
        xpopt.load_optimizer(tmp_path / "opt", like=params)
    again = xpopt.load_optimizer(tmp_path / "opt", like={"W": params["W"]})
    want = frozen(backend, opt.update_all(params, grads))
    assert frozen(backend, again.update_all(params, grads)) == want


@pytest.mark.skipif(os.name != "posix", reason="needs folders that can be opened")
def test_the_disk_has_the_file_before_its_name_and_then_its_name(tmp_path, monkeypatch):
    events, fsync, replace = [], os.fsync, Path.replace

    def synced(descriptor):
        events.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def replaced(self, target):
        events.append("name")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    Adam().save(tmp_path / "opt")
    assert events == ["file", "name", "folder"]
