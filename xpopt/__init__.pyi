# Written by tests/_kit/stubs.py from the table in xpopt/_names.py.
from . import checkpoint as checkpoint
from . import clipping as clipping
from . import config as config
from . import explain as explain
from . import optimizers as optimizers
from . import prox as prox
from . import schedulers as schedulers
from . import sharded as sharded
from . import sharpness as sharpness
from . import solvers as solvers
from . import stop as stop
from . import testing as testing
from . import transforms as transforms
from ._arrays.machine import default_namespace as default_namespace
from ._checkpoint.header import CheckpointError as CheckpointError
from ._engine.choice import engine as engine
from ._engine.pool import num_threads as num_threads
from ._graph.rule import Rule as Rule
from ._graph.slots import cols as cols
from ._graph.slots import one as one
from ._graph.slots import rows as rows
from ._graph.slots import slot as slot
from ._settings.ranges import Range as Range
from ._settings.setting import setting as setting
from ._solvers.result import Result as Result
from ._solvers.result import Row as Row
from ._solvers.solver import Solver as Solver
from ._version import __version__ as __version__
from .checkpoint import load_optimizer as load_optimizer
from .config import OptimizerInitializer as OptimizerInitializer
from .config import make_optimizer as make_optimizer
from .explain import kernel_source as kernel_source
from .optimizers.adabelief import AdaBelief as AdaBelief
from .optimizers.adadelta import Adadelta as Adadelta
from .optimizers.adafactor import Adafactor as Adafactor
from .optimizers.adagrad import AdaGrad as AdaGrad
from .optimizers.adam import Adam as Adam
from .optimizers.adamax import Adamax as Adamax
from .optimizers.adamw import AdamW as AdamW
from .optimizers.adan import Adan as Adan
from .optimizers.ademamix import AdEMAMix as AdEMAMix
from .optimizers.adopt import ADOPT as ADOPT
from .optimizers.amsgrad import AMSGrad as AMSGrad
from .optimizers.base import OptimizerBase as OptimizerBase
from .optimizers.dog import DoG as DoG
from .optimizers.fista import FISTA as FISTA
from .optimizers.ftrl import FTRL as FTRL
from .optimizers.lamb import LAMB as LAMB
from .optimizers.lars import LARS as LARS
from .optimizers.lion import Lion as Lion
from .optimizers.muon import Muon as Muon
from .optimizers.nadam import NAdam as NAdam
from .optimizers.novograd import NovoGrad as NovoGrad
from .optimizers.polyak_sgd import PolyakSGD as PolyakSGD
from .optimizers.prodigy import Prodigy as Prodigy
from .optimizers.radam import RAdam as RAdam
from .optimizers.rmsprop import RMSProp as RMSProp
from .optimizers.rprop import Rprop as Rprop
from .optimizers.schedule_free import ScheduleFreeAdamW as ScheduleFreeAdamW
from .optimizers.schedule_free import ScheduleFreeSGD as ScheduleFreeSGD
from .optimizers.sgd import SGD as SGD
from .optimizers.signum import Signum as Signum
from .optimizers.soap import SOAP as SOAP
from .optimizers.yogi import Yogi as Yogi
from .schedulers.base import SchedulerBase as SchedulerBase
from .schedulers.constant_scheduler import ConstantScheduler as ConstantScheduler
from .schedulers.exponential_scheduler import ExponentialScheduler as ExponentialScheduler
from .schedulers.king import KingScheduler as KingScheduler
from .schedulers.make import SchedulerInitializer as SchedulerInitializer
from .schedulers.make import make_scheduler as make_scheduler
from .schedulers.noam import NoamScheduler as NoamScheduler
from .sharpness import climb as climb
from .solvers.gradient_descent import GradientDescent as GradientDescent
from .solvers.lbfgs import LBFGS as LBFGS
from .solvers.minimize import minimize as minimize
from .solvers.nonlinear_cg import NonlinearCG as NonlinearCG
from .transforms.agc import AGC as AGC
from .transforms.average import EMA as EMA
from .transforms.average import SWA as SWA
from .transforms.base import Transform as Transform
from .transforms.lookahead import Lookahead as Lookahead
from .transforms.loss_scale import DynamicLossScale as DynamicLossScale
from .transforms.weight_decay import WeightDecay as WeightDecay

__all__ = [
    "ADOPT",
    "AGC",
    "EMA",
    "FISTA",
    "FTRL",
    "LAMB",
    "LARS",
    "LBFGS",
    "SGD",
    "SOAP",
    "SWA",
    "AMSGrad",
    "AdEMAMix",
    "AdaBelief",
    "AdaGrad",
    "Adadelta",
    "Adafactor",
    "Adam",
    "AdamW",
    "Adamax",
    "Adan",
    "CheckpointError",
    "ConstantScheduler",
    "DoG",
    "DynamicLossScale",
    "ExponentialScheduler",
    "GradientDescent",
    "KingScheduler",
    "Lion",
    "Lookahead",
    "Muon",
    "NAdam",
    "NoamScheduler",
    "NonlinearCG",
    "NovoGrad",
    "OptimizerBase",
    "OptimizerInitializer",
    "PolyakSGD",
    "Prodigy",
    "RAdam",
    "RMSProp",
    "Range",
    "Result",
    "Row",
    "Rprop",
    "Rule",
    "ScheduleFreeAdamW",
    "ScheduleFreeSGD",
    "SchedulerBase",
    "SchedulerInitializer",
    "Signum",
    "Solver",
    "Transform",
    "WeightDecay",
    "Yogi",
    "__version__",
    "climb",
    "cols",
    "default_namespace",
    "engine",
    "kernel_source",
    "load_optimizer",
    "make_optimizer",
    "make_scheduler",
    "minimize",
    "num_threads",
    "one",
    "rows",
    "setting",
    "slot",
]
