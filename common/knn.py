"""Nearest neighbours among labelled embeddings: what a representation is worth before any head is trained on it."""

import numpy as np

from common.method import Scores
from common.samples import Labels

ROWS = 512  # queries at a time: the table of similarities stays small


def scores(
    queries: Scores, bank: Scores, labels: Labels, n_classes: int, *, k: int = 20, temperature: float = 0.1
) -> Scores:
    """Each of the k most similar bank entries votes for its class with exp(cosine / temperature).

    Source: Wu et al., Unsupervised Feature Learning via Non-Parametric Instance Discrimination, CVPR 2018, section 3.4.

    Args:
        queries: (n, dim).
        bank: (m, dim), of samples with these labels (m,).
        labels: of the bank.
        n_classes: columns of the result.
        k: neighbours; all of the bank when it has fewer.
        temperature: above 0.

    Returns:
        (n, n_classes) shares of the votes; all zero with an empty bank.
    """
    out = np.zeros((len(queries), n_classes), np.float32)
    k = min(k, len(bank))
    if not k:
        return out
    known = _unit(bank).T
    for start in range(0, len(queries), ROWS):
        alike = _unit(queries[start : start + ROWS]) @ known  # (rows, m)
        nearest = np.argpartition(-alike, k - 1, axis=1)[:, :k]
        votes = np.exp((np.take_along_axis(alike, nearest, axis=1) - 1) / temperature)
        for row, (places, weight) in enumerate(zip(nearest, votes, strict=True), start):
            out[row] = np.bincount(labels[places], weight, n_classes) / max(weight.sum(), 1e-30)
    return out


def _unit(x: Scores) -> Scores:
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12))
