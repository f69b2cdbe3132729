"""Problems of complex numbers, with the gradients of the libraries that have some, beside solutions of their own."""

import importlib

import numpy as np
import pytest

import xpopt


def test_a_root_in_the_complex_plane():
    """Of (z - w)^2, a number in an array of shape (): beside Adam of Kingma and Ba on two real numbers of Python's."""

    def gradient(z, w=1 + 3j):  # of |f|^2: 2 conj(f') f
        return 2 * np.conj(2 * (z - w)) * (z - w) ** 2

    z, opt = np.array(0j), xpopt.Adam(lr=0.05)
    x, m, v = [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]
    for t in range(1, 151):
        g = gradient(complex(*x))
        assert opt.update(z, gradient(z), "z", out=z) is z
        for k, gk in enumerate((g.real, g.imag)):
            m[k] = 0.9 * m[k] + 0.1 * gk
            v[k] = 0.999 * v[k] + 0.001 * gk * gk
            x[k] -= 0.05 * (m[k] / (1 - 0.9**t)) / ((v[k] / (1 - 0.999**t)) ** 0.5 + 1e-7)
    assert abs(complex(z) - complex(*x)) < 1e-9


A = np.array([[1 + 2j, 0.5], [-1j, 2 - 1j], [0.25, 1j]])
B = np.array([1j, 2 - 1j, -0.5])


def descend(gradient, z, conjugated=False):
    """Go down ||A z - b||^2 by its gradient in some library."""
    opt = xpopt.SGD(lr=0.05)
    for _ in range(400):
        g = gradient(z)
        z = opt.update(z, g.conj() if conjugated else g, "z")
    return np.asarray(z)


@pytest.mark.backends("torch")
def test_torch_has_the_gradient(backend):
    torch = importlib.import_module("torch")
    a, b = torch.tensor(A), torch.tensor(B)

    def gradient(z):
        leaf = z.clone().requires_grad_()
        (abs(a @ leaf - b) ** 2).sum().backward()
        return leaf.grad

    start = torch.zeros(2, dtype=torch.complex128)
    assert np.max(np.abs(descend(gradient, start) - np.linalg.lstsq(A, B)[0])) < 1e-10
    assert np.max(np.abs(np.asarray(gradient(start)) - 2 * A.conj().T @ -B)) < 1e-14


@pytest.mark.backends("jax")
def test_jax_has_its_conjugate(backend):
    """By which the walk does not end."""
    jax = importlib.import_module("jax")
    a, b = (backend.xp.asarray(x, dtype="complex64") for x in (A, B))
    gradient = jax.jit(jax.grad(lambda z: (abs(a @ z - b) ** 2).sum()))
    start = backend.xp.zeros(2, dtype="complex64")
    want = np.linalg.lstsq(A, B)[0]
    assert np.max(np.abs(descend(gradient, start, conjugated=True) - want)) < 1e-5
    assert not np.max(np.abs(descend(gradient, start) - want)) < 1
    assert np.max(np.abs(np.asarray(gradient(start)).conj() - 2 * A.conj().T @ -B)) < 1e-5


def test_autograd_has_its_conjugate():
    autograd = pytest.importorskip("autograd", reason="autograd, a library of gradients for NumPy, is missing")
    anp = importlib.import_module("autograd.numpy")
    gradient = autograd.grad(lambda z: anp.sum(anp.abs(anp.dot(A, z) - B) ** 2))
    start, want = np.zeros(2, complex), np.linalg.lstsq(A, B)[0]
    assert np.max(np.abs(descend(gradient, start, conjugated=True) - want)) < 1e-10
    assert not np.max(np.abs(descend(gradient, start) - want)) < 1
    assert np.max(np.abs(gradient(start).conj() - 2 * A.conj().T @ -B)) < 1e-14


@pytest.mark.backends("torch")
@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_ptychography_as_in_torch(backend, dtype):
    """Object and probe at two rates, in one optimizer with groups; torch's Adam has the same complex tensors."""
    torch = importlib.import_module("torch")
    rng, scan = np.random.default_rng(1), [(i, j) for i in range(0, 9, 4) for j in range(0, 9, 4)]
    y, x = np.mgrid[:8, :8] - 3.5
    light = np.exp(-(x**2 + y**2) / 8 + 0.1j * x)
    truth = np.exp(1j * rng.uniform(0, 1, (16, 16)))
    data = [np.abs(np.fft.fft2(truth[i : i + 8, j : j + 8] * light, norm="ortho")) for i, j in scan]

    def gradients(params):
        found, cost = {name: np.zeros_like(z) for name, z in params.items()}, 0.0
        for (i, j), a in zip(scan, data, strict=True):
            here = np.s_[i : i + 8, j : j + 8]
            wave = np.fft.fft2(params["object"][here] * params["probe"], norm="ortho")
            off = wave - a * wave / (np.abs(wave) + 1e-12)
            cost += float(np.sum(np.abs(off) ** 2))
            back = 2 * np.fft.ifft2(off, norm="ortho")
            found["object"][here] += (back * params["probe"].conj()).astype(dtype)
            found["probe"] += (back * params["object"][here].conj()).astype(dtype)
        return cost, found

    params = {"object": np.ones((16, 16), dtype), "probe": (0.8 * np.abs(light)).astype(dtype)}
    theirs = {name: torch.tensor(z, requires_grad=True) for name, z in params.items()}
    rates = {"object": 0.03, "probe": 0.005}
    twin = torch.optim.Adam([{"params": [z], "lr": rates[name]} for name, z in theirs.items()], eps=1e-7)
    opt, costs = xpopt.Adam(lr=0.03, groups={"probe": {"lr": 0.005}}), []
    for _ in range(40):
        cost, grads = gradients(params)
        costs.append(cost)
        for name, z in theirs.items():
            z.grad = torch.tensor(grads[name])
        twin.step()
        opt.update_all(params, grads, out=params)
    close = {"complex64": 1e-5, "complex128": 1e-9}[dtype]
    assert all(np.max(np.abs(z - theirs[name].detach().numpy())) < close for name, z in params.items())
    assert costs[-1] < 0.1 * costs[0]
