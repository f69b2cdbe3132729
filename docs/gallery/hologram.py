"""A phase-only hologram: a mirror delays light, and an image appears far away."""

import sys

import numpy as np

import xpopt


def letters(xp, size, light):
    """Return an image with that part of the light, and the window around it."""
    image, window, q = np.zeros((size, size)), np.zeros((size, size)), size // 16
    for i, row in enumerate(("X X PPP", "X X P P", " X  PPP", "X X P  ", "X X P  ")):
        for j, letter in enumerate(row):
            image[(5 + i) * q : (6 + i) * q, (4 + j) * q : (5 + j) * q] = letter != " "
    window[3 * q : 12 * q, 3 * q : 12 * q] = 1
    return xp.asarray(
        image * size * np.sqrt(light) / np.linalg.norm(image)
    ), xp.asarray(window)


def hologram(xp, opt, image, window, start, steps):
    """Return the field on the mirror, and the squared errors in the window."""
    field, losses = start, []
    for _ in range(steps):
        wave = xp.fft.fft2(field, norm="ortho")
        size = xp.abs(wave)
        losses.append(float(xp.sum(window * (size - image) ** 2)))
        error = window * (1 - image / xp.where(size > 0, size, 1.0)) * wave
        field = opt.update(field, 2 * xp.fft.ifft2(error, norm="ortho"), "field")
        opt.step()
    return field, losses


def main(size=64, steps=100, light=0.7):
    """Return the image, and for each method the field and the losses."""
    xp = xpopt.default_namespace()
    (image, window), rng = letters(xp, size, light), np.random.default_rng(0)
    start = xp.asarray(np.exp(2j * np.pi * rng.uniform(size=(size, size))))
    methods = {
        "Gerchberg-Saxton": xpopt.SGD(
            lr=0.5, prox=xpopt.prox.magnitude(1.0)
        ),  # which is this step
        "with momentum": xpopt.SGD(
            lr=0.5, momentum=0.9, nesterov=True, prox=xpopt.prox.magnitude(1.0)
        ),
    }
    return image, {
        name: hologram(xp, opt, image, window, start, steps)
        for name, opt in methods.items()
    }


if __name__ == "__main__":
    import matplotlib.pyplot as plt

    image, found = main()
    xp = xpopt.default_namespace()
    field, _ = found["with momentum"]
    pictures = [image, xp.angle(field), xp.abs(xp.fft.fft2(field, norm="ortho"))]
    _, axes = plt.subplots(1, 4, figsize=(9.6, 2.5), layout="constrained")
    for ax, title, x in zip(
        axes, ("image", "phase on the mirror", "far away"), pictures, strict=False
    ):
        ax.imshow(x.get() if hasattr(x, "get") else x, cmap="gray")
        ax.set(title=title, xticks=[], yticks=[])
    for name, (_, losses) in found.items():
        axes[3].semilogy(losses, label=name)
    axes[3].set(title="squared error", xlabel="step")
    axes[3].legend()
    sys.modules.get("sphinx") or plt.show()
