import math
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.average import means_by_group, means_by_node, weighted_mean
from common.errors import QuorumMissed, RemoteFault
from common.payloads import Weights

LIKE = Weights({"w": np.zeros(2, np.float32), "n": np.array(0, np.int64)}, {"n": "counter"})


def weights(w: tuple[float, float], n: int = 0) -> Weights:
    return Weights({"w": np.array(w, np.float32), "n": np.array(n)}, {"n": "counter"})


def test_floats_are_averaged_by_mass_and_of_counters_the_largest_is_taken() -> None:
    mean = weighted_mean([("a", 1, weights((2, 0), 7)), ("b", 3, weights((6, 4), 5))], LIKE)
    assert mean["w"].tolist() == [5.0, 3.0]
    assert mean["n"] == 7
    assert mean["w"].dtype == np.float32
    assert mean["n"].dtype == np.int64
    assert mean.kind("n") == "counter"


def test_integers_are_never_averaged_whatever_their_kind_says() -> None:
    like = Weights({"steps": np.array([0], np.int32)})
    mean = weighted_mean([("a", 1, Weights({"steps": np.array([1], np.int32)})), ("b", 1, like)], like)
    assert mean["steps"].tolist() == [1]


def test_an_agent_of_no_mass_counts_for_nothing_not_even_its_counter() -> None:
    mean = weighted_mean([("a", 0, weights((9, 9), 9)), ("b", 2, weights((1, 2), 1))], LIKE)
    assert mean["w"].tolist() == [1.0, 2.0]
    assert mean["n"] == 1


@pytest.mark.parametrize("parts", [[], [("a", 0, weights((1, 1)))]])
def test_no_mass_is_an_error_and_never_zeros(parts: list[tuple[str, float, Weights]]) -> None:
    with pytest.raises(QuorumMissed, match="nothing to average"):
        weighted_mean(parts, LIKE)


@pytest.mark.parametrize("mass", [-1, math.nan, math.inf])
def test_a_mass_that_is_none_names_the_agent(mass: float) -> None:
    with pytest.raises(RemoteFault, match="agent a: the weight of its reply must be finite and at least 0, got"):
        weighted_mean([("a", mass, weights((1, 1)))], LIKE)


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        (Weights({"n": np.array(0)}), r"agent b: tensor 'w' is missing from its reply, expected \[2\]"),
        (
            weights((1, 1)).updated({"w": np.zeros(3)}),
            r"agent b: tensor 'w' has another shape, expected \[2\], got \[3\]",
        ),
        (weights((1, 1)).updated({"x": np.zeros(1)}), "agent b: tensor 'x' is not part of the run's model"),
        (weights((1, 1)).updated({"w": np.zeros(2)}), "agent b: tensor 'w' must be of float32, got float64"),
        (weights((1, 1)).updated({"n": np.float32(1)}), "agent b: tensor 'n' must be of int64, got float32"),
        (weights((1, 1)).updated({"n": np.int8(1)}), "agent b: tensor 'n' must be of int64, got int8"),
    ],
)
def test_other_names_shapes_and_types_are_named(sent: Weights, text: str) -> None:
    with pytest.raises(RemoteFault, match=text):
        weighted_mean([("a", 1, weights((1, 1))), ("b", 1, sent)], LIKE)


def test_float32_addition_is_not_what_is_used() -> None:
    parts = [("a", 1.0, weights((1e8, 0)))] + [(f"b{i}", 1.0, weights((1, 0))) for i in range(100)]
    mean = weighted_mean(parts, LIKE)
    assert mean["w"][0] == np.float32((1e8 + 100) / 101)  # in float32 each 1 would be lost beside 1e8


@given(st.lists(st.tuples(st.integers(1, 1000), st.floats(-1e3, 1e3, width=32)), min_size=1, max_size=20))
def test_a_mean_lies_between_and_equals_the_formula(parts: list[tuple[int, float]]) -> None:
    like = Weights({"w": np.zeros(1, np.float32)})
    given_parts = ((str(i), n, Weights({"w": np.array([x], np.float32)})) for i, (n, x) in enumerate(parts))
    mean = float(weighted_mean(given_parts, like)["w"][0])
    exact = sum(n * x for n, x in parts) / sum(n for n, _ in parts)
    assert mean == pytest.approx(exact, rel=1e-6, abs=1e-4)
    assert min(x for _, x in parts) - 1e-4 <= mean <= max(x for _, x in parts) + 1e-4


def test_memory_does_not_grow_with_the_number_of_replies() -> None:
    size = 200_000
    like = Weights({"w": np.zeros(size, np.float32)})

    def parts(n: int) -> Iterator[tuple[str, float, Weights]]:
        for i in range(n):
            yield str(i), 1.0, Weights({"w": np.full(size, i, np.float32)})

    def peak(n: int) -> int:
        tracemalloc.start()
        weighted_mean(parts(n), like)
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    assert peak(40) < peak(3) + size  # one more reply held would be 4 * size


def test_groups_of_one_are_not_summed_up() -> None:
    size, like = 200_000, Weights({"w": np.zeros(200_000, np.float32)})
    sent = [Weights({"w": np.full(size, i, np.float32)}) for i in range(20)]
    tracemalloc.start()
    means = means_by_group(((str(i), str(i), 3.0, weights) for i, weights in enumerate(sent)), like)
    top = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert top < size  # one sum would be 8 * size
    assert [mean["w"][0] for mean in means.values()] == list(range(20))


def test_a_group_without_samples_leaves_the_others_alone() -> None:
    parts = [("a", "x", 0, weights((9, 9))), ("b", "y", 2, weights((1, 2))), ("c", "y", 2, weights((3, 4)))]
    means = means_by_group(parts, LIKE)
    assert {group: mean["w"].tolist() for group, mean in means.items()} == {"y": [2.0, 3.0]}
    with pytest.raises(QuorumMissed, match="nothing to average"):
        means_by_group(parts[:1], LIKE)


def test_means_by_node_are_those_of_each_node_alone() -> None:
    like = {node: Weights({"w": np.zeros(1, np.float32)}) for node in ("A", "B", "C", "D")}

    def one(x: float) -> Weights:
        return Weights({"w": np.array([x], np.float32)})

    parts = [("a", "A", 1, one(2)), ("a", "B", 1, one(7)), ("b", "A", 3, one(6)), ("b", "D", 0, one(9))]
    means = means_by_node(parts, like)
    assert {node: mean["w"].tolist() for node, mean in means.items()} == {"A": [5.0], "B": [7.0]}
    with pytest.raises(QuorumMissed, match="nothing to average"):
        means_by_node([("b", "D", 0, one(9))], like)
    with pytest.raises(RemoteFault, match="agent a: expert 'X' is of no inner node of the run's taxonomy"):
        means_by_node([("a", "X", 1, one(2))], like)
