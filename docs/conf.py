"""How Sphinx builds these pages."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

import xpopt
from xpopt._names import NAMES, apart

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from _kit.peers import FACTS
from _kit.schedule_peers import PEERS
from capabilities import capabilities
from inventory import inventory

project = "xpopt"
author = "the xpopt developers"
copyright = f"2026, {author}"  # noqa: A001 -- Sphinx's name
version = release = xpopt.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "matplotlib.sphinxext.plot_directive",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx-mathjax-offline",
    "sphinx_copybutton",
    "pages",  # beside this file
]
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

exclude_patterns = ["_build", "**.inc"]
templates_path = ["_templates"]
html_theme = "furo"
html_title = f"xpopt {release}"
html_logo = "_static/logo.svg"
html_favicon = "_static/logo.svg"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_search_scorer = str(Path(__file__).with_name("scorer.js"))

plot_formats = ["svg"]
plot_html_show_formats = False
plot_html_show_source_link = False

nitpicky = True
nitpick_ignore = [
    ("py:class", "abc.ABC"),
    ("py:class", "xpopt.schedulers._misuse.Guided"),
    ("py:class", "xpopt._settings.declared.Declared"),
    ("py:class", "xpopt._solvers.saved.Saved"),
    ("py:class", "xpopt._settings.value.Value"),
    ("py:class", "xpopt.schedulers.kinds.algebra.Algebra"),
    ("py:class", "xpopt.schedulers.kinds.base.Endless"),
    ("py:class", "xpopt.schedulers.kinds.composed.Composed"),
    ("py:class", "xpopt.schedulers.kinds.scheduled.Scheduled"),
    ("py:class", "xpopt.solvers._method.Method"),
    ("py:class", "xpopt._graph.rule.NoSlots"),
    ("py:class", "xpopt.transforms.average.Average"),
    ("py:class", "xpopt.transforms.loss_scale.LossScale"),
    ("py:class", "xpopt.prox.base.Proximal"),
    ("py:class", "xpopt.optimizers.fista.RisenState"),
]
default_role = "autolink"  # `Adam` in a docstring becomes a link,
nitpick_ignore_regex = [("py:obj", ".*")]  # and `eps` need not
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

# The docstrings state types in words; the annotations stay in the source.
autodoc_typehints = "none"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False


# What the API reference says under a heading, before its names.
REFERENCE = {
    "Clipping": "`clip_norm` of every optimizer bounds the norm of each gradient; these two are about a whole model.",
    "Checkpoints": "`state_dict`, `load_state_dict`, `save` and `load` are methods of every optimizer.",
    "An optimizer of your own": "Derive it from {class}`~xpopt.OptimizerBase`.",
    "Solvers": "`minimize` is the loop around a solver: see [the guide](guide/solvers.md).",
    "Line searches": "They are values, in the methods' setting `line_search`.",
    "When to stop": "They are values, joined with `|` and `&`.",
    "Schedules": "They are values of `lr_scheduler`: see [the guide](guide/schedules.md).",
    "Schedules as values": "They are values of any float among the settings: see [the guide](guide/schedules.md).",
    "Transforms": "They are options of every optimizer: see [the guide](guide/transforms.md).",
    "Proximal maps": "They are values of the option `prox`, and functions of an array: see [the guide](guide/prox.md).",
    "Beyond one machine": "For several processes: see [the guide](guide/beyond_one_machine.md).",
    "Checks of optimizers and hosts": "See [an optimizer of your own](guide/own_rule.md#test-it) and"
    " [embedding](guide/embedding.md#a-host-in-thirty-lines-and-its-checks).",
    "Engines": "{meth}`OptimizerBase.explain <xpopt.OptimizerBase.explain>` says which engine updates each parameter.",
}
# Names without a docstring of their own.
VALUES = {"__version__": "The version of xpopt, a string."}


def write_reference(app: Sphinx, config: Config) -> None:
    """Write `api.md` from the table of public names."""
    text = "\n".join(["# API reference", *(line for heading in NAMES for line in section(heading)), ""])
    page = Path(app.srcdir, "api.md")
    if not page.exists() or page.read_text() != text:
        page.write_text(text)


def write_tables(app: Sphinx, config: Config) -> None:
    """Write the tables of public names, and of other libraries' names and options, from what the suite tests."""
    tables = {"guide/peers.inc": peers_table(), "guide/schedule_peers.inc": schedules_table()}
    tables |= {f"guide/capabilities_{name}.inc": text for name, text in capabilities(link).items()}
    for name, text in {**tables, "inventory.inc": inventory(link)}.items():
        page = Path(app.srcdir, name)
        if not page.exists() or page.read_text() != text:
            page.write_text(text)


def peers_table() -> str:
    """Return a row for each fact."""
    rows = ["| here | there | the same? |", "| --- | --- | --- |"]
    for fact in FACTS:
        library = {"torch": "torch.optim", "optax": "optax"}[fact.library]
        ours, theirs = (", ".join(f"{name}={value!r}" for name, value in s.items()) for s in (fact.ours, fact.theirs))
        same = f"yes{'; ' * bool(fact.differs)}{fact.differs}" if fact.same else f"no: {fact.differs}"
        rows.append(f"| `{fact.optimizer.__name__}({ours})` | `{library}.{fact.name}({theirs})` | {same} |")
    return "\n".join([*rows, ""])


def schedules_table() -> str:
    """Return a row for each schedule of another library."""
    there = {"torch": "torch.optim.lr_scheduler", "optax": "optax"}
    rows = [f"| `{there[one.library]}.{one.theirs}` | `{one.ours}` | {one.differs} |" for one in PEERS]
    return "\n".join(["| there | here | what differs |", "| --- | --- | --- |", *rows, ""])


def link(name: str, module: str) -> str:
    """Return a link to the page of a public name."""
    shown = public(name, module)
    role = "class" if isinstance(attrgetter(shown)(xpopt), type) else "func"
    return f"{{{role}}}`~xpopt.{shown}`"


def section(heading: str) -> Iterator[str]:
    """Yield the lines of a section of the API reference."""
    yield from ("", f"## {heading}", "")
    if heading in REFERENCE:
        yield from (REFERENCE[heading], "")
    names = [public(name, module) for name, module in NAMES[heading].items()]
    yield from ("```{eval-rst}", ".. currentmodule:: xpopt", "")
    yield from (".. autosummary::", "   :toctree: api/generated", "   :nosignatures:", "")
    yield from (f"   {name}" for name in names if name not in VALUES)
    for name in VALUES.keys() & set(names):
        yield from ("", f".. data:: {name}", "", f"   {VALUES[name]}")
    yield "```"


def public(name: str, module: str) -> str:
    """Return how a name is reached from the package."""
    return f"{apart(module)}.{name}" if apart(module) else name


def check_coverage(app: Sphinx, env: BuildEnvironment) -> None:
    """Warn, and so fail the build, about each public name that the API reference has no page or no line for."""
    documented = env.domains.python_domain.objects
    warn = logging.getLogger(__name__).warning
    for name in (public(name, module) for names in NAMES.values() for name, module in names.items()):
        if f"xpopt.{name}" not in documented:
            warn("the API reference has no page for xpopt.%s", name)
        elif name not in VALUES and not attrgetter(name)(xpopt).__doc__:
            warn("xpopt.%s has no docstring, and so no line in the API reference", name)


def setup(app: Sphinx) -> None:
    """Register what is defined here."""
    app.connect("config-inited", write_reference)
    app.connect("config-inited", write_tables)
    app.connect("env-check-consistency", check_coverage)
