"""Tensors of the CPU on the engines that fuse: eager NumPy's bits, and torch's rules of what is written."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from _kit.bits import cast, compare, dtype_of, normal, same_bits
from _kit.engines import FEW, MAKE, Two, of_rule

import xpopt
from xpopt._arrays.namespace import library_of

pytestmark = pytest.mark.backends("torch")

DTYPES = ("float32", "bfloat16", "float64", "float16")
ROWS = [(name, DTYPES[k % 4]) for k, name in enumerate(FEW)]
SHAPES = [(), (7,), (3, 5), (0,), (4097,)]


@pytest.fixture
def torch():
    import torch

    return torch


def tensor(x: Any) -> Any:
    """Return an array of NumPy as a tensor of its own, in the same order of memory."""
    import torch

    x = x.copy(order="K")
    return (
        torch.from_numpy(x.view(np.int16)).view(torch.bfloat16) if x.dtype.name == "bfloat16" else torch.from_numpy(x)
    )


def host(x: Any) -> Any:
    """Return tensors in containers as arrays of NumPy."""
    import torch

    if isinstance(x, Mapping):
        return {key: host(value) for key, value in x.items()}
    if not isinstance(x, torch.Tensor):
        return x
    x = x.detach().contiguous()
    return x.view(torch.int16).numpy().view(dtype_of("bfloat16")) if x.dtype is torch.bfloat16 else x.numpy()


@pytest.mark.parametrize(("name", "dtype"), ROWS, ids=str)
def test_bits_are_eager_numpys(torch, backend, fused, name, dtype):
    compare(MAKE[name], SHAPES, dtype, 3, layout=tensor, back=host)


@pytest.mark.parametrize(
    "options", [{"clip_norm": 0.5}, {"weight_decay": 0.1, "bounds": (-1, 1)}, {"nonfinite": "skip"}]
)
def test_bits_are_eager_numpys_with_transforms(torch, backend, fused, options):
    compare(lambda: xpopt.Adam(lr=0.1, **options), SHAPES, "float32", 2, layout=tensor, back=host)


def test_bits_are_eager_numpys_where_rules_ask_for_the_model(torch, backend, fused):
    def rule(xp: Any, param: Any, grad: Any, s: Any, h: Any) -> Any:
        fast = 0.5 * s.fast + grad / (1 + h.model.norm(grad))
        return param - h.lr * fast * xp.max(xp.abs(grad)), Two(fast, s.slow + h.model.sum(param))

    make, shapes = of_rule(rule), [(7,), (3, 5), (4097,)]
    rng = np.random.default_rng(5)
    start = {shape: cast(normal(rng, shape), "float32") for shape in shapes}
    grads = {shape: cast(normal(rng, shape), "float32") for shape in shapes}
    ours, theirs = make(), make()
    want, got = start, {name: tensor(x) for name, x in start.items()}
    for _ in range(3):
        want = theirs.update_all(want, grads)
        got = ours.update_all(got, {name: tensor(x) for name, x in grads.items()})
        assert same_bits(want, host(got))
    assert {row.engine for row in ours.explain(got)} == {fused}


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_bits_of_complex_tensors_are_eager_numpys(torch, backend, fused, dtype):
    def draw(rng: Any, shape: Any) -> Any:
        return normal(rng, (*shape, 2)) @ np.array([1, 1j])

    compare(lambda: xpopt.Adam(lr=0.1), [(), (7,), (3, 5), (4097,)], dtype, 3, draw, tensor, host)


def test_tensors_in_the_other_order_of_memory(torch, backend, fused):
    compare(lambda: xpopt.Adam(lr=0.1), [(3, 5), (70, 90)], "float32", 3, layout=lambda x: tensor(x.T).T, back=host)
    (row,) = xpopt.Adam().explain([tensor(np.ones((5, 3), np.float32)).T])
    assert row.engine == fused


@pytest.mark.any_engine
def test_it_says_who_updates_what(torch, backend):
    x = torch.ones(4, 4)
    conjugate = torch.ones(4, dtype=torch.complex64).conj()
    rows = xpopt.Adam().explain(
        {
            "plain": x,
            "leaf": torch.nn.Parameter(x.clone()),
            "number": torch.ones(()),
            "strided": x[:, ::2],
            "conjugate": conjugate,
            "negative": conjugate.imag,
            "subclass": torch.ones(3).as_subclass(type("Own", (torch.Tensor,), {})),
            "meta": torch.ones(3, device="meta"),
        }
    )
    assert {row.engine for row in rows[:3]} <= {"blocked", "compiled"}  # what is compiled already, is taken
    assert [row.engine for row in rows[3:]] == ["eager"] * 5
    assert "not contiguous" in rows[3].reason
    assert all("NumPy cannot see the memory" in row.reason for row in rows[4:])
    with xpopt.engine("cuda"):
        assert xpopt.Adam().explain([x])[0].reason == "the cuda engine was chosen"


@pytest.mark.any_engine
@pytest.mark.parametrize("odd", [False, True], ids=["plain", "odd"])
def test_what_the_eager_engine_updates_has_the_same_values(torch, backend, odd):
    """Strides, conjugations and minus signs that are still to be done, subclasses; alone, and beside plain tensors."""
    own = type("Own", (torch.Tensor,), {})
    z = torch.tensor([1 + 2j, 3 - 1j])
    params = {"s": torch.arange(6.0).reshape(2, 3)[:, ::2], "c": z.conj(), "n": z.conj().imag}
    params |= {"o": torch.ones(3).as_subclass(own), "p": torch.ones(2, 2)}
    grads = {name: (x.clone() + 1).as_subclass(type(x)) for name, x in params.items()}
    plain = {
        name: torch.Tensor.resolve_neg(x.resolve_conj()).as_subclass(torch.Tensor).contiguous()
        for name, x in params.items()
    }
    opt = xpopt.Adam(lr=0.1)
    new = params if odd else plain
    for _ in range(3):
        new = opt.update_all(new, grads)
    eager = xpopt.Adam(lr=0.1)
    with xpopt.engine("eager"):
        for _ in range(3):
            plain = eager.update_all(plain, grads)
    for name, x in plain.items():
        assert host(new[name].resolve_conj()) == pytest.approx(host(x), rel=1e-6), name


@pytest.mark.parametrize("whole", [False, True], ids=["update", "update_all"])
def test_results_are_new_tensors_and_in_place_the_very_same(torch, backend, fused, whole):
    opt, W, g = xpopt.Adam(lr=0.1), torch.nn.Parameter(torch.ones(3, 2)), torch.ones(3, 2)
    seen = []
    for _ in range(3):
        new = opt.update_all([W], [g])[0] if whole else opt.update(W, g, 0)
        assert type(new) is torch.Tensor
        assert (new.dtype, new.device, new.requires_grad, new.is_leaf) == (W.dtype, W.device, False, True)
        seen.append(new)
    assert len({x.data_ptr() for x in [W, g, *seen]}) == 5
    assert W.tolist() == [[1, 1]] * 3
    where = W.data_ptr()
    assert (opt.update_all([W], [g], out=[W])[0] if whole else opt.update(W, g, 0, out=W)) is W
    assert W.data_ptr() == where
    assert W.requires_grad
    assert W.tolist() != [[1, 1]] * 3
    assert all(isinstance(x, torch.Tensor) for x in opt.cache[0].values() if not isinstance(x, int))


@pytest.mark.parametrize("whole", [False, True], ids=["update", "update_all"])
@pytest.mark.parametrize("dtype", [*DTYPES, "complex64"])
def test_what_was_updated_can_still_be_resized(torch, backend, fused, whole, dtype):
    """Its memory can be given back and filled again, as those who shard or offload a model do."""
    W, g = (torch.nn.Parameter(torch.ones(4, 2, dtype=getattr(torch, dtype))) for _ in range(2))
    g.requires_grad_(False)
    opt = xpopt.SGD(lr=0.5)
    for _ in range(2):
        opt.update_all({"W": W}, {"W": g}, out={"W": W}) if whole else opt.update(W, g, "W", out=W)
        for x in W, g:
            storage = x.data.untyped_storage()
            size, values = storage.nbytes(), x.detach().clone()
            storage.resize_(0)
            storage.resize_(size)
            x.data.copy_(values)
        g.data.resize_(5, 2).resize_(4, 2)
    assert torch.equal(W.detach(), torch.zeros_like(W))


def test_a_slot_that_a_step_writes_next_cannot_be_resized(torch, backend, fused):
    """Its memory is known from step to step."""
    first = xpopt.SGD(lr=0.5, momentum=0.5)
    with xpopt.engine("eager"):
        W = first.update(torch.ones(3), torch.ones(3), 0)
    opt = xpopt.SGD(lr=0.5, momentum=0.5)
    opt.load_state_dict(first.state_dict())
    for _ in range(2):
        W = opt.update(W, torch.ones(3), 0)
    with pytest.raises(RuntimeError, match="not resizable"):
        opt.cache[0].untyped_storage().resize_(0)


@pytest.mark.any_engine
@pytest.mark.parametrize("lasting", [False, True])
def test_only_a_lasting_view_keeps_the_memory(torch, backend, lasting):
    library = library_of(torch.ones(3))
    x = torch.ones(3, requires_grad=True)
    kept, view = weakref.ref(x.untyped_storage()), library.on_host(x, lasting)
    view += 1
    assert x.tolist() == [2, 2, 2]
    x.data = torch.zeros(3)
    assert (kept() is not None) == lasting
    del view
    assert kept() is None


def test_views_are_of_where_a_tensor_is_now(torch, backend, fused):
    """In place, step after step: memory that was given back, gradients elsewhere, the same turned, and an overlap."""
    W, opt = torch.nn.Parameter(torch.zeros(2, 2)), xpopt.SGD(lr=1.0)
    before, first = weakref.ref(W.untyped_storage()), torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    given, wanted = {"W": W}, torch.zeros(2, 2)
    for g in (first, first, first.clone(), first, first.T, first, 2 * first):
        opt.update_all(given, {"W": g}, out=given)
        wanted = wanted - g
        assert torch.equal(W.detach(), wanted)
    W.data = torch.zeros(2, 2)
    assert before() is None
    for _ in range(2):
        opt.update_all(given, {"W": first}, out=given)
    assert torch.equal(W.detach(), -2 * first)
    both, apart = torch.zeros(4), torch.zeros(3)
    grads = {name: torch.ones(3) for name in "ab"}
    for _ in range(2):
        given = {"a": both[:3], "b": apart}
        opt.update_all(given, grads, out=given)
        with pytest.raises(ValueError, match="share memory"):
            opt.update_all({"a": both[:3], "b": both[1:]}, grads, out={"a": both[:3], "b": both[1:]})
    assert (both.tolist(), apart.tolist()) == ([-2.0, -2.0, -2.0, 0.0], [-2.0] * 3)


@pytest.mark.any_engine
def test_what_has_no_memory_that_numpy_could_see_has_no_view(torch, backend):
    """In a transform of `torch.func`, all zeros, nested, sparse."""
    library, seen = library_of(torch.ones(3)), []

    def see(x):
        seen.append(library.on_host(x))
        return (x * x).sum()

    torch.func.vmap(see)(torch.ones(2, 3))
    torch.func.grad(see)(torch.ones(3))
    z = torch.ones(3, dtype=torch.complex64)
    many = [torch._efficientzerotensor(3), torch.ones(3).to_sparse(), z.conj(), z.conj().imag, torch.ones(3).int()]
    assert [*seen, *map(library.on_host, many)] == [None] * 7
    assert library.on_host(torch.ones(0, 3)).shape == (0, 3)


@pytest.mark.parametrize("whole", [False, True], ids=["update", "update_all"])
def test_a_graph_that_has_kept_a_tensor_knows_that_it_was_written(torch, backend, fused, whole):
    opt, W, g = xpopt.SGD(lr=0.1), torch.nn.Parameter(torch.ones(3)), torch.ones(3)
    for _ in range(3):
        loss, version = (W * W).sum(), W._version
        opt.update_all([W], [g], out=[W]) if whole else opt.update(W, g, 0, out=W)
        assert W._version > version
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()
    version = g._version
    (W * g).sum().backward()
    assert g._version == version


@pytest.mark.parametrize("whole", [False, True], ids=["update", "update_all"])
def test_a_tensor_that_only_inference_mode_may_write_is_refused_after_others(torch, backend, fused, whole):
    """By what the last update left, as by the first one."""
    opt, W, g = xpopt.SGD(lr=0.5), torch.ones(3), torch.ones(3)
    with torch.inference_mode():
        closed = torch.ones(3)
    for _ in range(2):
        opt.update_all([W], [g], out=[W]) if whole else opt.update(W, g, 0, out=W)
    with pytest.raises(ValueError, match=r"out of .* is read-only"):
        opt.update_all([W], [g], out=[closed]) if whole else opt.update(W, g, 0, out=closed)
    assert (W.tolist(), closed.tolist()) == ([0.0] * 3, [1.0] * 3)


@pytest.mark.any_engine
def test_older_versions_count_one_tensor_at_a_time(torch, backend, monkeypatch):
    of_all = torch.autograd.graph.increment_version

    def of_one(x):
        if not isinstance(x, torch.Tensor):
            raise TypeError("tensor expected")
        if x.is_inference():
            raise RuntimeError("inference tensors do not track version counters")
        of_all(x)

    monkeypatch.setattr(torch.autograd.graph, "increment_version", of_one)
    with torch.inference_mode():
        params = [torch.ones(2), torch.ones(3)]
        assert xpopt.SGD(lr=0.5).update_all(params, params, out=params)[1].tolist() == [0.5] * 3
    params = [torch.ones(2), torch.ones(3)]
    versions = [x._version for x in params]
    xpopt.SGD(lr=0.5).update_all(params, [x.clone() for x in params], out=params)
    assert [x._version for x in params] == [of + 1 for of in versions]


@pytest.mark.parametrize("whole", [False, True], ids=["update", "update_all"])
def test_a_tensor_that_becomes_another_is_seen(torch, backend, fused, whole):
    """Other strides, another library, a conjugation: what a plan was made for no more."""
    opt, other = xpopt.Adam(lr=0.1), xpopt.Adam(lr=0.1)
    W, g = torch.arange(6.0).reshape(2, 3), torch.ones(2, 3)
    want, h = host(W).copy(), host(g).copy()
    for step in range(5):
        given = torch.stack([W, W], -1)[..., 0] if step == 2 else W
        grad = torch.complex(g, -g).conj().imag if step == 3 else g
        W = opt.update_all([given], [grad])[0] if whole else opt.update(given, grad, 0)
        want = other.update(want, h, 0)
        assert host(W) == pytest.approx(want, rel=1e-6)
    with pytest.raises(ValueError, match="names a parameter that is torch float32"):
        opt.update_all([want], [h]) if whole else opt.update(want, h, 0)


def test_a_gradient_of_another_dtype_keeps_its_digits(torch, backend, fused):
    W, g = cast(np.ones(40), "bfloat16"), np.linspace(0.1, 1, 40, dtype=np.float32)
    eager, opt = xpopt.SGD(lr=0.1, momentum=0.9), xpopt.SGD(lr=0.1, momentum=0.9)
    want, got = {"W": W}, {"W": tensor(W)}
    for _ in range(3):
        with xpopt.engine("eager"):
            want = eager.update_all(want, {"W": g})
        got = opt.update_all(got, {"W": tensor(g)})
        assert same_bits(want, host(got))


@pytest.mark.any_engine
def test_the_state_goes_on_in_numpys_and_back(torch, backend, tmp_path):
    """Checkpoints are of values: what was written of tensors is read for arrays, and has their bits."""
    pytest.importorskip("safetensors", reason="safetensors, which files need, is missing")
    ours, theirs = xpopt.Adam(lr=0.1), xpopt.Adam(lr=0.1)
    W, g = torch.linspace(0, 1, 30), torch.ones(30)
    V, h = host(W).copy(), host(g).copy()
    for _ in range(3):
        W, V = ours.update(W, g, "W"), theirs.update(V, h, "W")
    ours.save(tmp_path / "state")
    other, copied = xpopt.Adam(lr=0.1), ours.copy()
    other.load(tmp_path / "state")
    new = host(W).copy()
    for _ in range(2):
        V, new, W = theirs.update(V, h, "W"), other.update(new, h, "W"), copied.update(W, g, "W")
        assert V.tobytes() == new.tobytes() == host(W).tobytes()


def test_a_step_in_place_allocates_nothing_of_the_models_size(torch, backend, fused):
    import tracemalloc

    params = {k: torch.ones(100_000) for k in range(3)}
    grads, opt = {k: x.clone() for k, x in params.items()}, xpopt.Adam()
    for _ in range(3):
        opt.update_all(params, grads, out=params)
    tracemalloc.start()
    opt.update_all(params, grads, out=params)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60_000
