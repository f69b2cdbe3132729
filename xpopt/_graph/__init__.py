"""A rule as data: nodes, the tracer that makes them of a rule, and the interpreter that says what they mean."""

from .node import Graph, Node
from .products import products
from .reading import graph_of, read_again
from .trace import UntraceableError, trace

__all__ = ["Graph", "Node", "UntraceableError", "graph_of", "products", "read_again", "trace"]
