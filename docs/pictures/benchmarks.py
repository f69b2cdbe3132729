"""Two pictures of the tables in benchmarks.md: time against size, and of other libraries relative to xpopt."""

import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

PAGE = Path("../benchmarks.md")  # Sphinx runs a picture in its folder

NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")


def table(heading):
    """Return the rows of the table under a heading of the page, without its head."""
    part = PAGE.read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines() if line.startswith("|")]
    return rows[2:]


def numbers(cell):
    """Return median and quartiles of a cell."""
    return [float(text.replace(",", "")) for text in NUMBER.findall(cell)]


def sizes():
    """Draw the time of one update of Adam by the number of elements."""
    rows = [row for row in table("One parameter") if row[0] == "Adam" and row[1].replace(",", "").isdigit()]
    elements = [int(row[1].replace(",", "")) for row in rows]
    _, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    for column, label, line in (
        (2, "textbook NumPy", "s:"),
        (3, "xpopt, blocked", "o--"),
        (5, "xpopt, compiled", "o-"),
    ):
        axes.loglog(elements, [numbers(row[column])[0] for row in rows], line, label=label)
    axes.set(title="One update of Adam, float32", xlabel="elements", ylabel="microseconds")
    axes.grid(color="0.9")
    axes.legend()


def peers():
    """Draw the time of other libraries relative to the compiled engine for each model, with the quartiles."""
    gains = {}
    for model, by, _, gain in table("Whole models"):
        if gain and not by.startswith(("xpopt", "the traffic")):
            gains.setdefault(by.removesuffix(" *"), {})[model] = numbers(gain)
    models = list(dict.fromkeys(model for found in gains.values() for model in found))
    _, axes = plt.subplots(figsize=(7.2, 0.9 + 0.35 * len(models)), layout="constrained")
    for (by, found), marker in zip(gains.items(), "osD^v<>", strict=False):
        low, middle, high = np.array([found.get(model, [np.nan] * 3) for model in models])[:, [1, 0, 2]].T
        axes.plot(middle, range(len(models)), marker, label=by)
        axes.hlines(range(len(models)), low, high, color=axes.lines[-1].get_color())
    axes.axvline(1, color="0.5", linewidth=1)
    axes.set(title="Time of one step of Adam, relative to the compiled engine", xscale="log")
    axes.set_xticks([1, 2, 4, 8, 16, 32], ["1", "2", "4", "8", "16", "32"])
    axes.set_yticks(range(len(models)), models)
    axes.invert_yaxis()
    axes.grid(axis="x", color="0.9")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
