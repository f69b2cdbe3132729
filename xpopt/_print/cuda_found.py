"""What is known of each tensor before CUDA updates it, and the kernel that computes numbers of that."""

from __future__ import annotations

from collections.abc import Sequence
from string import Template
from typing import NamedTuple

from .._graph.node import TRUTHS, Graph
from .._graph.passes import Reduction
from .cuda_language import DTYPES, Stored, indented, language
from .cuda_text import ONES
from .loop import emit


class Launch(NamedTuple):
    """A kernel of a source, as it is launched.

    Parameters
    ----------
    kernel : str
        Its name.
    blocks : {"pieces", "tensors", "threads", "one"}
        A block for each piece or tensor, a thread for each tensor, or one block.
    takes : tuple of str
        Its arguments: ``table``, ``tensors``, ``proceed``; one of the arrays of `Found.widths`; what has been found of
        the model, by the name of the reduction; or ``said_`` and that name, where it goes.
    """

    kernel: str
    blocks: str
    takes: tuple[str, ...]


class Found(NamedTuple):
    """Kernels that find something.

    Parameters
    ----------
    text : str
        CUDA C.
    launches : list of Launch
        In their order.
    widths : dict of str to int
        How many numbers of each tensor, or of ``sums`` of each piece, lie in the arrays that they leave them in.
    asked : tuple of Reduction
        What is to be found of the whole model then.
    """

    text: str
    launches: list[Launch]
    widths: dict[str, int]
    asked: tuple[Reduction, ...] = ()


class Context(NamedTuple):
    """What the kernels of one source have in common.

    Parameters
    ----------
    dtype : str
        That of the parameters.
    slots : list of Stored
        How the slots but those of one number are stored.
    reductions : tuple of Reduction
        Of all passes.
    """

    dtype: str
    slots: list[Stored]
    reductions: tuple[Reduction, ...]

    @property
    def number(self) -> str:
        """The type of the arithmetic."""
        return DTYPES[self.dtype].number

    @property
    def wide(self) -> bool:
        """Whether that is double."""
        return self.dtype == "float64"

    @property
    def of_tensors(self) -> list[str]:
        """The names of what is found of each tensor, in the order of ``reduced``."""
        return [of.name for of in self.reductions if of.of_model is None]

    @property
    def of_model(self) -> list[str]:
        """The names of what is found of the model."""
        return [of.name for of in self.reductions if of.of_model is not None]

    def numbers(self, named: Sequence[tuple[str, str]], offset: int) -> list[str]:
        """Return the lines that read numbers of the step, behind so many others in the row of a tensor."""
        if not named:
            return []
        behind = f" + {offset}" if offset else ""
        row = f"const {self.number} *numbers = (const {self.number} *)(table.bytes + at.bytes_before){behind};"
        return [row, *self.constants(named, "numbers[{}]")]

    def constants(self, named: Sequence[tuple[str, str]], place: str) -> list[str]:
        """Return the lines that read numbers, each from its place; beside the name is what it is."""
        return [f"const {self.number} {name} = {place.format(k)};  // {what}" for k, (name, what) in enumerate(named)]


def find_ones(
    context: Context,
    graph: Graph,
    offset: int,
    count: int,
    *,
    kernel: str = "find_ones",
    reader: str = "its update",
    guarded: bool = False,
) -> Found:
    """Print what computes numbers of each tensor.

    Parameters
    ----------
    context : Context
        What the source has in common.
    graph : Graph
        From slots of one number, and what has been reduced, to numbers that meet arrays, and to new slots.
    offset : int
        How many numbers of the step come before those of this part.
    count : int
        How many of the outputs meet arrays.
    kernel, reader : str
        Its name, and what reads these.
    guarded : bool
        Whether it is decided on the device if slots are to change.

    Returns
    -------
    Found
        One kernel.
    """
    number, body = context.number, emit(graph, language(context.dtype))
    names = [str(node.value) for node in graph.inputs]
    of_model = [name for name in names if name in context.of_model]
    places = {name: k for k, name in enumerate(context.of_tensors)}
    own = [name for name, which in zip(body.inputs, names, strict=True) if which not in {*places, *of_model}]
    reads = [
        f"reduced[{len(places)}LL * tensor + {places[which]}]"
        if which in places
        else f"({number})*at_{name}"
        if which in of_model
        else f"*at.{name}"
        for name, which in zip(body.inputs, names, strict=True)
    ]
    values = [
        f"({value} ? 1 : 0)" if node.kind in TRUTHS else value
        for value, node in zip(body.outputs[:count], graph.outputs[:count], strict=True)
    ]
    each = [
        *context.numbers(body.numbers, offset),
        *(f"const {number} {name} = {read};" for name, read in zip(body.inputs, reads, strict=True)),
        *body.lines,
        *(f"ones[{count}LL * tensor + {k}] = {value};" for k, value in enumerate(values)),
    ]
    keep = [f"*at.{name} = {value};" for name, value in zip(own, body.outputs[count:], strict=False)]
    if keep and guarded:
        keep = ["if (*proceed) {", *(f"    {line}" for line in keep), "}"]
    pairs = zip(body.inputs, names, strict=True)
    answers = [f", const double *at_{name}" for name, which in pairs if which in of_model]
    reduced = ["reduced"] if places.keys() & names else []
    guard = ["proceed"] if guarded else []
    words = {
        "kernel": kernel,
        "reader": reader,
        "and_slots": ", and its new slots of one number" if keep else "",
        "number": number,
        "takes": "".join(f", const {number} *{name}" for name in reduced) + "".join(answers),
        "guard": ", const bool *proceed" if guarded else "",
        "each_one": indented(1, each),
        "keep_ones": indented(1, keep),
    }
    takes = ("table", "tensors", *reduced, *of_model, "ones", *guard)
    return Found(Template(ONES).substitute(words), [Launch(kernel, "threads", takes)], {"ones": count})
