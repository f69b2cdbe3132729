"""The gallery's programs of waves find what another way finds: the true object, and the steps of another algorithm."""

import runpy
from pathlib import Path

import numpy as np
import pytest

GALLERY = Path(__file__).parents[1] / "docs" / "gallery"


@pytest.fixture
def program(monkeypatch):
    """What a program defines, by name; it runs on NumPy."""
    monkeypatch.setenv("XPOPT_BACKEND", "numpy")
    return lambda name: runpy.run_path(str(GALLERY / f"{name}.py"))


def test_ptychography_finds_the_object(program):
    """But for a factor and a slope of the phase, which no pattern shows: the light may have the opposite ones."""
    truth, found, losses = program("ptychography")["main"](size=32, width=16, step=4, steps=120)
    assert losses[-1] < 2e-3 * losses[0]
    lit = np.s_[8:-8, 8:-8]
    want, got = truth["object"][lit], found["object"][lit]
    turned = got * want.conj()
    slopes = [np.angle(np.sum(a * b.conj())) for a, b in ((turned[1:], turned[:-1]), (turned[:, 1:], turned[:, :-1]))]
    rows, columns = np.mgrid[: len(want), : len(want)]
    got = got * np.exp(-1j * (slopes[0] * rows + slopes[1] * columns))
    got = got * np.vdot(got, want) / np.vdot(got, got)
    assert np.linalg.norm(got - want) < 0.08 * np.linalg.norm(want)


def test_a_hologram_is_that_of_gerchberg_and_saxton(program):
    """A step of a half is their algorithm: the modulus of the image there, a modulus of 1 here, the phase of each."""
    names = program("hologram")
    image, found = names["main"](size=32, steps=60)
    _, window = names["letters"](np, 32, 0.7)
    field = np.exp(2j * np.pi * np.random.default_rng(0).uniform(size=(32, 32)))
    for _ in range(60):
        wave = np.fft.fft2(field, norm="ortho")
        wave = np.where(window > 0, image * np.exp(1j * np.angle(wave)), wave)
        field = np.exp(1j * np.angle(np.fft.ifft2(wave, norm="ortho")))
    same, _ = found["Gerchberg-Saxton"]
    assert np.max(np.abs(same - field)) < 1e-9


def test_momentum_finds_a_better_hologram(program):
    image, found = program("hologram")["main"](size=32, steps=60)
    field, losses = found["with momentum"]
    assert np.max(np.abs(np.abs(field) - 1)) < 1e-14
    assert losses[-1] < 0.05 * found["Gerchberg-Saxton"][1][-1]
    far = np.abs(np.fft.fft2(field, norm="ortho"))
    assert np.max(np.abs(far - image)[image > 0]) < 0.05 * np.max(image)
