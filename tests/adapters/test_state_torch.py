"""Training that began with PyTorch's optimizer goes on with one of xpopt, and the other way."""

import contextlib

import numpy as np
import pytest

import xpopt

torch = pytest.importorskip("torch", reason="what is converted is PyTorch's")
pytestmark = pytest.mark.backends("torch")
from xpopt.adapters.state import from_torch, to_torch  # noqa: E402

SHAPES = {"w": (3, 2), "b": (2,), "n": ()}
GRADS = [{name: np.random.default_rng((3, k)).normal(size=shape) for name, shape in SHAPES.items()} for k in range(60)]
STARTS = {name: np.full(shape, 0.5) for name, shape in SHAPES.items()}
INSIDE = pytest.warns(UserWarning, match="the learning rate is part of velocity")
ROWS = [
    ("SGD", "SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    ("SGD", "SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.2, "maximize": True}),
    ("SGD", "SGD", {"lr": 0.1, "weight_decay": 0.1}),
    ("Adam", "Adam", {"lr": 0.05, "weight_decay": 0.1, "betas": (0.8, 0.95), "eps": 1e-3}),
    ("Adam", "AMSGrad", {"lr": 0.05, "amsgrad": True}),
    ("Adam", "AdamW", {"lr": 0.05, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("AdamW", "AdamW", {"lr": 0.05}),
    ("AdamW", "AMSGrad", {"lr": 0.05, "amsgrad": True}),
    ("NAdam", "NAdam", {"momentum_decay": 0.02}),
    ("NAdam", "NAdam", {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("Adamax", "Adamax", {"eps": 1e-3}),
    ("RMSprop", "RMSProp", {"alpha": 0.8}),
    ("RMSprop", "RMSProp", {"momentum": 0.5, "centered": True}),
    ("Adagrad", "AdaGrad", {"lr_decay": 0.1, "initial_accumulator_value": 0.2}),
    ("Adadelta", "Adadelta", {"rho": 0.8}),
    ("Rprop", "Rprop", {"etas": (0.4, 1.3), "step_sizes": (1e-4, 0.5)}),
]


@pytest.fixture(autouse=True)
def _in_float64():  # in which NAdam keeps its product of momenta, whatever the parameters are
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def tensors(values=STARTS):
    return {name: torch.nn.Parameter(torch.tensor(x)) for name, x in values.items()}


def train(optimizer, params, grads):
    for each in grads:
        for name, x in params.items():
            x.grad = torch.tensor(each[name])
        optimizer.step()


def far(params, others):
    return max(np.max(np.abs(np.asarray(params[name].detach()) - np.asarray(others[name]))) for name in others)


@pytest.mark.parametrize(("theirs", "ours", "settings"), ROWS)
def test_training_goes_on_in_both_directions(theirs, ours, settings):
    params = tensors()
    optimizer = getattr(torch.optim, theirs)(params.items(), **settings)
    train(optimizer, params, GRADS[:20])
    warned = "momentum" in settings and theirs == "RMSprop"
    with INSIDE if warned else contextlib.nullcontext():
        own = from_torch(optimizer)
    assert type(own).__name__ == ours
    assert own.cur_step == (20 if theirs != "SGD" else bool(settings.get("momentum")))
    values = {name: x.detach().numpy().copy() for name, x in params.items()}
    for grads in GRADS[20:40]:
        values = own.update_all(values, grads)
    train(optimizer, params, GRADS[20:40])
    assert far(params, values) < 1e-12
    again = tensors(values)
    with INSIDE if warned else contextlib.nullcontext():
        back = to_torch(own, again)
    train(back, again, GRADS[40:])
    train(optimizer, params, GRADS[40:])
    assert far(params, {name: x.detach() for name, x in again.items()}) < 1e-12


def test_a_velocity_with_the_rate_inside():
    own, values = xpopt.SGD(lr=0.5, momentum=0.9), dict(STARTS)
    for grads in GRADS[:5]:
        values = own.update_all(values, grads)
    params = tensors(values)
    with INSIDE:
        optimizer = to_torch(own, params)
    train(optimizer, params, GRADS[5:10])
    for grads in GRADS[5:10]:
        values = own.update_all(values, grads)
    assert far(params, values) < 1e-12


def test_groups_and_what_is_frozen():
    params = tensors()
    groups = [{"params": [params["w"]], "lr": 0.05}, {"params": [params["b"]], "weight_decay": 0.0, "lr": 0.1}]
    optimizer = torch.optim.AdamW(groups)
    train(optimizer, params, GRADS[:20])
    own = from_torch(optimizer)
    assert dict(own.groups) == {"1/*": {"lr": 0.1, "weight_decay": 0.0}}
    values = [{0: params["w"].detach().clone()}, {0: params["b"].detach().clone()}]
    for grads in GRADS[20:40]:
        values = own.update_all(values, [{0: torch.tensor(grads["w"])}, {0: torch.tensor(grads["b"])}])
    again = {(0, 0): torch.nn.Parameter(values[0][0]), (1, 0): torch.nn.Parameter(values[1][0])}
    back = to_torch(own, again)
    assert [group["weight_decay"] for group in back.param_groups] == [0.01, 0.0]
    train(optimizer, params, GRADS[20:])
    train(back, again, [{(0, 0): grads["w"], (1, 0): grads["b"]} for grads in GRADS[40:]])
    assert far({"w": again[0, 0], "b": again[1, 0]}, {name: params[name].detach() for name in ("w", "b")}) < 1e-12
    frozen = to_torch(xpopt.Adam(groups={"b": "freeze"}), tensors())
    assert [len(group["params"]) for group in frozen.param_groups] == [2]


def test_what_is_another_formula_is_told():
    w = torch.nn.Parameter(torch.ones(2))
    with pytest.raises(ValueError, match=r"RAdam of torch\.optim cannot be converted: its eps is added before"):
        from_torch(torch.optim.RAdam([w]))
    with pytest.raises(ValueError, match=r"Adafactor of torch\.optim cannot be converted: its learning rate"):
        from_torch(torch.optim.Adafactor([w]))
    with pytest.raises(TypeError, match=r"SGD; wanted one of torch\.optim"):
        from_torch(xpopt.SGD(lr=0.1))
    for optimizer, message in (
        (xpopt.Muon(others=xpopt.AdamW()), "not known to have the formula of Muon; wanted one of SGD"),
        (xpopt.Lion(), "not known to have the formula of Lion; wanted one of SGD"),
        (xpopt.Adam(eps_place="uncorrected", agc=0.1), r"the formula of Adam with eps_place='uncorrected', agc=0\.1"),
        (xpopt.Adam(weight_decay=0.1, l2=0.1), "the formula of Adam with"),
        (xpopt.Adam(lr=xpopt.schedulers.cosine(0.1, steps=5)), "the learning rate follows"),
        (xpopt.Adam(groups={"w": xpopt.SGD(lr=0.1)}), "has an optimizer of its own"),
    ):
        with pytest.raises(ValueError, match=message):
            to_torch(optimizer, {"w": w})


def test_the_state_of_another_model_is_told_with_every_reason():
    own = xpopt.Adam()
    own.update_all(STARTS, STARTS)
    with pytest.raises(
        ValueError, match=r"the model has no parameter 'b'; .* 'n'; 'w' has shape \(5,\), .* has \(3, 2\)"
    ):
        to_torch(own, {"w": torch.ones(5, requires_grad=True), "c": torch.ones(1, requires_grad=True)})


def test_names_of_two_parameters_and_none_at_all_are_told():
    models = [torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)]
    named = [pair for model in models for pair in model.named_parameters()]
    own = xpopt.Adam()
    with pytest.raises(ValueError, match=r"two parameters are named 'weight'.* wanted unique names"):
        from_torch(torch.optim.Adam(named))
    with pytest.raises(ValueError, match="two parameters are named 'weight'"):
        to_torch(own, iter(named))
    with pytest.raises(TypeError, match=r"wanted pairs \(name, tensor\), such as model\.named_parameters\(\)"):
        to_torch(own, models[0].parameters())
    kept = from_torch(torch.optim.Adam([(f"{k}/{name}", x) for k, (name, x) in enumerate(named)]))
    assert kept.lr == 0.001
