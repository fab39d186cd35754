import math
from typing import Any, cast

import numpy as np
import pytest

from common import metrics, taxonomy
from common.errors import UnknownName
from common.method import ModelSpec, RunSpec, Training

RUN = cast(RunSpec[Any], None)  # these metrics look at scores and labels only
SCORES = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]], np.float32))


def test_accuracy_counts_and_loss_sums() -> None:
    got = metrics.sums(["accuracy", "loss"], SCORES, np.array([0, 1]), RUN)
    assert got["accuracy"] == 1
    assert got["loss"] == pytest.approx(-math.log(0.5) - math.log(0.1))


def test_loss_of_large_scores_does_not_overflow() -> None:
    scores = np.array([[1e4, 0.0]], np.float32)
    assert metrics.loss(scores, np.array([1]), RUN) == pytest.approx(1e4)


def test_a_class_that_was_ruled_out_cannot_be_chosen_and_costs_a_finite_amount() -> None:
    scores = metrics.ruled_out(SCORES, np.array([True, True, False]))
    assert metrics.accuracy(scores, np.array([0, 2]), RUN) == 1
    assert metrics.loss(scores, np.array([2, 2]), RUN) == pytest.approx(2 * -math.log(1e-12))
    assert metrics.loss(scores, np.array([0, 0]), RUN) == pytest.approx(-math.log(2 / 3) - math.log(1 / 2))


def test_no_examples_sum_to_zero() -> None:
    assert metrics.sums(["accuracy", "loss"], SCORES[:0], np.array([], np.int64), RUN) == {"accuracy": 0, "loss": 0}


def test_unknown_metric_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'accuracy'"):
        metrics.metric("acuracy")


CIFAR = taxonomy.from_coarse([f"c{i}" for i in range(100)], [f"u{i // 5}" for i in range(100)])
TREE_RUN: RunSpec[Any] = RunSpec(
    "r", "m", None, ModelSpec("linear"), Training(), 1, 1, classes=tuple(f"c{i}" for i in range(100)), taxonomy=CIFAR
)


def test_leaf_f1_of_a_tree_of_20_times_5_is_a_weighted_sum_of_two_accuracies() -> None:
    rng = np.random.default_rng(3)
    y, scores = rng.integers(0, 100, 500), rng.standard_normal((500, 100))
    scores[np.arange(500), y] += 2
    fine = (scores.argmax(1) == y).mean()
    upper = (scores.argmax(1) // 5 == y // 5).mean()
    got = metrics.sums(["information_f1", "information_precision", "information_recall"], scores, y, TREE_RUN)
    assert got["information_f1"] / 500 == pytest.approx(0.349485 * fine + 0.650515 * upper, abs=1e-6)
    assert got["information_precision"] == pytest.approx(got["information_f1"])  # a leaf for a leaf
    assert got["information_recall"] == pytest.approx(got["information_f1"])


def test_hierarchical_metrics_take_scores_that_rule_classes_out() -> None:
    scores = metrics.ruled_out(np.zeros((1, 100)), np.arange(100) < 5)
    assert metrics.sums(["majority_f1", "majority_recall"], scores, np.array([2]), TREE_RUN) == {
        "majority_f1": pytest.approx(2 * 0.650515 / 1.650515, abs=1e-6),  # u0 for c2: precision 1
        "majority_recall": pytest.approx(0.650515, abs=1e-6),
    }
