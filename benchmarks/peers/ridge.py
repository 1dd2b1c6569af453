"""Ridge regression from the large space into the small one, its strength by cross-validation.

Variants: ``aecp`` is that package's own RidgeMapping on the alignment texts (it also fits the way
back and holds a tenth of the texts out); ``align`` is scikit-learn's RidgeCV alone on these texts,
with aecp's grid; ``labels`` is RidgeCV from each labelled query to the mean of its positives.
"""

from __future__ import annotations

import warnings

import numpy as np
from aecp import RidgeMapping  # type: ignore[import-not-found]
from sklearn.linear_model import RidgeCV  # type: ignore[import-untyped]

from benchmarks.peers.problem import FloatArray, Map, Problem, main

_ALPHAS = np.logspace(-3, 3, 25)


def _mean_positives(problem: Problem) -> tuple[FloatArray, FloatArray]:
    """Labelled queries, and the mean vector of each one's positives."""
    query_rows, document_rows, grades = problem.train_qrels.T
    positive = grades >= 1
    labelled, groups = np.unique(query_rows[positive], return_inverse=True)
    sums = np.zeros((len(labelled), problem.corpus.shape[1]), dtype=np.float32)
    np.add.at(sums, groups, problem.corpus[document_rows[positive]])
    counts = np.bincount(groups).astype(np.float32)
    return problem.train_queries[labelled], np.asarray(sums / counts[:, None], dtype=np.float32)


def fit(problem: Problem, variant: str) -> Map:
    """Fit one of the variants."""
    if variant == "aecp":
        # It advises ten texts per dimension; how many there are is the benchmark's choice.
        warnings.simplefilter("ignore", UserWarning)
        mapping = RidgeMapping(alpha="auto", seed=0).fit(problem.align_large, problem.align_small)
        return mapping.transform  # type: ignore[no-any-return]
    x, y = problem.align_large, problem.align_small
    if variant == "labels":
        x, y = _mean_positives(problem)
    model = RidgeCV(alphas=_ALPHAS).fit(x, y)
    return model.predict  # type: ignore[no-any-return]


if __name__ == "__main__":
    main(fit)
