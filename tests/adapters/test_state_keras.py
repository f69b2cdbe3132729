"""Training that began with an optimizer of Keras goes on with one of xpopt, and the other way."""

import os
from types import SimpleNamespace

import numpy as np
import pytest

import xpopt
from xpopt.adapters.state import from_keras, to_keras

pytestmark = pytest.mark.backends("numpy", "torch")
GRADS = np.random.default_rng(4).normal(size=(60, 3))
OFF = {"name": "adam", "weight_decay": None, "clipnorm": None, "global_clipnorm": None, "clipvalue": None}
OFF |= {"use_ema": False, "ema_momentum": 0.99, "gradient_accumulation_steps": None, "loss_scale_factor": None}


class Adam:
    """Keras's Adam of one variable, in float64, with the layout that its files have."""

    name = "adam"

    def __init__(self, w):
        self.iterations = SimpleNamespace(value=0)
        self.w = SimpleNamespace(path="layer/w", shape=w.shape, dtype="float64", value=w)
        self.m, self.v = np.zeros_like(w), np.zeros_like(w)
        self._trainable_variables = [self.w]
        self.settings = {"learning_rate": 0.0625, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-3, "amsgrad": False}

    def get_config(self):
        return {**OFF, **self.settings}

    @property
    def variables(self):
        named = {"layer_w_momentum": self.m, "layer_w_velocity": self.v}
        return [SimpleNamespace(path=f"adam/{name}", value=x) for name, x in named.items()]

    def apply(self, grad):
        t = self.iterations.value + 1
        self.m = self.m + (grad - self.m) * (1 - 0.9)
        self.v = self.v + (grad * grad - self.v) * (1 - 0.999)
        alpha = 0.0625 * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        self.w.value = self.w.value - self.m * alpha / (np.sqrt(self.v) + 1e-3)
        self.iterations.value = t


def test_training_of_keras_goes_on():
    theirs = Adam(np.array([1.0, -2.0, 3.0]))
    for grad in GRADS[:20]:
        theirs.apply(grad)
    own, w = from_keras(theirs), theirs.w.value
    for grad in GRADS[20:40]:
        w = own.update_all({"layer/w": w}, {"layer/w": grad})["layer/w"]
        theirs.apply(grad)
    assert np.max(np.abs(w - theirs.w.value)) < 1e-12
    assert own.cur_step == 40


def test_what_is_another_formula_is_told():
    theirs = Adam(np.ones(2))
    theirs.settings |= {"amsgrad": True, "use_ema": True}
    with pytest.raises(ValueError, match=r"Adam of Keras cannot be converted with use_ema=True: .*; amsgrad=True"):
        from_keras(theirs)
    theirs.settings = {"learning_rate": {"class_name": "CosineDecay"}}
    with pytest.raises(ValueError, match="the learning rate of Adam follows a schedule, which is not converted"):
        from_keras(theirs)
    with pytest.raises(TypeError, match="wanted one of Keras, such as Adam"):
        from_keras(xpopt.Adam())
    adamax = type("Adamax", (Adam,), {})(np.ones(2))
    with pytest.raises(
        ValueError, match="Adamax of Keras cannot be converted: its epsilon is added to the running maximum"
    ):
        from_keras(adamax)


ROWS = [
    ("SGD", {"momentum": 0.9, "nesterov": True}),
    ("Adam", {"beta_1": 0.875, "beta_2": 0.96875}),  # Keras rounds settings to float32
    ("AdamW", {"weight_decay": 0.125, "beta_1": 0.875, "beta_2": 0.96875}),
    ("RMSprop", {"centered": True, "momentum": 0.5}),
    ("Nadam", {"beta_1": 0.875, "beta_2": 0.96875}),
    ("Adadelta", {}),
    ("Lion", {"clipvalue": 0.5}),
]


@pytest.mark.backends("torch")
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of its variables
@pytest.mark.parametrize(("kind", "settings"), ROWS)
def test_keras_itself_in_both_directions(kind, settings, monkeypatch):
    monkeypatch.setitem(os.environ, "KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras", reason="what is converted is an optimizer of Keras")
    torch = pytest.importorskip("torch")
    variable = keras.Variable(np.array([1.0, -2.0, 3.0]), dtype="float64", name="w")
    theirs = getattr(keras.optimizers, kind)(learning_rate=0.0625, **settings)

    def train(optimizer, variable, grads):
        for grad in grads:
            optimizer.apply([torch.tensor(grad)], [variable])

    train(theirs, variable, GRADS[:20])
    own, w = from_keras(theirs), variable.value.detach().numpy().copy()
    for grad in GRADS[20:40]:
        w = own.update_all({"w": w}, {"w": grad})["w"]
    train(theirs, variable, GRADS[20:40])
    assert np.max(np.abs(w - variable.value.detach().numpy())) < 1e-12
    other = keras.Variable(w, dtype="float64", name="w")
    train(to_keras(own, [other]), other, GRADS[40:])
    train(theirs, variable, GRADS[40:])
    assert np.max(np.abs(other.value.detach().numpy() - variable.value.detach().numpy())) < 1e-12
