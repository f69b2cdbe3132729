"""Optimizers in the place of PyTorch's."""

import copy
import doctest
import io
import sys

import pytest

import xpopt
from xpopt.schedulers import cosine

torch = pytest.importorskip("torch", reason="what is adapted to is PyTorch's")
pytestmark = pytest.mark.backends("torch")
from xpopt.adapters.torch import Optimizer  # noqa: E402


def network():
    torch.manual_seed(3)
    layers = torch.nn.Linear(4, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1)
    return torch.nn.Sequential(*layers).double()


def train(model, optimizer, steps, scheduler=None):
    """Fit a plane; return the loss of the last step."""
    x = torch.linspace(-1, 1, 32, dtype=torch.float64).reshape(8, 4)

    def closure():
        optimizer.zero_grad()
        loss = ((model(x) - x.sum(1, keepdim=True)) ** 2).mean()
        loss.backward()
        return loss

    for _ in range(steps):
        loss = optimizer.step(closure)
        if scheduler is not None:
            scheduler.step()
    return loss


def far(model, other):
    return max(float((a - b).detach().abs().max()) for a, b in zip(model.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize(
    ("ours", "theirs", "settings"),
    [
        (xpopt.Adam(lr=0.01, eps=1e-8), "Adam", {"lr": 0.01}),
        ("SGD(lr=0.05, momentum=0.9, lr_inside=False)", "SGD", {"lr": 0.05, "momentum": 0.9}),
        ({"id": "RMSProp", "lr": 0.01, "decay": 0.99, "eps": 1e-8}, "RMSprop", {"lr": 0.01}),
    ],
)
def test_the_path_of_torch_under_its_scheduler(ours, theirs, settings):
    models = network(), network()
    optimizers = (
        Optimizer(models[0].parameters(), ours),
        getattr(torch.optim, theirs)(models[1].parameters(), **settings),
    )
    for model, optimizer in zip(models, optimizers, strict=True):
        train(model, optimizer, 50, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20))
    assert far(*models) < 1e-12
    assert optimizers[0].param_groups[0]["lr"] == optimizers[1].param_groups[0]["lr"]


def test_the_example():
    assert doctest.testmod(sys.modules[Optimizer.__module__]) == (0, 7)


def test_groups_of_torch():
    models = network(), network()
    for model, make in zip(
        models,
        (
            lambda groups: Optimizer(groups, "SGD(lr=0.05, lr_inside=False)"),
            lambda groups: torch.optim.SGD(groups, lr=0.05),
        ),
        strict=True,
    ):
        first, second = model[0].parameters(), model[2].parameters()
        optimizer = make([{"params": first, "momentum": 0.9, "lr": 0.1}])
        optimizer.add_param_group({"params": second})
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 4, 0.5)
        train(model, optimizer, 10, scheduler)
        assert [group["lr"] for group in optimizer.param_groups] == [0.025, 0.0125]
        assert [group["momentum"] for group in optimizer.param_groups] == [0.9, 0.0]
    assert far(*models) < 1e-12


def test_names_patterns_and_a_schedule_of_ours():
    model, bias = network(), network()[0].bias
    rate = cosine(0.1, 0.0, steps=10)
    optimizer = Optimizer(model.named_parameters(), xpopt.Adam(lr=rate, groups={"*bias": "freeze"}))
    train(model, optimizer, 3)
    assert list(optimizer.optimizer.cache) == [(0, "0.weight"), (0, "2.weight")]
    assert torch.equal(model[0].bias, bias)
    with pytest.raises(TypeError, match="lr follows a schedule"):
        optimizer.param_groups[0]["lr"] = 0.1
    with pytest.raises(ValueError, match="both the optimizer and params have groups"):
        optimizer.add_param_group({"params": [("more", torch.ones(2, requires_grad=True))]})
    assert len(optimizer.param_groups) == 1


def test_it_goes_on_from_a_file_and_from_a_copy():
    model = network()
    optimizer = Optimizer(model.named_parameters(), "Adam(lr=0.01)")
    optimizer.add_param_group({"params": [("idle", torch.ones(2, requires_grad=True))], "weight_decay": 0.1})
    train(model, optimizer, 5)
    optimizer.param_groups[1]["lr"] = optimizer.param_groups[0]["lr"] = 0.02
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved, other = torch.load(file, weights_only=True), network()
    loaded = Optimizer([*other.named_parameters()], "Adam")
    loaded.add_param_group({"params": [("idle", torch.ones(2, requires_grad=True))]})
    other.load_state_dict(saved["model"])
    loaded.load_state_dict(saved["optimizer"])
    twin, twins = copy.deepcopy((model, optimizer))
    for each in ((model, optimizer), (other, loaded), (twin, twins)):
        train(*each, 5)
    assert far(model, other) == far(model, twin) == 0.0
    assert [group["lr"] for group in loaded.param_groups] == [0.02, 0.02]


@pytest.mark.parametrize("grouped", [False, True])
def test_it_goes_on_from_an_optimizer_of_torch(grouped):
    model = network()
    named = [*model.named_parameters()]
    groups = [{"params": named[:2], "weight_decay": 0.1}, {"params": named[2:], "lr": 0.02}] if grouped else named
    theirs = torch.optim.AdamW(groups, lr=0.01)
    train(model, theirs, 5)
    optimizer, before = Optimizer.from_torch(theirs), copy.deepcopy(model.state_dict())
    assert optimizer.optimizer.cur_step == 5
    ends = []
    for each in optimizer, theirs:
        model.load_state_dict(before)
        for group in each.param_groups:
            group["lr"] /= 2
        train(model, each, 20)
        ends.append(copy.deepcopy(model))
    assert far(*ends) < 1e-12
    assert ends[0][0].weight.sub(before["0.weight"]).abs().max() > 1e-3


def test_a_state_of_another_model_changes_nothing():
    model = network()
    optimizer = Optimizer(model.parameters(), "Adam(lr=0.01)")
    train(model, optimizer, 2)
    state, w = optimizer.state_dict(), torch.ones((2, 2), requires_grad=True)
    other = Optimizer([w], "Adam(lr=0.5)")
    with pytest.raises(
        ValueError, match=r"its groups have the parameters \[4\], those of this optimizer have \[1\](.|\n)*shape"
    ) as caught:
        other.load_state_dict(state)
    assert "(0, 3)" in str(caught.value)
    with pytest.raises(TypeError, match="not a state dict of xpopt"):
        other.load_state_dict(torch.optim.Adam([w]).state_dict())
    assert (other.optimizer.lr, other.optimizer.cache, other.param_groups[0]["lr"]) == (0.5, {}, 0.5)


def test_writes_and_what_is_no_parameter_are_refused():
    w = torch.ones(2, requires_grad=True)
    optimizer = Optimizer([w], "SGD(lr=0.1)")
    for write in (lambda group: group.update(momentum=0.5), lambda group: group.__setitem__("momentum", 0.5)):
        with pytest.raises(TypeError, match="'momentum' of a group cannot be written, only 'lr' can"):
            write(optimizer.param_groups[0])
    w.grad = torch.ones(2)
    optimizer.param_groups[0]["lr"] = -1.0
    with pytest.raises(ValueError, match="lr"):
        optimizer.step()
    assert (w.tolist(), optimizer.optimizer.lr) == ([1.0, 1.0], 0.1)
    with pytest.raises(ValueError, match="non-leaf"):
        Optimizer([w * 2])
    kept = w * 2
    kept.retain_grad()
    with pytest.raises(ValueError, match="parameter 0 of group 0 is not a leaf"):
        Optimizer([kept])
    with pytest.raises(ValueError, match="two parameters are named 'w'"):
        Optimizer([("w", w), ("w", torch.ones(2, requires_grad=True))])
    with pytest.raises(TypeError, match="only optimize Tensors"):
        Optimizer([1.0])
    with pytest.raises(KeyError, match="rate"):
        Optimizer([{"params": [w], "rate": 1.0}])
    with pytest.raises(TypeError, match="is not an optimizer"):
        Optimizer([w], torch.optim.SGD([w], lr=0.1))


def test_settings_of_the_optimizer_inside_count():
    w = torch.zeros(1, requires_grad=True)
    w.grad = torch.ones(1)
    optimizer = Optimizer([w], "SGD(lr=1.0)")
    moved = []

    def step():
        before = w.item()
        optimizer.step()
        moved.append(before - w.item())

    step()
    optimizer.optimizer.set_params({"lr": 0.5})
    step()
    assert optimizer.param_groups[0]["lr"] == 0.5
    optimizer.param_groups[0]["lr"] = 0.25
    step()
    optimizer.optimizer.set_params({"lr": 2.0})
    twin = copy.deepcopy(optimizer)
    twin.step()
    assert twin.optimizer.lr == 2.0
    again = Optimizer([w], "SGD")
    again.load_state_dict(optimizer.state_dict())
    assert (again.param_groups[0]["lr"], again.optimizer.lr) == (2.0, 2.0)
    optimizer.optimizer.set_params({"lr": xpopt.schedulers.linear(4.0, 0.0, steps=4)})
    step()
    optimizer.param_groups[0]["lr"] = 0.125
    with pytest.raises(TypeError, match="lr follows a schedule of xpopt"):
        optimizer.step()
    assert moved == [1.0, 0.5, 0.25, 1.0]
