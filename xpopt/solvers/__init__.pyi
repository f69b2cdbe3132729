# Written by tests/_kit/stubs.py from the table in xpopt/_names.py.
from .gradient_descent import GradientDescent as GradientDescent
from .lbfgs import LBFGS as LBFGS
from .linesearch import LineSearch as LineSearch
from .linesearch import armijo as armijo
from .linesearch import backtracking as backtracking
from .linesearch import constant as constant
from .linesearch import hager_zhang as hager_zhang
from .linesearch import strong_wolfe as strong_wolfe
from .minimize import minimize as minimize
from .nonlinear_cg import NonlinearCG as NonlinearCG

__all__ = [
    "LBFGS",
    "GradientDescent",
    "LineSearch",
    "NonlinearCG",
    "armijo",
    "backtracking",
    "constant",
    "hager_zhang",
    "minimize",
    "strong_wolfe",
]
