"""Dask's graphs: what a task of a chunk does, and what is computed and kept from step to step."""

import numpy as np
import pytest
from _kit.table import BY_RULE, ELSEWHERE, OF_MATRICES

import xpopt
from xpopt import SGD, Adam

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")

pytestmark = pytest.mark.backends("dask")

VALUES = np.random.default_rng(3).normal(size=(6, 10))


def walk(opt, params, steps, persist=None):
    for _ in range(steps):
        params = opt.update_all(params, {name: 2 * x for name, x in params.items()}, 1.0)
        params = params if persist is None else persist(params)
    return params


OPTIONS = {
    "clip_norm": {"clip_norm": 0.5},
    "clip_global": {"clip_global": 0.5},
    "skip": {"nonfinite": "skip"},
    "agc": {"agc": 0.1},
    "centralize": {"centralize": True},
    "bounds": {"bounds": (np.full((6, 10), -0.5), None)},
    "lr_scale": {"lr_scale": np.linspace(0.5, 2.0, 60).reshape(6, 10)},
    "average": {"average": xpopt.EMA(0.9), "weight_decay": 0.1, "cautious": True},
    "accumulate": {"accumulate": 2, "lookahead": xpopt.Lookahead()},
}
CASES = {label: row.make for label, row in BY_RULE.items()}
CASES |= {cls.__name__: cls for cls in ELSEWHERE if cls not in OF_MATRICES}
CASES |= {f"Adam, {name}": lambda options=options: Adam(**options) for name, options in OPTIONS.items()}
WITH_NUMBERS = {"NAdam", "ScheduleFreeSGD", "ScheduleFreeAdamW", "FISTA"}  # a slot of theirs is one number
IN_CHUNKS = {label for label, row in BY_RULE.items() if not row.couples} - WITH_NUMBERS
IN_CHUNKS |= {f"Adam, {name}" for name in ("clip_norm", "skip", "average", "accumulate")}


@pytest.mark.parametrize("case", CASES)
def test_each_element_alone_is_updated_in_its_chunk_and_sums_are_of_whole_arrays(case):
    opts = [CASES[case]() for _ in range(2)]
    new = walk(opts[0], {"W": da.from_array(VALUES, chunks=(4, 3))}, 4)
    wanted = walk(opts[1], {"W": VALUES}, 4)["W"]
    (told,) = opts[0].explain(new)
    assert (told.engine == "chunked") == (case in IN_CHUNKS) == (not told.reason), told
    if case in IN_CHUNKS and "clip_norm" not in case:
        assert np.array_equal(new["W"].compute(), wanted)
    np.testing.assert_allclose(new["W"].compute(), wanted, rtol=1e-9)


@pytest.mark.parametrize(
    ("dtype", "options"),
    [("f2", {"rounding": "stochastic"}), ("f2", {"master": True}), ("c8", {}), ("f4", {"slots_dtype": "float16"})],
    ids=str,
)
def test_other_dtypes_have_the_bits_of_numpy_with_persist_at_each_step(dtype, options):
    opts = [xpopt.RMSProp(**options) for _ in range(2)]
    W = (VALUES + 1j * VALUES[::-1] if dtype == "c8" else VALUES).astype(dtype)
    new = walk(opts[0], {"W": da.from_array(W, chunks=4)}, 5, opts[0].persist)
    assert np.array_equal(new["W"].compute(), walk(opts[1], {"W": W}, 5)["W"])


def test_a_graph_holds_one_step_after_persist(recwarn):
    opt = Adam(nonfinite="skip", clip_norm=1.0)
    params = {"W": da.from_array(VALUES, chunks=3), "b": da.zeros(())}
    sizes = []
    for _ in range(13):
        params = walk(opt, params, 1)
        sizes.append(sum(len(dict(x.dask)) for x in (params["W"], opt._parts.skipped.on_devices[0][2])))
        params = opt.persist(params)
        state = [x for entry in opt.cache.values() for x in entry.values() if isinstance(x, da.Array)]
        assert all(len(x.dask) == x.npartitions for x in (*params.values(), *state))
    assert len(set(sizes[1:])) == 1
    assert (opt.cur_step, opt.skipped, opt.cache["W"]["t"]) == (13, 0, 13)
    assert not [one for one in recwarn if "persist" in str(one.message)]


def test_a_graph_that_grows_for_ten_updates_is_told_of_once():
    opt, params = SGD(lr=0.1, momentum=0.9), {"W": da.from_array(VALUES, chunks=3)}
    params = walk(opt, params, 9)
    with pytest.warns(UserWarning, match=r"grown for 10 updates.*opt\.persist\(params\)") as told:
        params = walk(opt, params, 1)
    params = walk(opt, opt.persist(walk(opt, params, 3)), 9)
    assert len(told) == 1
    with pytest.warns(UserWarning, match="10 updates"):
        walk(opt, params, 1)


def test_what_is_persisted_is_a_checkpoint_like_any():
    opt = xpopt.RMSProp()
    params = opt.persist(walk(opt, {"W": da.from_array(VALUES.astype("f4"), chunks=4)}, 2))
    (row,) = opt.state_dict()["header"]["parameters"]
    assert (row["updates"], row["dtype"], row["shape"]) == (2, "float32", [6, 10])
    assert opt.copy().persist(params)["W"].compute().shape == (6, 10)


def test_arrays_of_other_libraries_are_refused_by_name():
    opt = Adam()
    params = walk(opt, {"W": VALUES}, 1)
    with pytest.raises(TypeError, match=r"Adam\.persist: params holds ndarray; wanted Dask arrays"):
        opt.persist(params)
    with pytest.raises(ValueError, match=r"Adam\.persist: every=0"):
        opt.persist({"W": da.zeros(3)}, every=0)


@pytest.fixture
def anchored(tmp_path):
    pytest.importorskip("zarr", reason="anchors need zarr")
    opt = Adam(nonfinite="skip", lr_scheduler="exponential")
    params = {"W": da.from_array(VALUES, chunks=((1, 4, 1), 3)), "b": da.zeros(()), "empty": da.zeros((0, 2))}
    for _ in range(7):
        params = opt.persist(walk(opt, params, 1), anchor=tmp_path, every=2)
    return opt, params, tmp_path


def test_an_anchor_is_where_graphs_begin(anchored):
    opt, params, folder = anchored
    assert sorted(path.name for path in folder.iterdir()) == ["4", "6"]
    again = Adam()
    like = {"W": da.zeros((6, 10), chunks=(2, 10)), "b": np.zeros(()), "empty": da.zeros((0, 2))}
    back = again.restore_anchor(folder, like)
    assert (again.cur_step, back["W"].chunks, type(back["b"])) == (6, like["W"].chunks, np.ndarray)
    assert again.cache["W"]["var"].chunks == like["W"].chunks
    new = walk(again, back, 1)
    for name, x in params.items():
        assert np.array_equal(*dask.compute(x, new[name]))
        assert np.array_equal(*dask.compute(opt.cache[name]["mean"], again.cache[name]["mean"]))
    assert again.persist(new, anchor=folder, every=1)["W"].compute().shape == (6, 10)
    assert "7" in {path.name for path in folder.iterdir()}


def test_an_anchor_follows_a_step_that_goes_back(anchored):
    """And is the newest one, though others are of later steps; also where a step comes that has an anchor."""
    opt, params, folder = anchored
    kept = []
    for step in (0, 5, 3):
        opt.cur_step = step
        for _ in range(2):
            params = opt.persist(walk(opt, params, 1), anchor=folder, every=4)
            kept.append({path.name for path in folder.iterdir()})
        again = Adam()
        assert np.array_equal(*dask.compute(params["W"], walk(again, again.restore_anchor(folder, params), 1)["W"]))
        assert again.cur_step == opt.cur_step
    assert kept == [{"6", "2-1"}] * 2 + [{"2-1", "2-6"}] * 2 + [{"2-6", "3-4"}] * 2


def test_a_folder_of_another_run_is_left_alone(anchored):
    _, params, folder = anchored
    opt = Adam()
    params = walk(opt, params, 1)
    with pytest.raises(ValueError, match=r"has an anchor of step 6.*restore_anchor"):
        opt.persist(params, anchor=folder)
    assert sorted(path.name for path in folder.iterdir()) == ["4", "6"]


def test_files_of_the_user_beside_anchors_stay(anchored, monkeypatch):
    opt, params, folder = anchored
    mine = [folder / "4" / "notes.txt", folder / "8.partial" / "notes.txt"]
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    monkeypatch.chdir(folder.parent)
    for _ in range(5):
        params = opt.persist(walk(opt, params, 1), anchor=folder.name, every=2)  # relative: the same folder
    assert sorted(path.name for path in folder.iterdir() if (path / "anchor.json").exists()) == ["10", "12"]
    assert sorted(path.parent.name for path in folder.rglob("notes.txt")) == ["4", "8"]


def test_a_folder_in_the_place_of_an_anchor_is_told(tmp_path):
    pytest.importorskip("zarr", reason="anchors need zarr")
    opt, params = xpopt.Adam(), {"W": da.ones((4,), chunks=2)}
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "weights").write_text("mine")
    params = walk(opt, params, 1)
    with pytest.raises(FileExistsError, match="wanted a folder for anchors only"):
        opt.persist(params, anchor=tmp_path, every=1)
    assert [path.name for path in tmp_path.rglob("*")] == ["1", "weights"]


def test_what_is_no_anchor_is_refused(anchored, tmp_path):
    opt, params, folder = anchored
    before = opt.cur_step
    with pytest.raises(FileNotFoundError, match="has no anchor"):
        opt.restore_anchor(tmp_path / "elsewhere", params)
    with pytest.raises(xpopt.CheckpointError, match=r"has the parameters 'W', 'b', 'empty', like has 'W'"):
        opt.restore_anchor(folder, {"W": params["W"]})
    (folder / "6" / "anchor.json").write_text("{}")
    with pytest.raises(xpopt.CheckpointError, match="damaged"):
        opt.restore_anchor(folder, params)
    assert opt.cur_step == before
