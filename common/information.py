"""Information precision, recall and F1 of a prediction in a taxonomy, and hierarchical readings of leaf scores.

Source: Valmadre, Hierarchical classification at multiple operating points, NeurIPS 2022, sections 3 and 4: a node's
information is I(v) = log2(n / classes under v), and with c the lowest common ancestor of truth y and prediction p,
precision is I(c) / I(p), recall I(c) / I(y), F1 their harmonic mean. Means are over examples, of the per-example F1.

Classes weigh equally: data frequencies do not enter. Everything is by node number (`Taxonomy.number`).
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from common.taxonomy import Taxonomy

Numbers = NDArray[np.float64]
Nodes = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class _Tables:
    """`information` (n_nodes,), `ancestor` (n_nodes, n_nodes) lowest common ancestors, `under` (n_nodes, n_classes)."""

    information: Numbers
    ancestor: Nodes
    under: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Information:
    """Per example: precision, recall and F1, each (n,)."""

    precision: Numbers
    recall: Numbers
    f1: Numbers


def information(taxonomy: Taxonomy) -> Numbers:
    """I(v) in bits for every node, (n_nodes,); 0 at the root."""
    return _tables(taxonomy).information


def compare(taxonomy: Taxonomy, truth: Nodes, predicted: Nodes) -> Information:
    """Score predicted nodes against true nodes; a prediction below a true inner node counts as that node.

    Raises:
        ValueError: a node number that the taxonomy does not have.
    """
    tables = _tables(taxonomy)
    n_nodes = len(tables.information)
    for name, numbers in (("truth", truth), ("prediction", predicted)):
        if len(numbers) and not (numbers.min() >= 0 and numbers.max() < n_nodes):
            raise ValueError(f"{name} names node {int(numbers.max())}; expected numbers in 0..{n_nodes - 1}")
    common = tables.ancestor[truth, predicted]
    predicted = np.where(common == truth, truth, predicted)
    shared, of_truth, of_prediction = (tables.information[x] for x in (common, truth, predicted))
    recall = _ratio(shared, of_truth)
    precision = _ratio(shared, of_prediction)
    total = precision + recall
    f1 = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=(precision > 0) & (recall > 0))
    return Information(precision, recall, f1)


def leaf(taxonomy: Taxonomy, probabilities: Numbers) -> Nodes:
    """The likeliest class of each row, as a node number; probabilities are (n, n_classes)."""
    best: Nodes = probabilities.argmax(axis=1) + len(taxonomy.children)
    return best


def node_probabilities(taxonomy: Taxonomy, probabilities: Numbers) -> Numbers:
    """p(v), the sum over the classes under v, (n, n_nodes)."""
    return probabilities @ _tables(taxonomy).under.T.astype(np.float64)


def majority(taxonomy: Taxonomy, probabilities: Numbers) -> Nodes:
    """The deepest node with p(v) > 1/2, by fewest classes below it, then by larger p(v); the root at worst."""
    p = node_probabilities(taxonomy, probabilities)
    size = _tables(taxonomy).under.sum(axis=1)
    likely = p > 0.5
    likely[:, taxonomy.number[taxonomy.root]] = True  # its sum may fall short of 1 by rounding
    rank = np.where(likely, size[None, :] - p / 2, np.inf)  # p/2 < 1 never outweighs a class more
    best: Nodes = rank.argmin(axis=1)
    return best


def best_expected_f1(taxonomy: Taxonomy, probabilities: Numbers) -> Nodes:
    """arg max over nodes v of the expected F1, sum over classes l of q(l) F1(l, v); may stop at an inner node."""
    best: Nodes = (probabilities @ _leaf_f1(taxonomy)).argmax(axis=1)
    return best


def _ratio(part: Numbers, whole: Numbers) -> Numbers:
    """part / whole, and 1 where the whole is 0: the root says nothing, so nothing it says is wrong or missed."""
    return np.divide(part, whole, out=np.ones_like(part), where=whole > 0)


@lru_cache(maxsize=16)
def _tables(taxonomy: Taxonomy) -> _Tables:
    nodes, number = taxonomy.nodes, taxonomy.number
    n_classes = len(taxonomy.classes)
    under = np.zeros((len(nodes), n_classes), bool)
    for node in nodes:
        under[number[node], taxonomy.below[node]] = True
    paths = [set(taxonomy.path(node)) for node in nodes]
    ancestor = np.zeros((len(nodes), len(nodes)), np.int64)
    for node in nodes:  # parents before children, so a deeper common ancestor overwrites a higher one
        inside = [i for i, path in enumerate(paths) if node in path]
        ancestor[np.ix_(inside, inside)] = number[node]
    return _Tables(np.log2(n_classes / under.sum(axis=1)), ancestor, under)


@lru_cache(maxsize=16)
def _leaf_f1(taxonomy: Taxonomy) -> Numbers:
    """F1(l, v) of answering node v when class l is true, (n_classes, n_nodes)."""
    n_inner, n_nodes = len(taxonomy.children), len(taxonomy.nodes)
    truth = np.repeat(np.arange(n_inner, n_nodes), n_nodes)
    answers = np.tile(np.arange(n_nodes), n_nodes - n_inner)
    return compare(taxonomy, truth, answers).f1.reshape(-1, n_nodes)
