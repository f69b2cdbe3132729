"""Tomography: an image without negative densities from its shadows."""

import sys

import numpy as np

import xpopt


def phantom(xp, size):
    """Return an object of three discs, one of them hollow."""
    y, x = xp.asarray(np.mgrid[:size, :size] / (size - 1) * 2 - 1)
    image = xp.zeros((size, size))
    for cx, cy, radius, density in (
        (-0.2, 0.1, 0.55, 1.0),
        (-0.3, 0.2, 0.2, -1.0),
        (0.5, -0.5, 0.2, 0.6),
    ):
        image = image + density * xp.astype(
            (x - cx) ** 2 + (y - cy) ** 2 < radius**2, image.dtype
        )
    return image


def projector(xp, size, angles):
    """Return the matrix from an image to its shadows, on two cells for each pixel."""
    y, x = np.mgrid[:size, :size].reshape(2, -1) - (size - 1) / 2
    cells = int(np.ceil(size * 1.5)) | 1
    A = np.zeros((angles, cells, size * size))
    pixel = np.arange(size * size)
    for row, angle in zip(A, np.arange(angles) * np.pi / angles, strict=True):
        place = x * np.cos(angle) + y * np.sin(angle) + (cells - 1) / 2
        cell = np.floor(place).astype(int)
        row[cell, pixel] = 1 - (place - cell)
        row[cell + 1, pixel] = place - cell
    return xp.asarray(A.reshape(angles * cells, -1))


def lipschitz(xp, A, steps=50):
    """Return the largest eigenvalue of A^T A, by powers."""
    x = xp.ones(A.shape[1])
    for _ in range(steps):
        x = A.T @ (A @ x)
        size = xp.linalg.vector_norm(x)
        x = x / size
    return float(size)


def reconstruct(xp, A, shadows, weight, steps):
    """Return the image, and the proximal gradient at each step."""
    opt = xpopt.FISTA(
        lr=1 / (1.001 * lipschitz(xp, A)), bounds=(0, None), restart="gradient"
    )
    params, distances = {"image": xp.zeros(A.shape[1])}, []
    for _ in range(steps):
        grads = {
            "image": A.T @ (A @ params["image"] - shadows) + weight
        }  # without negative ones, L1 is the sum
        distances.append(float(opt.stationarity(params, grads)))
        params = opt.update_all(params, grads)
    return opt.averaged(params)["image"], distances


def main(size=32, angles=16, weight=0.5, steps=150):
    """Return an object, its shadows spread back, the image, and its distances."""
    xp = xpopt.default_namespace()
    truth, A = phantom(xp, size), projector(xp, size, angles)
    noise = xp.asarray(np.random.default_rng(0).normal(size=A.shape[0]))
    shadows = A @ xp.reshape(truth, (-1,)) + 0.1 * noise
    image, distances = reconstruct(xp, A, shadows, weight, steps)
    return truth, A.T @ shadows, image, distances


if __name__ == "__main__":
    import matplotlib.pyplot as plt

    truth, back, image, distances = main()
    figure, axes = plt.subplots(1, 4, figsize=(9.6, 2.5), layout="constrained")
    for ax, title, x in zip(
        axes,
        ("object", "shadows, spread back", "FISTA"),
        (truth, back, image),
        strict=False,
    ):
        x = np.asarray(x.get() if hasattr(x, "get") else x).reshape(truth.shape)
        ax.imshow(x, cmap="gray", vmin=0)
        ax.set(title=title, xticks=[], yticks=[])
    axes[3].semilogy(distances)
    axes[3].set(title="proximal gradient", xlabel="step")
    sys.modules.get("sphinx") or plt.show()
