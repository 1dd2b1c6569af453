"""A re-implementation of the closed-form maps of rebasis 0.1.0, which needs Python 3.12.

``centred`` is its default, CenteredProcrustesAdapter: (x - mean)R + mean with an orthogonal R, the
narrower side padded with zeros. ``linear`` is its LinearAdapter: ridge regression with offset, its
strength a thousandth of the mean of the Gram matrix' diagonal. Both see the alignment texts only.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import orthogonal_procrustes  # type: ignore[import-untyped]

from benchmarks.peers.problem import FloatArray, Map, Problem, main, unit

_RIDGE = 1e-3


def _padded(rows: FloatArray, width: int) -> FloatArray:
    return np.pad(rows, ((0, 0), (0, width - rows.shape[1])))


def _centred(x: FloatArray, y: FloatArray) -> Map:
    d_small, width = y.shape[1], max(x.shape[1], y.shape[1])
    x, y = _padded(x, width), _padded(y, width)
    x_mean, y_mean = x.mean(axis=0), y.mean(axis=0)
    rotation, _ = orthogonal_procrustes(x - x_mean, y - y_mean)
    return lambda q: ((_padded(q, width) - x_mean) @ rotation + y_mean)[:, :d_small]


def _linear(x: FloatArray, y: FloatArray) -> Map:
    x_mean, y_mean = x.mean(axis=0), y.mean(axis=0)
    centred = (x - x_mean).astype(np.float64)
    gram = centred.T @ centred
    gram[np.diag_indices_from(gram)] += _RIDGE * np.trace(gram) / len(gram)
    weight = np.linalg.solve(gram, centred.T @ (y - y_mean).astype(np.float64))
    return lambda q: (q - x_mean) @ weight + y_mean


def fit(problem: Problem, variant: str) -> Map:
    """Fit one of the variants."""
    solve = {"centred": _centred, "linear": _linear}[variant]
    return solve(unit(problem.align_large), unit(problem.align_small))


if __name__ == "__main__":
    main(fit)
