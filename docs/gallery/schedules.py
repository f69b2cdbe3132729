"""One network, one method, five schedules of its rate."""

import sys

import xpopt
from digits import train
from xpopt import schedulers as s


def schedules(peak, steps):
    """Return five schedules that reach the same largest rate."""
    rise = steps // 10
    return {
        "constant": s.constant(peak),
        "cosine": s.cosine(peak, 0.0, steps=steps),
        "warmup >> cosine": s.warmup(steps=rise) * peak
        >> s.cosine(peak, 0.0, steps=steps - rise),
        "one_cycle": s.one_cycle(peak, rise=3 * rise, fall=steps - 3 * rise),
        "wsd": s.wsd(peak, warmup=rise, stable=steps - 4 * rise, decay=3 * rise),
    }


def main(epochs=15, batch=64, peak=0.5):
    """Return the rates by step, the losses by epoch and the accuracy of each."""
    xp, steps = xpopt.default_namespace(), epochs * (1437 // batch)
    found = {}
    for name, rate in schedules(peak, steps).items():
        opt = xpopt.SGD(lr=rate, momentum=0.9)
        found[name] = rate.values(steps), *train(xp, opt, epochs, batch)
    return found


if __name__ == "__main__":
    import matplotlib.pyplot as plt

    _, (left, right) = plt.subplots(1, 2, figsize=(9.6, 3), layout="constrained")
    for name, (rates, losses, accuracy) in main().items():
        left.plot(rates)
        right.semilogy(losses, label=f"{name}, {accuracy:.1%}")
    left.set(title="rate", xlabel="step")
    right.set(title="training loss", xlabel="epoch")
    right.legend(fontsize="small")
    sys.modules.get("sphinx") or plt.show()
