from pathlib import Path

import numpy as np
import pytest

from benchmarks import theory_fedobp as theory
from common.method import ModelSpec
from common.payloads import Weights
from common.samples import from_arrays
from edge_client import learners


def test_rank_correlation_by_hand() -> None:
    """Ranks 1 2 3 4 against 1 3 2 4: 1 - 6 * 2 / (4 * 15) = 0.8; ties share their mean rank."""
    assert theory.rank_correlation(np.array([1, 2, 3, 9]), np.array([10, 30, 20, 40])) == pytest.approx(0.8)
    assert theory.rank_correlation(np.array([1, 2, 3]), np.array([3, 2, 1])) == pytest.approx(-1)
    assert theory.rank_correlation(np.array([1, 1, 2]), np.array([5, 5, 7])) == pytest.approx(1)
    assert theory.rank_correlation(np.array([1, 2, 3]), np.array([4, 4, 4])) == 0


def test_losses_by_hand() -> None:
    """One pixel of value 1, scores (w0, w1): c = (0, ln 3) gives class 1 probability 3/4, g = (0, 0) gives it 1/2.

    The score |(c - g) c| is above 0 only for w1, so with k = 1 c falls back to ln 2 and g improves to ln 4/3.
    """
    learner = learners.make("numpy", ModelSpec("linear", {"input": "1x1x1"}), 2)
    samples = from_arrays(np.ones((3, 1, 1, 1), np.float32), np.ones(3, np.int64), 2)

    def model(w1: float) -> Weights:
        arrays = {"classifier.weight": np.array([[0], [w1]], np.float32), "classifier.bias": np.zeros(2, np.float32)}
        return Weights({name: arrays[name] for name in learner.parameters()})

    pair = theory.Pair("a", model(float(np.log(3))), model(0.0), samples)
    assert theory.loss(learner, pair.own, samples) == pytest.approx(np.log(4 / 3))
    rows = {(row.order, row.k): row for row in theory._replaced(learner, pair)}
    by_score = rows["score", 1]
    assert by_score.rise == pytest.approx(np.log(2) - np.log(4 / 3), abs=1e-6)
    assert by_score.fall == pytest.approx(np.log(2) - np.log(4 / 3), abs=1e-6)


def test_the_highest_scores_matter_more_than_as_many_at_random(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    found = theory.run("quickstart", tmp_path, {}, rounds=3, n_agents=3)
    most = max(row.k for row in found.replaced)
    by_order = {row.order: row for row in found.replaced if row.k == most}
    assert by_order["score"].rise > 2 * by_order["random"].rise
    assert by_order["score"].fall > 2 * by_order["random"].fall
    assert len(found.agents) == 3
    assert (tmp_path / "fedobp_theory.json").stat().st_size > 1000
