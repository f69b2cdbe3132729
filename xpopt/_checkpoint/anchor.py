"""Anchors: parameters and state of Dask as zarr arrays, which the workers write and read, chunk by chunk."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import uuid
from collections.abc import Hashable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .._arrays.namespace import library_of
from .._arrays.tree import show_all
from .._state.names import array_key, decode, encode
from .._state.parts import Parts
from .header import CheckpointError
from .save import take_down, to_host
from .writing import to_json

_HEADER = "anchor.json"
_FORMAT = 1
_KEPT = 2
"""How many anchors stay: what was read from the one before the last may still be in use."""


def write(parts: Parts, folder: Path, params: Mapping[Hashable, Any]) -> list[Any]:
    """Write an anchor.

    Parameters
    ----------
    parts : Parts
        The optimizer's.
    folder : Path
        Where the anchors are, each in a folder named by its step, and by its run once the step has gone back.
    params : mapping of hashable to array
        The parameters by name.

    Returns
    -------
    list of array
        The parameters, and the state in the order of `State.arrays`. Those of Dask are read from the files when they
        are wanted; others are as they were.
    """
    header, state = take_down(parts)
    names, arrays = list(params), [*params.values(), *state.values()]
    written = {"anchor": _FORMAT, "header": to_json(header), "params": list(map(encode, names)), "arrays": list(state)}
    there, step = anchors(folder), parts.clock.cur_step
    run = there[-1].run + (step <= there[-1].step) if there else 1
    final = folder / (str(step) if run == 1 else f"{run}-{step}")
    if final.exists():
        raise FileExistsError(
            f"{final} exists, and was not written by this optimizer; wanted a folder for anchors only"
        )
    partial = final.with_suffix(".partial")
    _remove(partial)
    partial.mkdir(parents=True, exist_ok=True)
    _store(partial, arrays)
    (partial / _HEADER).write_text(json.dumps(written), "utf-8")
    partial.rename(final)
    for old in anchors(folder)[:-_KEPT]:
        _remove(old.place)
    places = {id(x): k for k, x in enumerate(arrays)}
    wanted = [*params.values(), *parts.state.arrays()]
    return [_read(final, places[id(x)], x) if is_deferred(x) else x for x in wanted]


def read(folder: Path, params: Mapping[Hashable, Any]) -> tuple[Any, dict[str, Any], dict[Hashable, Any], int]:
    """Read the newest anchor.

    Parameters
    ----------
    folder : Path
        Where the anchors are.
    params : mapping of hashable to array
        Arrays like the parameters: of Dask, in the chunks that are wanted; others are read at once.

    Returns
    -------
    header : object
        As JSON has it.
    arrays : dict of str to array
        The state by key, as `OptimizerBase.state_dict` has it.
    params : dict of hashable to array
        The parameters by name.
    step : int
        Whose it is.

    Raises
    ------
    FileNotFoundError
        There is none.
    CheckpointError
        It is damaged, or of other parameters.
    """
    there = anchors(folder)
    if not there:
        raise FileNotFoundError(
            f"{folder} has no anchor; wanted the folder that was passed to persist(params, anchor=...)"
        )
    place = there[-1].place
    try:
        written = json.loads((place / _HEADER).read_text("utf-8"))
        header, keys = written["header"], list(written["arrays"])
        names = [decode(name) for name in written["params"]]
        slots = {decode(of["name"]): list(of["slots"]) for of in header["parameters"]}
        known = written["anchor"] == _FORMAT
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{place} is not an anchor, or is damaged: {error!r}") from None
    if not known:
        raise CheckpointError(f"{place} is an anchor of format {written['anchor']}; wanted {_FORMAT}")
    if set(names) != set(params):
        raise CheckpointError(
            f"{place} has the parameters {show_all(names)}, like has {show_all(params)}; wanted the same names"
        )
    like = {array_key(name, slot): params[name] for name in names for slot in slots.get(name, ())}
    found = [_read(place, k, x) for k, x in enumerate([*(params[name] for name in names), *map(like.get, keys)])]
    arrays = dict(zip(keys, found[len(names) :], strict=True))
    return header, arrays, dict(zip(names, found[: len(names)], strict=True)), there[-1].step


class Anchor(NamedTuple):
    """An anchor that has been written; the newest one is the largest."""

    run: int  # 1, and one more each time that the step went back
    step: int
    place: Path


def anchors(folder: Path) -> list[Anchor]:
    """Return the anchors in a folder, the newest one last."""
    names = ((one.parent, _NAME.fullmatch(one.parent.name)) for one in folder.glob(f"*/{_HEADER}"))
    return sorted(Anchor(int(name[1] or 1), int(name[2]), place) for place, name in names if name is not None)


_NAME = re.compile(r"(?:([0-9]+)-)?([0-9]+)")
"""The name of an anchor's folder: its run, unless that is the first, and its step."""


def is_deferred(x: Any) -> bool:
    """Whether `x` is an array that is computed later."""
    library = library_of(x)
    return library is not None and library.deferred


def _remove(place: Path) -> None:
    """Delete an anchor, or what there is of one, and no file of the user's beside its arrays."""
    (place / _HEADER).unlink(missing_ok=True)
    for one in place.iterdir() if place.is_dir() else ():
        if one.name.isdecimal() and any((one / name).exists() for name in ("zarr.json", ".zarray")):
            shutil.rmtree(one, ignore_errors=True)
    with suppress(OSError):
        place.rmdir()


def _zarr() -> Any:
    try:
        return importlib.import_module("zarr")
    except ImportError:
        raise ImportError("anchors are zarr arrays, and zarr is not installed: pip install zarr") from None


def _store(folder: Path, arrays: Sequence[Any]) -> None:
    """Write arrays, those of Dask by the workers, which write no file twice."""
    zarr, sources, targets = _zarr(), [], []
    for k, x in enumerate(arrays):
        lazy = is_deferred(x)
        whole: Any = _even(x) if lazy else next(iter(to_host({"": x}).values()))
        chunks = whole.chunksize if lazy else whole.shape
        target = zarr.create_array(
            folder / str(k),
            shape=whole.shape,
            dtype=whole.dtype,
            chunks=tuple(max(size, 1) for size in chunks),
            compressors=None,
        )
        if lazy and 0 not in whole.shape:
            sources.append(whole)
            targets.append(target)
        elif 0 not in whole.shape:
            target[...] = whole
    if sources:
        importlib.import_module("dask.array").store(sources, targets, lock=False)


def _even(x: Any) -> Any:
    """Return an array in chunks of one size, of which only the last along an axis may be smaller."""
    even = all(len({*of[:-1]}) < 2 and of[-1] <= of[0] for of in x.chunks)
    return x if even else x.rechunk(x.chunksize)


def _read(folder: Path, k: int, like: Any) -> Any:
    """Return an array from its file: of Dask where `like` is, and in its chunks if it has them."""
    path = folder / str(k)
    if not is_deferred(like):
        return np.asarray(_zarr().open_array(path, mode="r")[...])
    dask = importlib.import_module("dask.array")
    x = dask.from_zarr(str(path), name=f"xpopt-anchor-{uuid.uuid4().hex}")
    return x.rechunk(like.chunks) if x.shape == like.shape and x.chunks != like.chunks else x
