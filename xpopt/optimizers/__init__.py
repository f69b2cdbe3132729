"""One file per published method, on one base."""

from .adagrad import AdaGrad
from .adam import Adam
from .base import OptimizerBase
from .rmsprop import RMSProp
from .sgd import SGD

__all__ = ["SGD", "AdaGrad", "Adam", "OptimizerBase", "RMSProp"]
