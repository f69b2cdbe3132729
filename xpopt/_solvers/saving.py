"""Solvers as headers and arrays, and in the files in which optimizers are kept."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from .._arrays.library import Library, is_complex, joined_in_numpy
from .._arrays.namespace import library_of
from .._arrays.parameter import dtype_text
from .._arrays.typing import Array
from .._checkpoint.header import FORMAT, CheckpointError, check_format, plain
from .._checkpoint.progress import Progress
from .._checkpoint.reading import header_and_arrays
from .._version import __version__
from .result import Row
from .solver import Solver, info_of


def state_dict(solver: Solver) -> dict[str, Any]:
    """Do what `Solver.state_dict` does."""
    data, arrays = solver._saved()
    common = {
        "kind": solver.kind,
        "parameters": solver._model.described(),
        "reason": solver._reason,
        "by_rule": solver._by_rule,
        "evaluations": solver._evaluations,
        "seconds": solver._seconds(),
    }
    header = {"format_version": FORMAT, "xpopt_version": __version__, "solver": {**common, **data}}
    history = np.array(solver._history, np.float64).reshape(-1, len(Row._fields))
    return {"header": plain(header, "the header"), "arrays": {**arrays, "history": history}}


def load_state_dict(solver: Solver, state: Mapping[str, Any]) -> None:
    """Do what `Solver.load_state_dict` does."""
    header, arrays = header_and_arrays(state)
    check_format(header)
    try:
        data = header["solver"]
        if data["kind"] != solver.kind:
            raise CheckpointError(f"the checkpoint is of {data['kind']}, and this is {solver.kind}")
        _check_parameters(data["parameters"], solver._model.described())
        become = solver._restored(data, arrays)
        history = [_row(line) for line in np.asarray(arrays["history"], np.float64).reshape(-1, len(Row._fields))]
        reason, evaluations, seconds = str(data["reason"]), int(data["evaluations"]), float(data["seconds"])
        by_rule = bool(data["by_rule"])
    except CheckpointError:
        raise
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise CheckpointError(f"no state of a solver, or a damaged one: {error!r}") from error
    if by_rule:  # this solver may have another one
        reason = solver._stop(info_of(history, evaluations, seconds))
        if not reason and solver._tells_again:
            history = history[:-1]
    become()
    solver._history, solver._evaluations, solver._reason = history, evaluations, reason
    solver._spent, solver._began, solver._by_rule = seconds, None, bool(reason) and by_rule


def save(solver: Solver, path: str | os.PathLike[str], progress: Progress) -> None:
    """Do what `Solver.save` does."""
    from .._checkpoint import file

    state = state_dict(solver)
    arrays = {}
    for key, x in state["arrays"].items():
        library = library_of(x)
        assert library is not None
        (arrays[key],) = library.to_numpy([x])
    file.write(path, state["header"], arrays, progress)


def load(solver: Solver, path: str | os.PathLike[str], progress: Progress) -> None:
    """Do what `Solver.load` does."""
    from .._checkpoint import file

    with file.naming(path):
        header, arrays = file.read(path, progress)
        load_state_dict(solver, {"header": header, "arrays": arrays})


def like_of(x: Any, like: Array, what: str) -> Array:
    """Return an array of a state as one of the library and on the device of another, which has its shape and dtype.

    Parameters
    ----------
    x : array
        Of that library, or of NumPy.
    like : array
        What it must agree with.
    what : str
        What it is, for the message.

    Returns
    -------
    array
        A copy.

    Raises
    ------
    CheckpointError
        It has another shape or dtype.
    """
    found, wanted = library_of(x), library_of(like)
    assert wanted is not None
    if is_complex(like.dtype) and isinstance(x, np.ndarray) and x.dtype.kind == "f" and x.shape[-1:] == (2,):
        x = joined_in_numpy(x)  # as files have it
    if found is None or tuple(x.shape) != tuple(like.shape) or dtype_text(x.dtype) != dtype_text(like.dtype):
        came = "no array" if found is None else f"{dtype_text(x.dtype)} of shape {tuple(x.shape)}"
        raise CheckpointError(f"{what} is {came} in the checkpoint, and {dtype_text(like.dtype)} of shape {like.shape}")
    return on_device(wanted, x, like)


def on_device(library: Library, x: Any, like: Array) -> Array:
    """Return a copy of an array, of the library and on the device of another one."""
    own = library_of(x)
    assert own is not None
    if own is library:
        return library.guard(library.copy)(x)
    (host,) = own.to_numpy([x])
    return library.guard(lambda like: library.from_numpy(host, like))(like)


def _check_parameters(saved: list[list[Any]], own: list[list[Any]]) -> None:
    """Raise where those of a state are not those of a solver."""
    names, others = ([one[0] for one in each] for each in (own, saved))
    if names != others:
        raise CheckpointError(
            f"parameters are {_few(others)} in the checkpoint, and {_few(names)} here; names and order must agree"
        )
    for (name, shape, dtype), (_, other_shape, other_dtype) in zip(own, saved, strict=True):
        if [*shape, dtype] != [*other_shape, other_dtype]:
            raise CheckpointError(
                f"{name} is {other_dtype} of shape {tuple(other_shape)} in the checkpoint, and {dtype} of shape "
                f"{tuple(shape)} here"
            )


def _few(names: list[str]) -> str:
    return ", ".join(names if len(names) <= 8 else [*names[:8], f"and {len(names) - 8} more"])


def _row(line: Any) -> Row:
    step, value, norm, rate, evaluations, best = map(float, line)
    return Row(int(step), value, norm, rate, int(evaluations), best)
