"""Muon: beside its polynomial of singular values in float64, and with another optimizer for what is no matrix."""

from __future__ import annotations

import functools
import math
import pickle
from typing import Any

import numpy as np
import pytest
from _kit.bits import normal, same_bits

import xpopt
from xpopt import AdamW, Muon

SHAPES = [(7, 5), (5, 7), (4, 4), (1, 6), (6, 1), (0, 3), (3, 0)]
on_numpy = pytest.mark.backends("numpy")


def orthogonal(matrix: Any, eps: float) -> Any:
    """The same singular vectors, and the polynomial of Newton and Schulz of each singular value."""
    u, values, v = np.linalg.svd(matrix, full_matrices=False)
    x = values / (math.sqrt(math.fsum(values**2)) + eps)
    for _ in range(5):
        x = 3.4445 * x - 4.7750 * x**3 + 2.0315 * x**5
    return (u * x) @ v


def steps(start: Any, grads: list[Any], *, lr=0.02, momentum=0.95, eps=1e-7, nesterov=True) -> list[Any]:
    """The parameter after each step."""
    x, mean, path = start, np.zeros_like(start), []
    rows, cols = start.shape
    for grad in grads:
        mean = momentum * mean + (1 - momentum) * grad
        direction = momentum * mean + (1 - momentum) * grad if nesterov else mean
        factor = lr * math.sqrt(max(1, rows / cols if cols else 1))
        x = x - factor * (orthogonal(direction, eps) if start.size else direction)
        path.append(x)
    return path


SETTINGS: list[dict[str, Any]] = [
    {},
    {"lr": 0.1, "momentum": 0.8, "eps": 0.25, "nesterov": False},
]


@on_numpy
@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_is_a_polynomial_of_singular_values(backend, shape, settings):
    rng = np.random.default_rng(1)
    x, *grads = (normal(rng, shape) for _ in range(6))
    opt = Muon(**settings)
    for grad, want in zip(grads, steps(x, grads, **settings), strict=True):
        x = opt.update(x, grad, "W")
        np.testing.assert_allclose(x, want, rtol=0, atol=1e-9)


def test_every_library_computes_it(backend):
    rng = np.random.default_rng(2)
    model = {f"{shape}": normal(rng, shape).astype(np.float32) for shape in ((7, 5), (5, 7))}
    grads = {name: [normal(rng, x.shape).astype(np.float32) for _ in range(3)] for name, x in model.items()}
    opt, params = Muon(), {name: backend.array(x) for name, x in model.items()}
    for k in range(3):
        params = opt.update_all(params, {name: backend.array(grads[name][k]) for name in model})
    for name, x in model.items():
        want = steps(x.astype(float), [grad.astype(float) for grad in grads[name]])[-1]
        np.testing.assert_allclose(backend.numpy(params[name]), want, rtol=0, atol=1e-5)


@on_numpy
@pytest.mark.parametrize("nesterov", [False, True])
def test_it_is_what_torch_computes_in_fewer_bits(backend, nesterov):
    """Torch iterates in bfloat16, whose roundings grow by the slope of the polynomial, 3.4 at 0."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(3)
    x, *grads = (normal(rng, (6, 4)) for _ in range(4))
    theirs = torch.nn.Parameter(torch.tensor(x))
    peer = torch.optim.Muon([theirs], lr=0.02, momentum=0.9, nesterov=nesterov, weight_decay=0.1)
    opt = Muon(lr=0.02, momentum=0.9, nesterov=nesterov, weight_decay=0.1)
    for grad in grads:
        x = opt.update(x, grad, "W")
        theirs.grad = torch.tensor(grad)
        peer.step()
    np.testing.assert_allclose(x, theirs.detach().numpy(), rtol=0, atol=3 * 0.02 * 0.05)


@on_numpy
def test_zeros_move_nothing_and_huge_gradients_are_as_any(backend):
    x, grad = np.ones((3, 2), np.float32), np.array([[3, 1], [0, 2], [1, 1]], np.float32)
    assert (Muon().update(x, 0 * x, "W") == x).all()
    want = steps(x.astype(float), [grad.astype(float)])[0]
    np.testing.assert_allclose(Muon().update(x, grad * np.float32(1e30), "W"), want, rtol=0, atol=1e-5)


@on_numpy
@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4)])
def test_what_is_no_matrix_is_refused_by_name(backend, shape):
    opt, x = Muon(), np.ones(shape)
    for update in (opt.update, lambda x, grad, name: opt.update_all({name: x}, {name: grad})):
        with pytest.raises(ValueError, match=r"2 axes, and 'enc' has shape .*groups=\{'enc': AdamW\(\)\}"):
            update(x, x, "enc")
    assert opt.cache == {}
    assert opt.cur_step == 0


@on_numpy
@pytest.mark.usefixtures("fused")
def test_another_optimizer_takes_the_rest(backend):
    """Unwarned, and after a copy, a file and a text as if there had been none."""
    rng = np.random.default_rng(4)
    make = functools.partial(normal, rng)
    params = {"W": make((4, 3)), "b": make((3,)), "embed": make((5, 2))}
    grads = {name: make(x.shape) for name, x in params.items()}
    opt = Muon(groups={"b": AdamW(lr=0.25, weight_decay=0.5), "embed": AdamW(lr=0.125)})
    alone = AdamW(lr=0.25, weight_decay=0.5), AdamW(lr=0.125), Muon()
    first = opt.update_all(params, grads)
    wanted = {
        name: one.update(params[name], grads[name], name) for name, one in zip(("b", "embed", "W"), alone, strict=True)
    }
    assert all(first[name].tobytes() == wanted[name].tobytes() for name in params)
    twins = [opt.copy(), xpopt.make_optimizer(str(opt))]
    twins[1].load_state_dict(opt.state_dict())
    second = opt.update_all(first, grads)
    for twin in twins:
        assert str(twin) == str(opt)
        again = twin.update_all(first, grads)
        assert all(again[name].tobytes() == second[name].tobytes() for name in params)


@on_numpy
def test_its_settings_may_be_schedules(backend):
    rng = np.random.default_rng(5)
    x, first, second = (normal(rng, (4, 3)) for _ in range(3))
    opt = Muon(lr=xpopt.schedulers.linear(0.5, 0.25, steps=1), momentum=xpopt.schedulers.linear(0.5, 0.75, steps=1))
    got = x
    for grad in (first, second):
        got = opt.update_all({"W": got}, {"W": grad})["W"]
    mean = 0.5 * first
    x = x - 0.5 * math.sqrt(4 / 3) * orthogonal(0.5 * mean + 0.5 * first, 1e-7)
    mean = 0.75 * mean + 0.25 * second
    x = x - 0.25 * math.sqrt(4 / 3) * orthogonal(0.75 * mean + 0.25 * second, 1e-7)
    np.testing.assert_allclose(got, x, rtol=0, atol=1e-9)


# Another optimizer for other shapes


def of_shapes(xp: Any = np) -> tuple[dict[Any, Any], list[dict[Any, Any]]]:
    """A model of matrices and others, nested, and three gradients."""
    rng = np.random.default_rng(6)
    shapes = {"embed": (4, 2), "in": {"W": (3, 4), "bias": (3,)}, "conv": (2, 3, 2, 2), "scale": (), "out": (5, 3)}

    def draw(of: Any) -> Any:
        return {k: draw(x) if isinstance(x, dict) else xp.asarray(normal(rng, x)) for k, x in of.items()}

    return draw(shapes), [draw(shapes) for _ in range(3)]


def flat(tree: Any) -> dict[Any, Any]:
    return {
        key if len(key) > 1 else key[0]: x
        for name, part in tree.items()
        for key, x in ([((name, k), v) for k, v in part.items()] if isinstance(part, dict) else [((name,), part)])
    }


def apart(*, lr_of_others: Any = 0.25) -> tuple[Muon, AdamW]:
    return Muon(lr=0.1), AdamW(lr=lr_of_others, weight_decay=0.5)


@on_numpy
@pytest.mark.parametrize("lr", [0.25, xpopt.schedulers.linear(0.25, 0.0, steps=3)], ids=["number", "schedule"])
def test_parameters_of_other_shapes_go_to_another_optimizer(backend, lr):
    """The bits of two optimizers, each with its parameters; in one step, and one by one."""
    params, grads = of_shapes()
    both, alone = Muon(lr=0.1, others=AdamW(lr=lr, weight_decay=0.5)), apart(lr_of_others=lr)
    single = both.copy()
    x, y = params, flat(params)
    wants = [{name: p for name, p in flat(params).items() if (p.ndim == 2) == which} for which in (True, False)]
    for grad in grads:
        x, g = both.update_all(x, grad), flat(grad)
        y = {name: single.update(p, g[name], name) for name, p in y.items()}
        single.step()
        wants = [opt.update_all(want, {k: g[k] for k in want}) for opt, want in zip(alone, wants, strict=True)]
        for name, want in {**wants[0], **wants[1]}.items():
            assert same_bits(flat(x)[name], want)
            assert same_bits(np.asarray(y[name]), np.asarray(want))
    assert {name: set(entry) for name, entry in both.cache.items()} == {
        name: {"t", "mean"} if p.ndim == 2 else {"t", "mean", "var"} for name, p in flat(params).items()
    }


GROUPS: dict[str, Any] = {"*/bias": {"weight_decay": 0.0}, "embed": "freeze", "o*": {"momentum": 0.5, "lr": 0.5}}


@on_numpy
def test_a_group_changes_what_each_of_the_two_knows(backend):
    params, (grad, *_) = of_shapes()
    opt = Muon(lr=0.1, others=AdamW(lr=0.25, weight_decay=0.5), groups={**GROUPS, "s*": {"lr": 1.0, "decay1": 0.5}})
    new, x, g = flat(opt.update_all(params, grad)), flat(params), flat(grad)
    assert same_bits(new["embed"], x["embed"])
    wants = {
        "out": Muon(lr=0.5, momentum=0.5),
        ("in", "W"): Muon(lr=0.1),
        ("in", "bias"): AdamW(lr=0.25, weight_decay=0.0),
        "conv": AdamW(lr=0.25, weight_decay=0.5),
        "scale": AdamW(lr=1.0, decay1=0.5, weight_decay=0.5),
    }
    for name, alone in wants.items():
        assert same_bits(np.asarray(new[name]), np.asarray(alone.update(x[name], g[name], "W")))
    rows = {row.name: (row.group, row.algorithm, row.lr) for row in opt.explain(params)}
    assert rows["out"] == ("o*", "Muon", 0.5)
    assert rows["in", "bias"] == ("*/bias", "AdamW", 0.25)
    assert rows["conv"] == ("others", "AdamW", 0.25)
    assert rows["in", "W"] == ("", "Muon", 0.1)


@pytest.mark.any_width
@pytest.mark.parametrize(
    "again",
    [
        lambda opt: opt.copy(),
        lambda opt: pickle.loads(pickle.dumps(opt)),
        lambda opt: loaded(Muon(), opt),
        lambda opt: loaded(Muon(others=xpopt.SGD(lr=1.0), groups={"x": {"lr": 0.5}}), opt),
    ],
    ids=["copy", "pickle", "loaded", "loaded over others"],
)
def test_both_go_on(backend, again):
    """From a state in the midst of two schedules."""
    lrs = (xpopt.schedulers.cosine(0.25, 0.0, steps=9), xpopt.schedulers.linear(0.25, 0.0, steps=9))
    params, grads = of_shapes(backend.xp)
    opt = Muon(lr=lrs[0], others=AdamW(lr=lrs[1]), groups=GROUPS)
    params = opt.update_all(params, grads[0])
    twin = again(opt)
    assert str(twin) == str(opt)
    assert twin.hyperparameters == opt.hyperparameters
    for grad in grads[1:]:
        x, y = (flat(one.update_all(params, grad)) for one in (opt, twin))
        assert all(same_bits(backend.numpy(x[name]), backend.numpy(y[name])) for name in x)


def loaded(opt: Muon, of: Muon) -> Muon:
    opt.load_state_dict(of.state_dict())
    return opt


@on_numpy
def test_text_and_settings_have_both(backend):
    opt = Muon(lr=0.5, others=AdamW(lr=0.25), groups=GROUPS)
    assert "others=AdamW(lr=0.25, " in str(opt)
    for given in (str(opt), opt.hyperparameters):
        assert str(xpopt.make_optimizer(given)) == str(opt)
    assert opt.hyperparameters["others"]["id"] == "AdamW"
    assert opt.others["lr"] == 0.25
    assert Muon().others is None
    assert "others" not in str(Muon())


@on_numpy
def test_settings_of_one_change_and_the_other_stays(backend):
    params, grads = of_shapes()
    schedule = xpopt.schedulers.linear(0.25, 0.0, steps=9)
    opt = Muon(lr=0.1, others=AdamW(lr=schedule), groups={"*/bias": {"weight_decay": 0.5}})
    params = opt.update_all(params, grads[0])
    opt.set_params({"lr": 0.5})
    opt.set_params({"groups": {"scale": {"lr": 1.0}}})
    rows = {row.name: (row.group, row.algorithm) for row in opt.explain(params)}
    assert (rows["scale"], rows["conv"]) == (("scale", "AdamW"), ("others", "AdamW"))
    assert opt.others["lr"] == str(schedule)
    twin = AdamW(lr=schedule)
    twin.cur_step = 1
    twin.set_params(cache_dict={"conv": opt.cache["conv"]})
    want = twin.update(params["conv"], grads[1]["conv"], "conv")
    new = opt.update_all(params, grads[1])
    assert same_bits(new["conv"], want)
    opt.set_params({"others": AdamW(lr=1e-3)})
    assert opt.others["lr"] == 1e-3
    assert dict(opt.groups) == {"scale": {"lr": 1.0}}
    before = str(opt)
    with pytest.raises(ValueError, match=r"cannot continue from the state of AdamW"):
        opt.set_params({"others": None})
    assert str(opt) == before


@on_numpy
def test_renamed_parameters_are_in_their_groups(backend):
    params, grads = of_shapes()
    opt = Muon(lr=0.1, others=AdamW(lr=0.25), groups={"in/bias": {"weight_decay": 0.5}})
    opt.update_all(params, grads[0])
    twin = Muon()
    twin.load_state_dict(opt.state_dict(), rename={("in", "*"): ("inner", "*")})
    assert dict(twin.groups) == {"inner/bias": {"weight_decay": 0.5}}
    assert set(twin.cache["inner", "bias"]) == {"t", "mean", "var"}


@on_numpy
def test_the_pure_form_has_both(backend):
    params, grads = of_shapes()
    opt = Muon(lr=0.1, others=AdamW(lr=0.25), groups=GROUPS)
    pure, x, y = opt.pure(), params, params
    slots = pure.init(params)
    for grad in grads:
        x = opt.update_all(x, grad)
        y, slots = pure.update(y, grad, slots, pure.numbers())
    for name, want in flat(x).items():
        np.testing.assert_allclose(flat(y)[name], want, rtol=1e-12)


@on_numpy
@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"others": "freeze"}, TypeError, r"Muon: others='freeze' is a str; wanted an optimizer, such as AdamW\(\)"),
        ({"others": AdamW}, TypeError, r"Muon: others=.* call it, AdamW\(\)"),
        ({"others": {"lr": 0.1}}, TypeError, r"Muon: others=.* wanted an optimizer"),
        ({"others": AdamW(groups={"x": "freeze"})}, ValueError, "an optimizer that has groups; give them to Muon"),
        ({"others": AdamW(nonfinite="skip")}, ValueError, r"Muon: others has nonfinite='skip'.* give it to Muon"),
        ({"others": AdamW(), "groups": {"b": {"decay3": 0.5}}}, TypeError, "takes no keyword 'decay3'"),
        ({"others": AdamW(), "groups": {"b": {"others": None}}}, TypeError, "has others, which is for all parameters"),
        ({"groups": {"b": {"decay1": 0.5}}}, TypeError, "takes no keyword 'decay1'"),
    ],
    ids=str,
)
def test_what_is_no_optimizer_for_other_shapes(backend, settings, error, message):
    with pytest.raises(error, match=message):
        Muon(**settings)


@on_numpy
def test_a_pattern_that_matches_no_parameter_of_either_is_an_error(backend):
    params, grads = of_shapes()
    opt = Muon(others=AdamW(), groups={"bais": {"lr": 0.5}})
    with pytest.raises(ValueError, match="the pattern 'bais' of groups matches no parameter"):
        opt.update_all(params, grads[0])
    with pytest.raises(ValueError, match=r"or all of other shapes, others=AdamW\(\)"):
        Muon().update(np.zeros(3), np.zeros(3), "b")


def behind(groups: list[Any]) -> None:
    groups[-1]["match"] = "another"


def twice(groups: list[Any]) -> None:
    groups.append(groups[2])


def lost(groups: list[Any]) -> None:
    groups.pop()


@on_numpy
@pytest.mark.parametrize("damage", [behind, twice, lost])
def test_a_damaged_header_is_refused(backend, damage):
    state = Muon(others=AdamW(), groups={"b": {"lr": 0.5}}).state_dict()
    damage(state["header"]["groups"])
    with pytest.raises(xpopt.CheckpointError, match="groups"):
        Muon().load_state_dict(state)


@on_numpy
def test_a_class_without_others_takes_none_from_a_file(backend):
    state = Muon(others=AdamW()).state_dict()
    state["header"]["rule"] = {"name": "SGD", "version": 1}
    state["header"]["groups"][0]["settings"] = xpopt.SGD().state_dict()["header"]["groups"][0]["settings"]
    with pytest.raises(xpopt.CheckpointError, match="SGD has no others, and the checkpoint has"):
        xpopt.SGD().load_state_dict(state)
