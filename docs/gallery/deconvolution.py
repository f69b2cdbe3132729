"""Least squares with a million unknowns: an image from its blurred picture."""

import sys

import numpy as np

import xpopt


def scene(xp, size):
    """Return stars on a black sky, and a disc."""
    rng = np.random.default_rng(0)
    image = np.zeros((size, size))
    image[tuple(rng.integers(0, size, (2, size)))] = rng.uniform(5, 20, size)
    y, x = np.mgrid[:size, :size] / size - 0.5
    image[x**2 + y**2 < 0.04] += 1
    return xp.asarray(image)


class Blur:
    """The convolution with a disc, of a lens out of focus; it is periodic."""

    def __init__(self, xp, size, radius):
        self.xp, self.shape = xp, (size, size)
        y, x = np.meshgrid(
            np.fft.fftfreq(size, 1 / size), np.fft.fftfreq(size, 1 / size)
        )
        disc = (x**2 + y**2 <= radius**2).astype(np.float64)
        self.transfer = xp.fft.rfftn(xp.asarray(disc / disc.sum()))

    def see(self, image, transfer=None):
        """Return the blurred picture."""
        transfer = self.transfer if transfer is None else transfer
        return self.xp.fft.irfftn(
            transfer * self.xp.fft.rfftn(image), s=self.shape, axes=(0, 1)
        )

    def back(self, picture):
        """Return the transposed of `see`."""
        return self.see(picture, self.xp.conj(self.transfer))


def restore(blur, picture, weight, steps, method="LBFGS", bounds=None):
    """Return what minimizes half of squared error and weighted squared image."""
    xp = blur.xp

    def function(image):
        error = blur.see(image) - picture
        value = 0.5 * xp.sum(error * error) + 0.5 * weight * xp.sum(image * image)
        return value, blur.back(error) + weight * image

    start = xp.zeros(blur.shape)
    return xpopt.minimize(function, start, method, steps=steps, bounds=bounds)


def main(size=1024, radius=6, noise=1e-3, weight=1e-4, steps=10):
    """Return an image, its picture, and what `LBFGS` and `NonlinearCG` restore."""
    xp, rng = xpopt.default_namespace(), np.random.default_rng(1)
    truth, blur = scene(xp, size), Blur(xp, size, radius)
    picture = blur.see(truth) + noise * xp.asarray(rng.normal(size=(size, size)))
    bounded = restore(blur, picture, weight, steps, bounds=(0, None))
    return truth, picture, bounded, restore(blur, picture, weight, steps, "NonlinearCG")


if __name__ == "__main__":
    import matplotlib.pyplot as plt

    truth, picture, bounded, free = main()
    figure, axes = plt.subplots(1, 4, figsize=(9.6, 2.5), layout="constrained")
    part = slice(280, 480)
    for ax, title, x in zip(
        axes,
        ("image", "picture", "LBFGS, bounds"),
        (truth, picture, bounded.params),
        strict=False,
    ):
        x = np.asarray(x.get() if hasattr(x, "get") else x)
        ax.imshow(x[part, part], cmap="gray", vmin=0, vmax=2)
        ax.set(title=title, xticks=[], yticks=[])
    for found, label in ((bounded, "LBFGS, bounds"), (free, "NonlinearCG")):
        axes[3].semilogy(
            [row.evaluations for row in found.history],
            [row.value for row in found.history],
            label=label,
        )
    axes[3].set(title="value", xlabel="evaluations")
    axes[3].legend()
    sys.modules.get("sphinx") or plt.show()
