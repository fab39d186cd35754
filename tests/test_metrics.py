import math
from typing import Any, cast

import numpy as np
import pytest

from common import metrics
from common.errors import UnknownName
from common.method import RunSpec

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
