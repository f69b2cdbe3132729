"""The programs of the gallery, small, beside solutions that are found in another way."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

GALLERY = Path(__file__).parents[1] / "docs" / "gallery"
NNLS = importlib.import_module("scipy.optimize").nnls if importlib.util.find_spec("scipy") else None

pytestmark = [
    pytest.mark.any_engine,
    pytest.mark.skipif(not GALLERY.is_dir(), reason="the gallery is in the source tree alone"),
]


def program(name):
    """Import a program of the gallery."""
    spec = importlib.util.spec_from_file_location(f"gallery_{name}", GALLERY / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def assert_minimal(x, gradient, scale):
    """The conditions of a minimum without negative elements."""
    assert np.all(x >= 0)
    assert np.all(np.abs(gradient[x > 0]) < 1e-6 * scale)
    assert np.all(gradient[x == 0] > -1e-6 * scale)


def test_programs_are_short():
    for path in GALLERY.glob("*.py"):
        lines = path.read_text().splitlines()
        assert len(lines) < 110, path.name
        assert any("default_namespace()" in line for line in lines)


def test_tomography_finds_the_minimum():
    tomography = program("tomography")
    A, truth = tomography.projector(np, 8, 12), tomography.phantom(np, 8)
    assert np.allclose(A.sum(axis=0), 12)  # each pixel casts all of its density under each angle
    shadows = A @ truth.ravel() + 0.05 * np.random.default_rng(1).normal(size=A.shape[0])
    image, distances = tomography.reconstruct(np, A, shadows, weight=0.5, steps=300)
    assert_minimal(image, A.T @ (A @ image - shadows) + 0.5, np.linalg.norm(A.T @ shadows))
    assert distances[-1] < 1e-6 * distances[0]
    assert np.mean(np.abs(image - truth.ravel())) < 0.1
    if NNLS is not None:  # of the same minimum, by the root of A^T A
        root = np.linalg.cholesky(A.T @ A).T
        want, _ = NNLS(root, np.linalg.solve(root.T, A.T @ shadows - 0.5))
        assert np.allclose(image, want, atol=1e-6)


def test_a_lensless_camera_finds_the_minimum():
    lensless = program("lensless")
    rng = np.random.default_rng(2)
    camera = lensless.Camera(np, rng.uniform(size=(8, 8)) ** 4, cover=0.9)
    A = np.array([camera.see(unit.reshape(8, 8)).ravel() for unit in np.eye(64)]).T
    assert np.allclose(np.array([camera.back(unit.reshape(8, 8)).ravel() for unit in np.eye(64)]), A)
    assert np.linalg.norm(A, 2) ** 2 <= camera.lipschitz
    truth = lensless.scene(np, 8)
    picture = camera.see(truth) + 0.01 * camera.sensor * rng.normal(size=(8, 8))
    found, losses = lensless.reconstruct(camera, picture, steps=1000)
    x = found.ravel()
    assert_minimal(x, A.T @ (A @ x - picture.ravel()), np.linalg.norm(A.T @ picture.ravel()))
    assert losses[-1] < losses[0]
    if NNLS is not None:
        want, _ = NNLS(A, picture.ravel())
        assert np.allclose(A @ x, A @ want, atol=1e-5)


def test_deconvolution_finds_the_minimum(monkeypatch):
    monkeypatch.setenv("XPOPT_BACKEND", "numpy")
    deconvolution = program("deconvolution")
    truth, picture, bounded, free = deconvolution.main(size=16, radius=2, weight=1e-2, steps=200)
    blur = deconvolution.Blur(np, 16, 2)
    A = np.array([blur.see(unit.reshape(16, 16)).ravel() for unit in np.eye(256)]).T
    normal, right = A.T @ A + 1e-2 * np.eye(256), A.T @ picture.ravel()
    assert np.allclose(free.params.ravel(), np.linalg.solve(normal, right), atol=1e-5)
    x = bounded.params.ravel()
    assert np.max(np.abs(np.maximum(x - (normal @ x - right), 0) - x)) < 1e-5
    assert np.abs(bounded.params - truth).mean() < np.abs(picture - truth).mean()
    if NNLS is not None:  # of the same minimum, by the root of the normal equations
        root = np.linalg.cholesky(normal).T
        want, _ = NNLS(root, np.linalg.solve(root.T, right))
        assert np.allclose(x, want, atol=1e-4)
