import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from common import decoding, taxonomy


def random_tree(rng, n_classes):
    """Joins random groups of two to four nodes until one is left."""
    nodes, edges = [f"c{i}" for i in range(n_classes)], []
    classes = tuple(nodes)
    while len(nodes) > 1:
        group = [nodes.pop(rng.integers(len(nodes))) for _ in range(min(len(nodes), int(rng.integers(2, 5))))]
        edges += [(f"n{len(edges)}", child) for child in group]
        first = edges[-len(group)][0]
        edges[-len(group) :] = [(first, child) for child in group]
        nodes.append(first)
    return taxonomy.build(tuple(edges), classes)


def random_experts(rng, tree, n):
    outputs = {}
    for node, children in tree.children.items():
        logits = rng.normal(size=(n, len(children)))
        outputs[node] = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return outputs


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n_classes=st.integers(2, 25))
def test_lazy_product_equals_brute_force_and_never_evaluates_an_expert_twice(seed, n_classes):
    rng = np.random.default_rng(seed)
    tree, n = random_tree(rng, n_classes), 7
    outputs = random_experts(rng, tree, n)
    seen = []

    def experts(node, rows):
        seen.extend((node, row) for row in rows)
        return outputs[node][rows]

    decoded = decoding.product(tree, experts, n)
    assert len(seen) == len(set(seen)) == decoded.n_evaluations.sum()
    everything = decoding.distribution(tree, lambda node, rows: outputs[node][rows], n)
    np.testing.assert_array_equal(decoded.classes, everything.argmax(axis=1))
    np.testing.assert_allclose(np.exp(everything).sum(axis=1), 1)
    wide = decoding.beam(tree, lambda node, rows: outputs[node][rows], n, width=n_classes)
    np.testing.assert_array_equal(wide.classes, decoded.classes)


def test_greedy_costs_the_depth_of_its_answer_and_takes_the_lowest_child_of_a_tie():
    tree = taxonomy.build((("R", "A"), ("R", "c"), ("A", "a"), ("A", "b")), ("a", "b", "c"))
    decoded = decoding.greedy(tree, lambda node, rows: np.log(np.full((len(rows), 2), 0.5)), 2)
    assert decoded.classes.tolist() == [0, 0]
    assert decoded.n_evaluations.tolist() == [2, 2]
