"""State on disk: a file for each rank, and an index that says which file has which elements."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Hashable, Iterator, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from .._arrays.parameter import dtype_text
from .._arrays.tree import show, show_all
from .._checkpoint import file
from .._checkpoint.header import CheckpointError, Header, Parameter, Slot
from .._checkpoint.load import load as load_parts
from .._checkpoint.reading import from_json
from .._checkpoint.save import take_down, to_host
from .._checkpoint.writing import to_json
from .._graph.slots import one
from .._state.names import array_key, encode
from .._step.exclusive import LOAD, SAVE
from .._version import __version__
from ..optimizers.base import OPTIMIZERS, OptimizerBase
from ._agreement import Agreement
from ._model import Model
from ._processes import Processes

INDEX, FORMAT = "index.json", 1
_OF_A_RANK = re.compile(
    r"\d{9,}-[0-9a-f]{8}-\d{5,}-of-\d{5,}\.safetensors"
)  # other files in the folder belong to the user


def save(
    opt: OptimizerBase, model: Model, processes: Processes, agreement: Agreement, folder: str | os.PathLike[str]
) -> None:
    """Write the state of all ranks; as for `Sharded.save`."""
    rank, ranks, decide = processes.rank, processes.size, agreement.decide
    place = Path(folder)
    if rank == 0:
        place.mkdir(parents=True, exist_ok=True)
        _check_index(place / INDEX)
    decide([])
    token = processes.broadcast(os.urandom(4).hex(), 0)
    files = [f"{opt.cur_step:09d}-{token}-{one:05d}-of-{ranks:05d}.safetensors" for one in range(ranks)]

    def write() -> None:
        header, arrays = take_down(opt._parts)
        mine = [one for one in header.parameters if model.section(one.name).owns(one.name, rank)]
        keys = {array_key(one.name, slot) for one in header.parameters for slot in one.slots}
        keys -= {array_key(one.name, slot) for one in mine for slot in one.slots}
        header = dataclasses.replace(header, parameters=tuple(mine))
        arrays = {key: x for key, x in arrays.items() if key not in keys}
        file.write(place / files[rank], to_json(header), to_host(arrays), None)

    opt._exclusive.read(SAVE, write)
    decide([])
    if rank == 0:
        index = {"format": FORMAT, "xpopt_version": __version__, "files": files, "parameters": _described(model, ranks)}
        _replace(place / INDEX, json.dumps(index))
        for old in place.iterdir():
            if _OF_A_RANK.fullmatch(old.name) and old.name not in files:
                old.unlink(missing_ok=True)
    decide([])


def _check_index(path: Path) -> None:
    """Raise a FileExistsError if `save` would replace an index that it has not written."""
    if not path.exists():
        return
    try:
        index = json.loads(path.read_text())
        mine = index["xpopt_version"], index["files"]
    except (OSError, ValueError, TypeError, KeyError):
        mine = None
    if mine is None:
        raise FileExistsError(
            f"{path} is not the index of a checkpoint, and would be replaced; wanted a folder for checkpoints only"
        )


def _described(model: Model, ranks: int) -> list[dict[str, Any]]:
    """Return the entries of the index: for each parameter, which file has which of its elements."""
    found = []
    for name, spec in model.specs.items():
        section = model.section(name)
        pieces = [[rank, *section.piece(name, rank)] for rank in range(ranks) if section.owns(name, rank)]
        about = {"name": encode(name), "shape": list(spec.shape), "dtype": dtype_text(spec.dtype)}
        found.append({**about, "cut": section.cut, "pieces": pieces})
    return found


def _replace(path: Path, text: str) -> None:
    """Write a file atomically."""
    fresh = path.with_suffix(".new")
    with fresh.open("w") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    fresh.replace(path)
    file.sync_folder(path.parent)


def load(
    opt: OptimizerBase, model: Model, processes: Processes, agreement: Agreement, path: str | os.PathLike[str]
) -> None:
    """Read the share of this rank; as for `Sharded.load`."""
    with file.naming(path):
        files, pieces = _index(model, Path(path))
        sources = [_Source(one) for one in files]
        parameters, arrays = [], sources[0].settings()
        for name, of_files in pieces.items():
            found = _share(opt, model, processes.rank, name, of_files, sources)
            if found is not None:
                parameters.append(found[0])
                arrays.update(found[1])
        header = to_json(dataclasses.replace(sources[0].header, parameters=tuple(parameters)))
        like = {one.name: model.own[one.name] for one in parameters}

        def become() -> None:
            options: dict[str, Any] = {"strict": True, "rename": None, "like": like or None, "cast": False}
            parts, _ = load_parts(opt._parts, header, arrays, owned=True, find=OPTIMIZERS.find, **options)
            model.check_layout(parts.settings)
            agreement.decide([])
            opt._parts = parts

        opt._exclusive.change(LOAD, become)


Pieces = Sequence[tuple[int, int, int]]
"""The elements of a parameter in each file: the number of the file, the first element, and their count."""


def _index(model: Model, path: Path) -> tuple[list[Path], dict[Hashable, tuple[bool, Pieces]]]:
    """Return the files of a checkpoint, and for each parameter whether it is cut, and its pieces."""
    if path.is_file():  # of one optimizer
        return [path], {name: (False, [(0, 0, prod(spec.shape))]) for name, spec in model.specs.items()}
    text = (path / INDEX).read_text()
    try:
        index = json.loads(text)
        version = index["format"]
        if version != FORMAT:
            raise CheckpointError(f"{INDEX} has format {version!r}, and this xpopt reads {FORMAT}; update xpopt")
        found = {json.dumps(one["name"]): one for one in index["parameters"]}
        names = {json.dumps(encode(name)): name for name in model.specs}
        if found.keys() != names.keys():
            lacking = show_all(name for key, name in names.items() if key not in found)
            others = ", ".join(key for key in found if key not in names)
            raise CheckpointError(
                f"its parameters are others: it lacks {lacking or 'none'}, and this model lacks {others or 'none'}"
            )
        for key, name in names.items():
            shape, dtype = found[key]["shape"], found[key]["dtype"]
            spec = model.specs[name]
            if shape != list(spec.shape) or dtype != dtype_text(spec.dtype):
                raise CheckpointError(
                    f"{show(name)} is {dtype} with shape {tuple(shape)} in the checkpoint, and "
                    f"{dtype_text(spec.dtype)} with shape {spec.shape} here"
                )
        if any(Path(one).name != one for one in index["files"]):
            raise CheckpointError(f"{INDEX} refers to files outside of the folder")
        files = [path / one for one in index["files"]]
        pieces: dict[Hashable, tuple[bool, Pieces]] = {
            name: (found[key]["cut"], [(rank, at, count) for rank, at, count in found[key]["pieces"]])
            for key, name in names.items()
        }
    except CheckpointError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{INDEX} is damaged: {error!r}") from error
    return files, pieces


class _Source:
    """The file of a rank, from which slices are read."""

    def __init__(self, path: Path) -> None:
        safetensors = file.safetensors_module()
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist; wanted all files that {INDEX} refers to")
        with file.damage(safetensors.SafetensorError):
            self._file = safetensors.safe_open(path, framework="np")
            _, _, header = file.read_metadata(self._file.metadata() or {})
        self.header: Header = from_json(header, owned=True)
        self.parameters: dict[Hashable, Parameter] = {one.name: one for one in self.header.parameters}

    def settings(self) -> dict[str, Any]:
        """Return the arrays that are values of settings."""
        slots = {array_key(one.name, slot) for one in self.header.parameters for slot in one.slots}
        return {key: self._file.get_tensor(key) for key in set(self._file.keys()) - slots}

    def whole(self, name: Hashable, slot: str) -> Any:
        """Return a whole slot."""
        return self._file.get_tensor(array_key(name, slot))

    def elements(self, name: Hashable, slot: str, described: Slot, low: int, high: int) -> Any:
        """Return a range of the elements of a slot, in C order; pairs if it is complex."""
        shape, key = described.shape, array_key(name, slot)
        first, row = 0, prod(map(int, shape[1:]))
        if shape and 0 not in shape:
            first = min(low // row, shape[0] - 1)
            x = self._file.get_slice(key)[first : max(-(-high // row), first + 1)]  # safetensors has no empty slices
        else:
            x = self._file.get_tensor(key)
        return x.reshape(-1, *x.shape[len(shape) :])[low - first * row : high - first * row]


def _share(
    opt: OptimizerBase,
    model: Model,
    rank: int,
    name: Hashable,
    of_files: tuple[bool, Pieces],
    sources: Sequence[_Source],
) -> tuple[Parameter, dict[str, Any]] | None:
    """Return the state of a parameter that this rank keeps; None if there is none."""
    was_cut, pieces = of_files
    section, spec = model.section(name), model.specs[name]
    if not section.cut and not section.owns(name, rank):
        return None
    known = [(sources[k].parameters.get(name), sources[k], at, count) for k, at, count in pieces]
    if not known or known[0][0] is None:
        return None
    first = known[0][0]
    at, count = section.piece(name, rank)
    shape = tuple(model.own[name].shape)
    rule = opt._parts.settings.of(name, spec.shape).rule.of(dtype_text(spec.dtype), spec.shape)
    numbers = {slot for slot, stated in zip(rule.fields, rule.specs, strict=True) if stated.shape is one}
    arrays, slots = {}, {}
    for slot, described in first.slots.items():
        is_number = described.shape == () and (first.shape != () or slot in numbers)
        if is_number or (not was_cut and not section.cut):
            x, of_shape = known[0][1].whole(name, slot), described.shape
        elif described.shape != first.shape:
            raise CheckpointError(
                f"slot {slot!r} of {show(name)} has another shape than the parameter, and cannot be cut"
            )
        else:
            parts = list(_overlaps(known, name, slot, at, count))
            x = np.concatenate(parts) if parts else known[0][1].elements(name, slot, described, 0, 0)
            if len(x) != count:
                raise CheckpointError(
                    f"slot {slot!r} of {show(name)} has {len(x)} of {count} elements; the checkpoint is incomplete"
                )
            x, of_shape = x.reshape(*shape, *x.shape[1:]), shape
        arrays[array_key(name, slot)] = x
        slots[slot] = Slot(of_shape, described.dtype)
    return Parameter(name, shape, first.dtype, first.updates, slots), arrays


def _overlaps(known: Sequence[Any], name: Hashable, slot: str, at: int, count: int) -> Iterator[Any]:
    """Yield the parts of a range of elements of a slot that the files have, in order."""
    for parameter, source, start, size in sorted(known, key=lambda one: one[2]):
        low, high = max(at, start), min(at + count, start + size)
        if low < high and parameter is not None:
            yield source.elements(name, slot, parameter.slots[slot], low - start, high - start)
