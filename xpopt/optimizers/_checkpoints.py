"""What every optimizer can do with its state: hand it out, take it back, write it to a file and read it."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar
from typing import cast as typed

from .._arrays.namespace import copy_array, library_of
from .._arrays.typing import Tree
from .._checkpoint import CheckpointError, file
from .._checkpoint.load import LoadReport, load
from .._checkpoint.save import take_down
from .._step.exclusive import COPY, LOAD, SAVE

if TYPE_CHECKING:
    from .base import OptimizerBase


class Checkpoints:
    """The part of an optimizer that saves and restores it."""

    version: ClassVar[int] = 1
    """Raise it in a class whose slots or hyperparameters change their meaning: checkpoints of another are refused."""

    def state_dict(self, copy: bool = True) -> dict[str, Any]:
        """Return everything that the optimizer is set to and remembers, as plain data and arrays.

        Parameters
        ----------
        copy : bool
            Whether the arrays are copies. If not, they are the slots themselves, to be read only; updates leave them
            as they are.

        Returns
        -------
        dict
            ``"header"``, a dict of what JSON has: settings, schedule and its state, step, and of each parameter name,
            shape, dtype, count of updates and slots. ``"arrays"``, the slots by a flat name, each in the library and
            on the device of its parameter.

        Raises
        ------
        TypeError
            A parameter name, or what a schedule remembers, is of a kind that a checkpoint does not keep.
        ValueError
            The cache holds an entry of the wrong form.

        See Also
        --------
        load_state_dict, save
        """
        return typed("OptimizerBase", self)._turn.read(COPY, self._state_dict, copy)

    def _state_dict(self, copy: bool) -> dict[str, Any]:
        opt = typed("OptimizerBase", self)
        header, arrays = take_down(opt)
        if copy:
            arrays = {key: copy_array(x) for key, x in arrays.items()}
        else:
            opt._state.show()  # from now on the next update writes none of them
        return {"header": header.to_json(), "arrays": arrays}

    def load_state_dict(
        self,
        state: Mapping[str, Any],
        *,
        strict: bool = True,
        rename: Mapping[Hashable, Hashable] | None = None,
        like: Tree | None = None,
        cast: bool = False,
    ) -> LoadReport:
        """Become the optimizer that a state describes: its settings, schedule, step, and the state of each parameter.

        Parameters
        ----------
        state : mapping
            What `state_dict` returned; it is copied.
        strict : bool
            Whether a parameter that does not fit is an error. If not, it is left out, and starts from zeros at its next
            update. Another algorithm or version is always an error.
        rename : mapping, optional
            New parameter names by old ones, ``{"old*": "new*"}``: what ``*`` stands for is kept. In a tuple each string
            may have stars, and a last ``"*"`` stands for the rest of the tuple.
        like : container of arrays, optional
            The parameters, as `update_all` takes them: each state goes to the library and device of its parameter, and
            must agree with it in shape and dtype. Without it, state goes there at the parameter's first update.
        cast : bool
            Whether state is converted to the dtype that `like` asks for, where these differ.

        Returns
        -------
        LoadReport
            ``loaded``, the names of the parameters, and ``not_loaded``, why not by name; the latter is empty if
            `strict`.

        Raises
        ------
        CheckpointError
            The state is damaged or does not fit; every reason is listed, and nothing has changed.
        TypeError, ValueError
            An argument is of the wrong kind.

        See Also
        --------
        state_dict, load
        """
        options: dict[str, Any] = {"strict": strict, "rename": rename, "like": like, "cast": cast}
        opt = typed("OptimizerBase", self)
        return opt._turn.change(LOAD, lambda: load(opt, *_parts(state), **options, owned=False))

    def save(self, path: str | os.PathLike[str], *, progress: file.Progress = None) -> None:
        """Write what `state_dict` returns to a safetensors file.

        The file is complete or not there: it is written under another name, brought to the disk, and renamed. Whatever
        interrupts that, an older file stays as it was.

        Parameters
        ----------
        path : path-like
            Where to; an older file is replaced.
        progress : callable, bool or None
            ``progress(done_bytes, total_bytes)`` is called as the work goes on, the last time with both equal once the
            file is on the disk. True shows a line on stderr.

        Raises
        ------
        ImportError
            safetensors is not installed.
        OSError
            The file cannot be written; an older one is as it was.
        TypeError, ValueError
            As for `state_dict`.

        See Also
        --------
        load, xpopt.load_optimizer
        """
        typed("OptimizerBase", self)._turn.read(SAVE, self._save, path, progress)

    def _save(self, path: str | os.PathLike[str], progress: file.Progress) -> None:
        header, arrays = take_down(typed("OptimizerBase", self))
        file.write(path, header.to_json(), _on_host(arrays), progress)

    def load(
        self,
        path: str | os.PathLike[str],
        *,
        strict: bool = True,
        rename: Mapping[Hashable, Hashable] | None = None,
        like: Tree | None = None,
        cast: bool = False,
        progress: file.Progress = None,
    ) -> LoadReport:
        """Read a file that `save` wrote, and become the optimizer that it describes.

        Parameters
        ----------
        path : path-like
            The file.
        strict : bool
            As for `load_state_dict`, and so are the next three.
        rename : mapping, optional
            New parameter names by old ones.
        like : container of arrays, optional
            The parameters. Without them, the cache holds NumPy arrays until the first update of each parameter.
        cast : bool
            Whether state is converted to the dtype that `like` asks for.
        progress : callable, bool or None
            As for `save`.

        Returns
        -------
        LoadReport
            As for `load_state_dict`.

        Raises
        ------
        ImportError
            safetensors is not installed.
        FileNotFoundError, OSError
            There is no such file, or it cannot be read.
        CheckpointError
            The file is damaged or does not fit; every reason is listed, and nothing has changed.
        TypeError, ValueError
            An argument is of the wrong kind.

        See Also
        --------
        save, xpopt.load_optimizer
        """
        options: dict[str, Any] = {"strict": strict, "rename": rename, "like": like, "cast": cast}
        opt = typed("OptimizerBase", self)
        with file.naming(path):
            return opt._turn.change(LOAD, lambda: load(opt, *file.read(path, progress), **options, owned=True))


def _parts(state: Any) -> tuple[Any, Mapping[str, Any]]:
    if not isinstance(state, Mapping) or state.keys() != {"header", "arrays"}:
        raise CheckpointError("wanted what state_dict returns, a dict of 'header' and 'arrays'")
    if not isinstance(state["arrays"], Mapping):
        raise CheckpointError(f"'arrays' is a {type(state['arrays']).__name__}; wanted a dict of arrays")
    return state["header"], state["arrays"]


def _on_host(arrays: Mapping[str, Any]) -> dict[str, file.Host]:
    """Return arrays of any libraries as NumPy's, which may share their memory."""
    by_library: dict[Any, list[str]] = {}
    for key, x in arrays.items():
        by_library.setdefault(library_of(x), []).append(key)
    return {
        key: x
        for library, keys in by_library.items()
        for key, x in zip(keys, library.to_numpy([arrays[key] for key in keys]), strict=True)
    }
