"""The worked example of the metric: R -> {A, B}; A -> {A1, A2}; A1 -> {a, b}; A2 -> {c, d}; B -> {e, f, g, h}.

Eight classes, so leaves have 3 bits, A1 and A2 log2(8/2) = 2, A and B log2(8/4) = 1, the root 0.
"""

import numpy as np
import pytest

from common import decoding, information, taxonomy

EDGES = (("R", "A"), ("R", "B"), ("A", "A1"), ("A", "A2"), ("A1", "a"), ("A1", "b"), ("A2", "c"), ("A2", "d"))
TREE = taxonomy.build((*EDGES, *(("B", leaf) for leaf in "efgh")), tuple("abcdefgh"))
LEAVES = np.array([[0.30, 0.05, 0.05, 0.05, 0.14, 0.14, 0.14, 0.13]])

ROWS = [  # truth, prediction, P, R, F1
    ("a", "a", 1, 1, 1),
    ("a", "b", 2 / 3, 2 / 3, 2 / 3),
    ("a", "c", 1 / 3, 1 / 3, 1 / 3),
    ("a", "e", 0, 0, 0),
    ("e", "f", 1 / 3, 1 / 3, 1 / 3),
    ("a", "A1", 1, 2 / 3, 0.8),
    ("a", "R", 1, 0, 0),
    ("a", "A2", 1 / 2, 1 / 3, 0.4),
]


def numbers(names):
    return np.array([TREE.number[name] for name in names])


def conditionals(leaves):
    """Experts that agree with a distribution over the leaves."""

    def experts(node, rows):
        p = np.stack([leaves[:, TREE.below[child]].sum(axis=1) for child in TREE.children[node]], axis=1)[rows]
        return np.log(p / p.sum(axis=1, keepdims=True))

    return experts


@pytest.mark.parametrize(("truth", "predicted", "precision", "recall", "f1"), ROWS)
def test_a_row_of_the_table(truth, predicted, precision, recall, f1):
    got = information.compare(TREE, numbers([truth]), numbers([predicted]))
    assert (got.precision[0], got.recall[0], got.f1[0]) == pytest.approx((precision, recall, f1))


def test_the_means_are_of_the_rows_not_of_the_mean_precision_and_recall():
    got = information.compare(TREE, numbers([r[0] for r in ROWS]), numbers([r[1] for r in ROWS]))
    means = (got.precision.mean(), got.recall.mean(), got.f1.mean())
    assert means == pytest.approx((0.6041667, 0.4166667, 0.4416667), abs=1e-6)


def test_an_answer_below_a_true_inner_node_is_cut_back_to_it():
    got = information.compare(TREE, numbers(["A1"]), numbers(["a"]))
    assert (got.precision[0], got.recall[0], got.f1[0]) == (1, 1, 1)


def test_one_class_has_no_information_and_is_always_right():
    tree = taxonomy.Taxonomy("a", ("a",), {})
    got = information.compare(tree, np.array([0]), np.array([0]))
    assert (got.precision[0], got.recall[0], got.f1[0]) == (1, 1, 1)


def test_a_node_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="names node 99"):
        information.compare(TREE, np.array([99]), np.array([0]))


def test_two_levels_of_twenty_by_five_follow_the_identity():
    """F1 = 1 for the class, log 20 / log 100 for the right coarse class, 0 otherwise."""
    classes = tuple(f"c{i:02d}" for i in range(100))
    coarse = [f"k{i % 20}" for i in range(100)]
    tree = taxonomy.build(taxonomy.from_coarse(classes, coarse), classes)
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 100, 5000), rng.integers(0, 100, 5000)
    predicted = np.where(rng.random(5000) < 0.4, truth, predicted)
    first = len(tree.children)
    f1 = information.compare(tree, truth + first, predicted + first).f1.mean()
    fine, right_coarse = (truth == predicted).mean(), (truth % 20 == predicted % 20).mean()
    assert f1 == pytest.approx(0.3494850022 * fine + 0.6505149978 * right_coarse, abs=1e-9)


def test_readings_of_the_worked_distribution():
    """greedy -> e, product -> a, majority -> B, best expected F1 -> a with 0.36667."""
    experts = conditionals(LEAVES)
    assert TREE.classes[decoding.greedy(TREE, experts, 1).classes[0]] == "e"
    assert TREE.classes[decoding.product(TREE, experts, 1).classes[0]] == "a"
    assert TREE.nodes[information.majority(TREE, LEAVES)[0]] == "B"
    assert TREE.nodes[information.best_expected_f1(TREE, LEAVES)[0]] == "a"
    expected = LEAVES @ information._leaf_f1(TREE)
    by_name = [expected[0, TREE.number[name]] for name in ("a", "A1", "b", "e", "B")]
    assert by_name == pytest.approx([0.36667, 0.32, 0.28333, 0.27667, 0.275], abs=1e-5)
