"""Ptychography: a complex object, and the light on it, from diffraction patterns."""

import sys

import numpy as np

import xpopt


def scene(xp, size, width):
    """Return an object that weakens and delays light, and a spot with curved front."""
    y, x = np.mgrid[:size, :size] / size - 0.5
    thin = 0.5 + 0.5 * np.cos(9 * x + 20 * y * y)
    thick = np.sin(14 * x * x - 11 * y) * np.cos(8 * x * y + 5 * y)
    v, u = np.mgrid[:width, :width] - (width - 1) / 2
    light = np.exp((0.6j / width - 20 / width**2) * (u * u + v * v))
    return xp.asarray((1 - 0.4 * thin) * np.exp(0.8j * thick)), xp.asarray(light)


class Microscope:
    """The waves on the detector, one for each place of the light, which overlap."""

    def __init__(self, xp, size, width, step):
        self.xp, self.size, places = xp, size, range(0, size - width + 1, step)
        self.spots = [
            np.s_[i : i + width, j : j + width] for i in places for j in places
        ]

    def lit(self, params):
        """Return the parts of the object that the light falls on."""
        return self.xp.stack([params["object"][spot] for spot in self.spots])

    def waves(self, params):
        """Return the waves."""
        return self.xp.fft.fft2(self.lit(params) * params["light"], norm="ortho")

    def gradients(self, params, measured):
        """Return sum (|wave| - measured)^2, and its gradients, of steepest ascent."""
        xp, waves = self.xp, self.waves(params)
        size = xp.abs(waves)
        back = 2 * xp.fft.ifft2(
            waves - measured * waves / xp.where(size > 0, size, 1.0), norm="ortho"
        )
        to_object = xp.zeros_like(params["object"])
        for spot, part in zip(self.spots, back * xp.conj(params["light"]), strict=True):
            to_object[spot] += part
        to_light = xp.sum(back * xp.conj(self.lit(params)), axis=0)
        return xp.sum((size - measured) ** 2), {"object": to_object, "light": to_light}


def reconstruct(microscope, measured, light, steps):
    """Return object and light, and the loss of each step; `light` is a first guess."""
    params = {
        "object": microscope.xp.ones((microscope.size,) * 2, dtype=light.dtype),
        "light": light,
    }
    opt, losses = xpopt.Adam(lr=0.03, modulus=True, groups={"light": {"lr": 0.01}}), []
    for _ in range(steps):
        loss, grads = microscope.gradients(params, measured)
        losses.append(float(loss))
        params = opt.update_all(params, grads)
    return params, losses


def main(size=64, width=24, step=5, steps=300):
    """Return the object and the light, what was found of them, and the losses."""
    xp = xpopt.default_namespace()
    truth = dict(zip(("object", "light"), scene(xp, size, width), strict=True))
    microscope = Microscope(xp, size, width, step)
    measured, guess = xp.abs(microscope.waves(truth)), xp.abs(truth["light"]) + 0j
    return truth, *reconstruct(microscope, measured, guess, steps)


if __name__ == "__main__":
    import matplotlib.pyplot as plt

    truth, found, losses = main()
    _, axes = plt.subplots(1, 4, figsize=(9.6, 2.5), layout="constrained")
    pictures = {
        "phase of the object": truth["object"],
        "found": found["object"],
        "of the light, found": found["light"],
    }
    for ax, (title, z) in zip(axes, pictures.items(), strict=False):
        z = z.get() if hasattr(z, "get") else z
        ax.imshow(np.angle(z / z.mean()), cmap="twilight", vmin=-1.5, vmax=1.5)
        ax.set(title=title, xticks=[], yticks=[])
    axes[3].semilogy(losses)
    axes[3].set(title="squared error", xlabel="step")
    sys.modules.get("sphinx") or plt.show()
