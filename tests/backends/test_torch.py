"""What is true of torch: nothing is recorded for gradients, and what cannot be written is found before anything is."""

from typing import Any, NamedTuple

import numpy as np
import pytest
from _kit.states import KING, advance, equal, every_optimizer, frozen, held, model, nothing_changes, same, train

import xpopt
from xpopt import SGD, Adam, OptimizerBase

pytestmark = pytest.mark.backends("torch")


@pytest.fixture
def torch():
    import torch

    return torch


def slots(opt):
    return [x for entry in opt.cache.values() for x in (entry.values() if isinstance(entry, dict) else [entry])]


@every_optimizer
def test_results_and_slots_require_no_gradient(torch, backend, make):
    for dtype in backend.dtypes:
        W = torch.nn.Parameter(backend.array([1.0, 2.0], dtype))
        g = backend.array([0.5, -0.5], dtype).requires_grad_()
        V = (W * 1.5).clone()  # no leaf
        opt, other = make(clip_norm=0.5), make(clip_norm=0.5)
        for name, x in [("W", W), ("V", V)]:
            for _ in range(2):
                got = opt.update(x, g, name)
                assert type(got) is torch.Tensor
                assert same(backend, got, other.update(x.detach(), g.detach(), name))
                assert not got.requires_grad
                assert got.is_leaf
        new = opt.update_all({"W": W, "V": V}, {"W": g, "V": None})
        assert not new["W"].requires_grad
        for slot in slots(opt):
            assert not isinstance(slot, torch.Tensor) or not slot.requires_grad
        assert torch.is_grad_enabled()
        assert W.requires_grad
        assert W.grad is None
        assert g.grad is None


@every_optimizer
def test_out_may_be_a_leaf_that_requires_a_gradient(torch, backend, make):
    """A training as torch's users write it: backward, then the step in place."""
    W = torch.nn.Parameter(backend.array([[1.0, 2.0, 3.0]] * 2))
    b = backend.array([1.0, 2.0, 3.0]).requires_grad_()
    opt, other = make(), make()
    want = {"W": W.detach().clone(), "b": b.detach().clone()}
    for _ in range(3):
        W.grad = b.grad = None
        ((W * W).sum() + (b**3).sum()).backward()
        params, grads = {"W": W, "b": b}, {"W": W.grad, "b": b.grad}
        want = other.update_all(want, grads)
        assert opt.update_all(params, grads, out=params) is params
        assert same(backend, [W.detach(), b.detach()], [want["W"], want["b"]])
        assert W.requires_grad
        assert W.is_leaf
        assert b.is_leaf
    assert opt.update(W, W.grad, "W", out=W) is W
    row = W[:1]  # a view of a leaf
    opt.update(row, torch.ones_like(row), "row", out=row)
    assert W.is_leaf


@every_optimizer
def test_in_inference_mode(torch, backend, make):
    opt, other = make(), make()
    params, grads = model(backend)
    with torch.inference_mode():
        got = opt.update_all(params, grads)
        got = opt.update_all(got, grads)
        assert torch.is_inference_mode_enabled()
    got = opt.update_all(got, grads)  # and on, outside of it
    want = other.update_all(other.update_all(other.update_all(params, grads), grads), grads)
    assert same(backend, got, want)
    assert same(backend, opt.cache, other.cache)


def test_out_that_only_inference_mode_may_write_is_refused_in_time(torch, backend):
    opt = Adam(lr_scheduler=KING)
    train(backend, opt, 5)
    params, grads = model(backend)
    with torch.inference_mode():
        closed = torch.ones(3, dtype=torch.float64)
    target = torch.zeros((2, 3), dtype=torch.float64)
    with nothing_changes(backend, opt, params, grads, target):
        with pytest.raises((ValueError, RuntimeError), match="'b'"):
            opt.update(params["b"], grads["b"], "b", 9.0, out=closed)
        with pytest.raises((ValueError, RuntimeError), match="'b'"):
            opt.update_all(params, grads, 9.0, out={"W": target, "b": closed})
    with torch.inference_mode():
        assert opt.update(params["b"], grads["b"], "b", 9.0, out=closed) is closed


def test_layouts_that_are_no_arrays_are_refused_by_name(torch, backend):
    opt = Adam()
    dense = backend.array([[1.0, 0.0], [0.0, 2.0]])
    bad = dense.to_sparse()
    with nothing_changes(backend, opt, dense):
        with pytest.raises(TypeError, match=r"gradient of 'W' .*sparse.*to_dense"):
            opt.update(dense, bad, "W")
        with pytest.raises(TypeError, match=r"parameter 'W' .*sparse.*to_dense"):
            opt.update(bad, dense, "W")
        with pytest.raises(TypeError, match=r"out of 'W' .*sparse.*to_dense"):
            opt.update(dense, dense, "W", out=bad)


def test_the_default_dtype_changes_nothing(torch, backend):
    for dtype in ("float32", "bfloat16"):
        results = []
        for default in (torch.float32, torch.float64):
            torch.set_default_dtype(default)
            try:
                opt = Adam(clip_norm=0.5)
                results.append(frozen(backend, [train(backend, opt, 2, dtype=dtype), opt.cache]))
            finally:
                torch.set_default_dtype(torch.float32)
        assert results[0] == results[1]


def test_broadcast_inputs_are_arrays_like_others(torch, backend):
    W, g = backend.array([1.0]).expand(2, 3), backend.array([[2.0]]).expand(2, 3)
    assert equal(backend, SGD(lr=0.5).update(W, g, "W"), np.zeros((2, 3)))


# Gradients that are not finite


def test_a_skipped_step_in_place_writes_nothing(torch, backend):
    """Not even the same values: what was saved for a backward pass stays valid."""
    opt = Adam(nonfinite="skip")
    W = torch.nn.Parameter(backend.array([1.0, 2.0]))
    bad, version = torch.full_like(W, float("nan")), W._version
    y = (W * W).sum()
    assert opt.update(W, bad, "W", out=W) is W
    assert opt.update_all([W], [bad], out=[W])[0] is W
    assert W._version == version
    y.backward()
    assert W.grad.tolist() == [2.0, 4.0]
    new = opt.update(W, bad, "W")
    assert not new.requires_grad
    assert equal(backend, new, [1.0, 2.0])
    with torch.inference_mode():
        opt.update(W, bad, "W")
    assert opt.skipped == 4


OPTIONS = [{}, {"master": True}, {"rounding": "stochastic"}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@every_optimizer
def test_a_device_is_never_waited_for(torch, backend, make, options):
    """Tensors without values: whoever asks for one gets an error."""
    for dtype in backend.dtypes:
        opt = make(nonfinite="skip", clip_norm=1.0, **options)
        params = {"W": torch.ones((3, 4), device="meta", dtype=backend.dtype(dtype))}
        params["none"] = params["W"][:0]
        for _ in range(2):
            params = opt.update_all(params, params)
            params["W"] = opt.update(params["W"], params["W"], "alone")
        opt.copy().explain(params)
        assert opt.cur_step == 2
        for asked in (lambda opt=opt: opt.skipped, lambda params=params: bool(params["W"][0, 0])):
            with pytest.raises((NotImplementedError, RuntimeError), match="meta"):
                asked()


@pytest.fixture
def device(torch, monkeypatch):
    """Take the processor for a device that works by itself; return what notes each time that it is waited for."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Waits(TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.count = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.count += function is torch.ops.aten._local_scalar_dense.default
            return function(*args, **(kwargs or {}))

    monkeypatch.setattr("xpopt._arrays.libraries.torch.Torch.is_lazy", lambda self, x: True)
    monkeypatch.setattr("xpopt._arrays.libraries.torch.Torch.on_host", lambda self, x, lasting=False: None)
    cpu = torch.Tensor.cpu
    waits = Waits()

    def counted(x, *args, **kwargs):
        waits.count += 1
        return cpu(x, *args, **kwargs)

    monkeypatch.setattr(torch.Tensor, "cpu", counted)
    with waits:
        yield waits


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@every_optimizer
def test_a_step_skipped_on_a_device_in_place(device, torch, backend, make, options):
    """What CUDA does, on the processor: `out` is written with what was there, and nobody waits until he asks."""
    for dtype in backend.dtypes:
        opt, other = (make(nonfinite=way, **options) for way in ("skip", "propagate"))
        values = [[1.0, -0.0, 6e-8], [float("inf"), -2.0, 0.0]]
        params = {"W": backend.array(values, dtype), "b": backend.array([1.0, 2.0, 3.0], dtype)}
        want = {name: x.clone() for name, x in params.items()}
        for step in range(3):
            _, grads = model(backend, dtype, scale=1 + step)
            assert opt.update_all(params, grads, out=params) is params
            want = other.update_all(want, grads)
            assert same(backend, params, want)
            bad, apart = {**grads, "b": grads["b"] / 0}, {name: torch.zeros_like(x) for name, x in params.items()}
            opt.update_all(params, bad, out=params)
            opt.update_all(params, bad, out=apart)
            assert device.count == 0
            assert same(backend, params, want)
            assert same(backend, apart, want)
            advance(other, 2)
        assert same(backend, opt.cache, other.cache)
        assert (opt.skipped, opt.cur_step) == (6, other.cur_step)
        assert device.count == 1
        device.count = 0


def test_raise_waits_once(device, torch, backend):
    opt = Adam(nonfinite="raise")
    x = backend.array([1.0, 2.0])
    for k in range(3):
        opt.update_all([x] * 5, [x] * 5)
        assert device.count == k + 1
    with pytest.raises(FloatingPointError, match=r"the gradient of 1, 3 \(2 of 5\)"):
        opt.update_all([x] * 5, [x, x / 0, x, x * float("nan"), x])
    assert device.count == 4
    opt.set_params({"nonfinite": "propagate"})
    opt.update_all([x] * 5, [x] * 5)
    assert device.count == 4


class One(NamedTuple):
    slot: Any


ALIASES = {
    "detach": lambda xp, p, g, s, h: (p - g, One(g.detach())),
    "data": lambda xp, p, g, s, h: (p - g, One(g.data)),
    "detach of the result": lambda xp, p, g, s, h: (lambda new: (new, One(new.detach())))(p - g),
    "view": lambda xp, p, g, s, h: (p - g, One(g.view(-1))),
    "slice": lambda xp, p, g, s, h: (p - g, One(g[:])),
    "numpy and back": lambda xp, p, g, s, h: (p - g, One(xp.from_dlpack(g))),
    "the parameter detached as result": lambda xp, p, g, s, h: (p.detach(), One(s.slot + g)),
    "untyped storage": lambda xp, p, g, s, h: (p - g, One(xp.empty(0, dtype=g.dtype).set_(g))),
}


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("inference", [False, True], ids=["no_grad", "inference_mode"])
@pytest.mark.parametrize("rule", ALIASES.values(), ids=ALIASES)
def test_results_that_share_memory_in_torchs_own_ways_are_taken_apart(torch, backend, rule, inference):
    class Local(OptimizerBase):
        slots = One

        def __init__(self, lr=0.5, clip_norm=None, lr_scheduler=None):
            super().__init__(lr, lr_scheduler, clip_norm=clip_norm)

    Local.rule = staticmethod(rule)
    opt = Local()
    with torch.inference_mode(inference):
        W, g = backend.array([1.0, 2.0]), backend.array([3.0, 5.0])
        new = opt.update(W, g, "W")
        results = frozen(backend, [new, opt.cache])
        W[...] = g[...] = 77.0
        assert frozen(backend, [new, opt.cache]) == results
        new[...] = 55.0
        assert frozen(backend, opt.cache) == results[1]


def test_a_loss_that_requires_a_gradient_is_read(torch, backend):
    opt = SGD(lr_scheduler=KING)
    W = backend.array([1.0]).requires_grad_()
    loss = (W * 2).sum()
    loss.backward()
    opt.update(W, W.grad, "W", loss.detach())
    opt.step()
    opt.update(W, W.grad, "W", loss.item())
    assert opt.lr_scheduler.state()["losses"] == [2.0, 2.0]


def test_the_state_survives_torchs_own_file_format(torch, backend, tmp_path):
    opt = Adam(lr_scheduler=KING)
    params = train(backend, opt, 3)
    torch.save(opt.cache, tmp_path / "cache.pt")
    again = Adam(lr_scheduler=KING)
    again.set_params(opt.hyperparameters, torch.load(tmp_path / "cache.pt"))
    again.cur_step = opt.cur_step
    assert frozen(backend, again.cache) == held(backend, opt)["cache"]
    opt.lr_scheduler = KING  # which starts over, as that of `again` did
    assert same(backend, train(backend, again, 1, params), train(backend, opt, 1, params))


# Memory that torch and NumPy share


def models_in_one_memory(torch):
    """A parameter of each library, each in the memory of the other's gradient; and copies in memory of their own."""
    a, b = torch.arange(4.0, dtype=torch.float64), np.array([8.0, 4.0, 2.0, 1.0])
    shared = {"t": a, "n": b}, {"t": torch.from_numpy(b), "n": a.numpy()}
    apart = {"t": a.clone(), "n": b.copy()}, {"t": torch.from_numpy(b).clone(), "n": a.numpy().copy()}
    return shared, apart


@pytest.mark.parametrize("first", ["t", "n"])
@pytest.mark.parametrize("engine", ["auto", "eager", "blocked"])
def test_a_gradient_in_the_memory_of_another_librarys_parameter(torch, backend, first, engine):
    """It is read before that parameter is written, as within one library."""
    (params, grads), (want, gradients) = models_in_one_memory(torch)
    order = sorted(params, key=lambda name: name != first)
    opt, other = Adam(lr=0.5), Adam(lr=0.5)
    params = {name: params[name] for name in order}
    with xpopt.engine(engine):
        opt.update_all(params, grads, out=params)
        want = other.update_all(want, gradients)
    assert params["t"].tolist() == want["t"].tolist()
    assert params["n"].tolist() == want["n"].tolist()
    for entry, wanted in zip(opt.cache.values(), map(other.cache.get, opt.cache), strict=True):
        assert entry["mean"].tolist() == wanted["mean"].tolist()


def test_outs_of_two_libraries_in_one_memory_are_refused_by_name(torch, backend):
    x = torch.ones(6, dtype=torch.float64)
    for out in (x.numpy(), x.numpy()[5:], x[:3].numpy()):
        ones = {"t": torch.ones(6, dtype=torch.float64), "n": np.ones(out.shape)}
        opt = Adam()
        with pytest.raises(ValueError, match=r"out of '[tn]' and out of '[tn]' share memory"):
            opt.update_all(ones, ones, out={"t": x, "n": out})
        assert opt.cache == {}
        assert x.tolist() == [1.0] * 6
    halves = {"t": x[:3], "n": x[3:].numpy()}
    SGD(lr=0.5).update_all(halves, {name: x * 1 for name, x in halves.items()}, out=halves)
    assert x.tolist() == [0.5] * 6


# Tensors that lie on several devices


@pytest.fixture
def distributed(torch):
    """A mesh of one process, which needs no network."""
    import torch.distributed
    from torch.distributed.device_mesh import DeviceMesh

    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield DeviceMesh("cpu", [0])
    torch.distributed.destroy_process_group()


def test_distributed_tensors_are_refused_by_name_and_their_local_parts_are_taken(torch, backend, distributed):
    from torch.distributed.tensor import Shard, distribute_tensor

    plain = torch.ones(4, dtype=torch.float64)
    tensor = distribute_tensor(plain.clone(), distributed, [Shard(0)])
    leaf = torch.nn.Parameter(tensor)
    opt = Adam()
    for param, grad, out in (
        (tensor, tensor, None),
        (leaf, tensor, None),
        (leaf, tensor, leaf),
        (plain, tensor, None),
        (tensor, plain, None),
        (plain, plain, tensor),
    ):
        for call in (
            lambda p=param, g=grad, o=out: opt.update(p, g, "W", out=o),
            lambda p=param, g=grad, o=out: opt.update_all({"W": p}, {"W": g}, out=None if o is None else {"W": o}),
        ):
            with (
                nothing_changes(backend, opt),
                pytest.raises(TypeError, match=r"is a DTensor.*DTensors\(opt, params\)"),
            ):
                call()
    assert opt.update_all({"b": plain, "W": leaf}, {"b": plain, "W": None})["W"] is leaf
    local = tensor.to_local()
    opt.update(local, plain, "W", out=local)
    assert equal(backend, tensor.full_tensor(), backend.numpy(Adam().update(plain, plain, "W")))
