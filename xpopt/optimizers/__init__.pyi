# Written by tests/_kit/stubs.py from the table in xpopt/_names.py.
from .adabelief import AdaBelief as AdaBelief
from .adadelta import Adadelta as Adadelta
from .adafactor import Adafactor as Adafactor
from .adagrad import AdaGrad as AdaGrad
from .adam import Adam as Adam
from .adamax import Adamax as Adamax
from .adamw import AdamW as AdamW
from .adan import Adan as Adan
from .ademamix import AdEMAMix as AdEMAMix
from .adopt import ADOPT as ADOPT
from .amsgrad import AMSGrad as AMSGrad
from .base import OptimizerBase as OptimizerBase
from .dog import DoG as DoG
from .fista import FISTA as FISTA
from .ftrl import FTRL as FTRL
from .lamb import LAMB as LAMB
from .lars import LARS as LARS
from .lion import Lion as Lion
from .muon import Muon as Muon
from .nadam import NAdam as NAdam
from .novograd import NovoGrad as NovoGrad
from .polyak_sgd import PolyakSGD as PolyakSGD
from .prodigy import Prodigy as Prodigy
from .radam import RAdam as RAdam
from .rmsprop import RMSProp as RMSProp
from .rprop import Rprop as Rprop
from .schedule_free import ScheduleFreeAdamW as ScheduleFreeAdamW
from .schedule_free import ScheduleFreeSGD as ScheduleFreeSGD
from .sgd import SGD as SGD
from .signum import Signum as Signum
from .soap import SOAP as SOAP
from .yogi import Yogi as Yogi

__all__ = [
    "ADOPT",
    "FISTA",
    "FTRL",
    "LAMB",
    "LARS",
    "SGD",
    "SOAP",
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
    "DoG",
    "Lion",
    "Muon",
    "NAdam",
    "NovoGrad",
    "OptimizerBase",
    "PolyakSGD",
    "Prodigy",
    "RAdam",
    "RMSProp",
    "Rprop",
    "ScheduleFreeAdamW",
    "ScheduleFreeSGD",
    "Signum",
    "Yogi",
]
