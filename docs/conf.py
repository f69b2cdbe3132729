"""How Sphinx builds these pages."""

from __future__ import annotations

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

import xpopt

project = "xpopt"
author = "the xpopt developers"
copyright = f"2026, {author}"  # noqa: A001 -- Sphinx's name
version = release = xpopt.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build"]
templates_path = ["_templates"]
html_theme = "furo"
html_title = f"xpopt {release}"

nitpicky = True
nitpick_ignore = [
    ("py:class", "abc.ABC"),
    ("py:class", "xpopt.schedulers._misuse.Guided"),
]
default_role = "autolink"  # `Adam` in a docstring becomes a link,
nitpick_ignore_regex = [("py:obj", ".*")]  # and `eps` need not
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

# The docstrings state types in words; the annotations stay in the source.
autodoc_typehints = "none"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False


def check_coverage(app: Sphinx, env: BuildEnvironment) -> None:
    """Warn, and so fail the build, about each public name that the API reference leaves out."""
    documented = env.domains.python_domain.objects
    missing = sorted(name for name in xpopt.__all__ if f"xpopt.{name}" not in documented)
    if missing:
        logging.getLogger(__name__).warning("public names missing from docs/api.md: %s", ", ".join(missing))


def trim_examples(app: Sphinx, doctree: nodes.document) -> None:
    """Leave out the empty line at the end of an example, which doctest needs and a reader does not."""
    for block in doctree.findall(nodes.literal_block):
        if block.rawsource == block.astext():  # else it has markup inside, and is no example
            block.rawsource = text = block.rawsource.rstrip()
            block.children = [nodes.Text(text)]


def setup(app: Sphinx) -> None:
    """Register what is defined here."""
    app.connect("env-check-consistency", check_coverage)
    app.connect("doctree-read", trim_examples)
