"""Lensless imaging: a scene from what a bare sensor sees through a mask."""

import sys

import numpy as np

import xpopt


def scene(xp, size):
    """Return some letters of light on a black ground."""
    image = np.zeros((size, size))
    q = size // 8
    image[q : 7 * q, q : 2 * q] = image[6 * q : 7 * q, q : 3 * q] = 1.0
    image[q : 7 * q, 4 * q : 5 * q] = image[q : 2 * q, 4 * q : 7 * q] = 0.7
    image[3 * q : 4 * q, 4 * q : 6 * q] = 0.7
    return xp.asarray(image)


def pattern(xp, size, rng):
    """Return what a point casts: bright lines, which add up to 1."""
    smooth = np.exp(
        -0.5 * (np.fft.fftfreq(size)[:, None] ** 2 + np.fft.fftfreq(size) ** 2) * size
    )
    waves = np.fft.ifft2(np.fft.fft2(rng.normal(size=(size, size))) * smooth).real
    lines = np.exp(-((waves / waves.std()) ** 2) * 20)
    return xp.asarray(lines / lines.sum())


class Camera:
    """What a sensor that covers a part of the convolution with the pattern sees."""

    def __init__(self, xp, psf, cover):
        self.xp, self.shape = xp, psf.shape
        self.transfer = xp.fft.rfftn(psf)
        i = xp.asarray(
            np.abs(np.arange(psf.shape[0]) - psf.shape[0] / 2)
            < cover * psf.shape[0] / 2
        )
        self.sensor = xp.astype(i[:, None] & i[None, :], psf.dtype)
        self.lipschitz = float(xp.max(xp.abs(self.transfer))) ** 2

    def see(self, image):
        """Return the picture on the sensor; 0 beside it."""
        return self.sensor * self.xp.fft.irfftn(
            self.transfer * self.xp.fft.rfftn(image), s=self.shape, axes=(0, 1)
        )

    def back(self, picture):
        """Return the transposed of `see`."""
        spectrum = self.xp.conj(self.transfer) * self.xp.fft.rfftn(
            self.sensor * picture
        )
        return self.xp.fft.irfftn(spectrum, s=self.shape, axes=(0, 1))


def reconstruct(camera, picture, steps):
    """Return the scene without negative light whose picture is nearest, and losses."""
    opt, losses = (
        xpopt.FISTA(lr=1 / camera.lipschitz, bounds=(0, None), restart="value"),
        [],
    )
    params = {"scene": camera.xp.zeros(camera.shape)}
    for _ in range(steps):
        error = camera.see(params["scene"]) - picture
        losses.append(0.5 * float(camera.xp.sum(error * error)))
        params = opt.update_all(params, {"scene": camera.back(error)}, losses[-1])
    return opt.averaged(params)["scene"], losses


def main(size=64, cover=0.8, noise=1e-3, steps=300):
    """Take a picture and reconstruct the scene; return all three, and the errors."""
    xp, rng = xpopt.default_namespace(), np.random.default_rng(0)
    truth, camera = scene(xp, size), Camera(xp, pattern(xp, size, rng), cover)
    seen = camera.see(truth)
    picture = seen + noise * float(xp.max(seen)) * camera.sensor * xp.asarray(
        rng.normal(size=(size, size))
    )
    return truth, picture, *reconstruct(camera, picture, steps)


if __name__ == "__main__":
    import matplotlib.pyplot as plt

    *pictures, losses = main()
    figure, axes = plt.subplots(1, 4, figsize=(9.6, 2.5), layout="constrained")
    for ax, title, x in zip(
        axes, ("scene", "on the sensor", "FISTA"), pictures, strict=False
    ):
        ax.imshow(np.asarray(x.get() if hasattr(x, "get") else x), cmap="gray", vmin=0)
        ax.set(title=title, xticks=[], yticks=[])
    axes[3].semilogy(losses)
    axes[3].set(title="squared error", xlabel="step")
    sys.modules.get("sphinx") or plt.show()
