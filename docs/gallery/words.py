"""Word embeddings: their products are the logarithms of counts of neighbours [1].

[1] Pennington, Socher and Manning, "GloVe: Global Vectors for Word Representation",
    EMNLP 2014, equations 8 and 9.
"""

import re
import sys
from collections import Counter

import numpy as np

import xpopt


def docstrings():
    """Return the words of what NumPy says of its functions, one list for each."""
    texts = (getattr(np, name).__doc__ for name in sorted(dir(np)) if name[0] != "_")
    return [re.findall(r"[a-z]{3,}", text.lower()) for text in texts if text]


def neighbours(texts, most, window=6):
    """Return the most frequent words, and the weights of their neighbours, (n, n)."""
    words = [
        word for word, _ in Counter(w for text in texts for w in text).most_common(most)
    ]
    place, counts = (
        {word: i for i, word in enumerate(words)},
        np.zeros((len(words),) * 2),
    )
    for text in texts:
        numbers = np.array([place.get(word, -1) for word in text])
        for apart in range(1, window + 1):
            pair = np.stack([numbers[:-apart], numbers[apart:]])
            pair = pair[:, (pair >= 0).all(axis=0)]
            np.add.at(counts, tuple(pair), 1 / apart)
            np.add.at(counts, tuple(pair[::-1]), 1 / apart)
    return words, counts


def loss_and_gradients(xp, p, weight, logs):
    """Return the weighted squares of w_i c_j + b_i + d_j - log x_ij, and gradients."""
    error = p["w"] @ p["c"].T + p["b"][:, None] + p["d"][None, :] - logs
    pull = weight * error
    grads = {"w": pull @ p["c"], "c": pull.T @ p["w"]}
    grads |= {"b": xp.sum(pull, axis=1), "d": xp.sum(pull, axis=0)}
    return 0.5 * xp.sum(pull * error), grads


def embed(xp, counts, size=24, steps=150, lr=0.1):
    """Return the vector of each word, of length 1, and the losses on the way."""
    n, rng = counts.shape[0], np.random.default_rng(0)
    weight = xp.asarray(np.minimum(counts / 10, 1) ** 0.75)
    logs = xp.asarray(np.log(np.where(counts > 0, counts, 1)))
    first = {"w": (n, size), "c": (n, size), "b": (n,), "d": (n,)}
    p = {name: xp.asarray(rng.normal(size=s) / size) for name, s in first.items()}
    opt, losses = xpopt.AdaGrad(lr=lr), []
    for _ in range(steps):
        loss, grads = loss_and_gradients(xp, p, weight, logs)
        losses.append(float(loss))
        p = opt.update_all(p, grads)
    vectors = p["w"] + p["c"]
    return vectors / xp.linalg.vector_norm(vectors, axis=1, keepdims=True), losses


def main(most=400, texts=None):
    """Return the words, their vectors and the losses."""
    xp = xpopt.default_namespace()
    words, counts = neighbours(docstrings() if texts is None else texts, most)
    return words, *embed(xp, counts)


if __name__ == "__main__":
    import matplotlib.pyplot as plt

    words, vectors, losses = main()
    vectors = vectors.get() if hasattr(vectors, "get") else vectors
    shown = ["minimum", "maximum", "rows", "columns", "integer", "float", "complex"]
    shown += ["axis", "shape", "dtype", "mean", "sum", "product", "sorted"]
    some = np.array([words.index(word) for word in shown if word in words])
    _, (left, right) = plt.subplots(1, 2, figsize=(9.6, 3.8), layout="constrained")
    left.semilogy(losses)
    centred = vectors[some] - vectors[some].mean(axis=0)
    plane = centred @ np.linalg.svd(centred, full_matrices=False)[2][:2].T
    right.plot(*plane.T, ".")
    for k, (i, at) in enumerate(zip(some, plane, strict=True)):
        place = (3, 3 if k % 2 else -9)  # of a pair, one above and one below
        right.annotate(words[i], at, xytext=place, textcoords="offset points")
    left.set(title="loss", xlabel="step")
    right.set(title="some words", xticks=[], yticks=[])
    sys.modules.get("sphinx") or plt.show()
