"""What Sphinx makes of these pages beside what it does of itself: navigation, rules, examples, widths, search."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.ext.autosummary import autosummary_toc
from sphinx.util import logging

import xpopt

WIDEST = 88
"""Columns of code that a page shows without scrolling."""


FOUND = {
    "bounds": "guide/transforms",
    "checkpoint": "guide/checkpoints",
    "complex": "guide/complex",
    "early stopping": "guide/solvers",
    "global norm": "guide/clipping",
    "gradient clipping": "guide/clipping",
    "l-bfgs": "guide/solvers",
    "learning rate schedule": "guide/schedules",
    "mixed precision": "guide/precision",
    "momentum": "guide/methods",
    "parameter groups": "guide/groups",
    "weight decay": "guide/transforms",
}
"""The page that a search finds first, by main entries of the index, which it puts before all else."""


class Rules(Directive):
    """The rules of an optimizer's class as its source has them, without annotations."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return a block of code."""
        text = "\n\n".join(source(rule) for rule in rules(getattr(xpopt, self.arguments[0])))
        block = nodes.literal_block(text, text, language="python", classes=["rules"])
        return [nodes.rubric("", "What runs"), block]


def rules(cls: type) -> list[Callable[..., Any]]:
    """Return the rules that a class or its bases state, and the numbers that they take from the host."""
    static = inspect.getmembers_static(cls, lambda member: isinstance(member, staticmethod))
    found = [member.__func__ for name, member in static if name == "scalars" or name.endswith("rule")]
    return sorted(
        (one for one in found if one.__qualname__ != "OptimizerBase.scalars"),
        key=lambda one: (one.__name__ != "rule", inspect.getsourcelines(one)[1]),
    )


def source(function: Callable[..., Any]) -> str:
    """Return the source of a function, whose head has the names of its arguments alone."""
    lines = textwrap.dedent(inspect.getsource(function)).splitlines()
    body = ast.parse("\n".join(lines)).body[0].body[0].lineno - 1
    return "\n".join([f"def {function.__name__}({', '.join(inspect.signature(function).parameters)}):", *lines[body:]])


def leave_out_of_navigation(app: Sphinx, doctree: nodes.document) -> None:
    """Keep the pages of single names out of the navigation, which each page would have to show whole."""
    for node in list(doctree.findall(autosummary_toc)):
        node.parent.remove(node)


def share_navigation(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Render the navigation once for all pages of single names: none of them is in it."""
    if page.startswith("api/generated/"):
        made, toctree = app.env.temp_data.setdefault("navigation", {}), context["toctree"]

        def once(**options: Any) -> str:
            key = str(options)
            if key not in made:
                made[key] = toctree(**options)
            return made[key]

        context["toctree"] = once


def trim_examples(app: Sphinx, doctree: nodes.document) -> None:
    """Leave out the empty line at the end of an example, which doctest needs and a reader does not."""
    for block in doctree.findall(nodes.literal_block):
        if block.rawsource == block.astext():  # else it has markup inside, and is no example
            block.rawsource = text = block.rawsource.rstrip()
            block.children = [nodes.Text(text)]


def check_widths(app: Sphinx, doctree: nodes.document) -> None:
    """Warn, and so fail the build, about code that a page is too narrow for."""
    for block, line in too_wide(doctree):
        logging.getLogger(__name__).warning("%d columns of code: %s", len(line), line.strip(), location=block)


def too_wide(doctree: nodes.document) -> Iterator[tuple[nodes.Node, str]]:
    """Yield the lines of code that are too long, each with its block."""
    for block in doctree.findall(lambda node: isinstance(node, nodes.literal_block) and "rules" not in node["classes"]):
        yield from ((block, line) for line in block.astext().splitlines() if len(line) > WIDEST)


def check_search(app: Sphinx, env: BuildEnvironment) -> None:
    """Warn, and so fail the build, about words of which a search does not find the page first."""
    entries = env.domains.index_domain.entries
    pages: dict[str, list[str]] = {}
    for page, of_page in entries.items():
        for _, text, _, main, _ in of_page:
            if main == "main":
                pages.setdefault(text.lower(), []).append(page)
    for words, page in FOUND.items():
        if pages.get(words) != [page]:
            warn = logging.getLogger(__name__).warning
            warn("a search for %r finds %s first; wanted %s", words, pages.get(words, "any page"), page)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register what is defined here."""
    app.extensions["sphinx-mathjax-offline"].parallel_read_safe = True  # it copies files, and does not say so
    app.add_directive("rules", Rules)
    app.connect("doctree-read", leave_out_of_navigation, priority=400)  # before Sphinx looks for what is in it
    app.connect("doctree-read", trim_examples)
    app.connect("doctree-read", check_widths, priority=600)
    app.connect("env-check-consistency", check_search)
    app.connect("html-page-context", share_navigation, priority=400)  # before the theme asks
    return {"parallel_read_safe": True, "parallel_write_safe": True}
