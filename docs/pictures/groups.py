"""The rates of three groups: the step of SGD where the gradient is -1 everywhere."""

import matplotlib.pyplot as plt
import numpy as np

import xpopt

opt = xpopt.SGD(
    lr=0.001,
    lr_scheduler=xpopt.ExponentialScheduler(initial_lr=0.001, stage_length=25, staircase=True, decay=0.5),
    groups={
        "head/*": {"lr": 0.01},
        "probe": {"lr_scheduler": xpopt.ExponentialScheduler(initial_lr=0.05, stage_length=20, decay=0.1)},
    },
)
labels = {"body": "the optimizer's", "head/w": '{"lr": 0.01}', "probe": '{"lr_scheduler": ...}'}
params = {name: np.zeros(1) for name in labels}
grads = {name: -np.ones(1) for name in labels}
rates = {name: [] for name in labels}
for _ in range(100):
    new = opt.update_all(params, grads)
    for name, x in new.items():
        rates[name].append(float((x - params[name])[0]))
    params = new

figure, axes = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
for name, label in labels.items():
    axes.plot(rates[name], label=f"{name}: {label}")
axes.set(xlabel="step", ylabel="learning rate", yscale="log")
axes.legend(loc="lower left")
