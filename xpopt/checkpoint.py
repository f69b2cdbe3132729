"""An optimizer from a file alone."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping

from ._arrays.typing import Tree
from ._checkpoint import file
from ._checkpoint.constants import with_arrays
from ._checkpoint.header import CheckpointError
from ._checkpoint.progress import Progress
from ._checkpoint.reading import from_json
from ._settings.constructor import takes
from ._settings.values import neutral_values
from .optimizers.base import OPTIMIZERS, OptimizerBase


def load_optimizer(
    path: str | os.PathLike[str],
    *,
    like: Tree | None = None,
    rename: Mapping[Hashable, Hashable] | None = None,
    cast: bool = False,
    progress: Progress = None,
) -> OptimizerBase:
    """Make the optimizer that a file describes: class, settings, schedule, step and state.

    Parameters
    ----------
    path : path-like
        What `OptimizerBase.save` wrote.
    like : container of arrays, optional
        The parameters, as for `OptimizerBase.load`.
    rename : mapping, optional
        New parameter names by old ones, as for `OptimizerBase.load_state_dict`.
    cast : bool
        Whether state is converted to the dtype that `like` asks for.
    progress : callable, bool or None
        As for `OptimizerBase.save`.

    Returns
    -------
    OptimizerBase
        Of the class named in the file, one of xpopt's or of your own that has been defined; nothing is imported or
        executed.

    Raises
    ------
    ImportError
        safetensors is not installed.
    FileNotFoundError, OSError
        There is no such file, or it cannot be read.
    CheckpointError
        The file is damaged or does not fit, or its class is not known.
    TypeError, ValueError
        An argument is of the wrong kind.

    Examples
    --------
    >>> import numpy as np
    >>> import tempfile
    >>> import xpopt
    >>> opt = xpopt.Adam(lr=0.1)
    >>> params = opt.update_all({"W": np.ones(2)}, {"W": np.ones(2)})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     opt.save(f"{folder}/opt.safetensors")
    ...     again = load_optimizer(f"{folder}/opt.safetensors", like=params)
    >>> again.cur_step, str(again) == str(opt)
    (1, True)
    """
    with file.naming(path):
        header, arrays = file.read(path, progress)
        found, _ = with_arrays(from_json(header, owned=True), arrays, [])
        cls = OPTIMIZERS.find(found.rule)
        if cls is None or cls.__name__ != found.rule:
            raise CheckpointError(f"unknown optimizer {found.rule!r}; import the module that defines it first")
        settings = neutral_values(cls) | found.settings
        keywords = {name: value for name, value in settings.items() if takes(cls, name)}
        try:
            opt = cls(**keywords)
        except (TypeError, ValueError) as error:
            raise CheckpointError(str(error)) from error
        opt._become(header, arrays, strict=True, rename=rename, like=like, cast=cast, owned=True)
        return opt
