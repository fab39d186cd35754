"""The flat baseline is FedAvg with a taxonomy; by hand on two classes of four under each of two nodes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from common import metrics
from common.errors import ConfigError
from common.method import Encodings, ModelSpec, RunSpec
from common.methods import fedavg, flat_softmax
from tests.methods import test_fedavg
from tests.methods.contract import Case, loopback

EDGES = (("all", "A"), ("all", "B"), ("A", "class0"), ("A", "class1"), ("B", "class2"), ("B", "class3"))
CASES = (Case("flat", flat_softmax.Config(), taxonomy=EDGES),)


def test_it_trains_bit_for_bit_as_fedavg(tmp_path: Path) -> None:
    flat = loopback(flat_softmax, CASES[0], tmp_path / "flat").rounds(2)
    fed = loopback(fedavg, replace(test_fedavg.CASES[0], config=fedavg.Config()), tmp_path / "fed").rounds(2)
    assert flat.digest(flat.state) == fed.digest(fed.state)


def test_a_run_without_taxonomy_says_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"method flat_softmax needs a class taxonomy.*set \[data\] taxonomy"):
        loopback(flat_softmax, replace(CASES[0], taxonomy=None), tmp_path)


def test_its_hierarchical_readings_are_metrics_of_one_reading(tmp_path: Path) -> None:
    """Leaf, majority and best expected F1 differ on p = (.4, .1, .3, .2): A and B are even, no node is above 1/2."""
    fleet = loopback(flat_softmax, CASES[0], tmp_path).rounds(1, evaluate=True)
    assert {name for readings in fleet.predictions.values() for name in readings} == {"model"}
    scores, y = np.log(np.array([[0.4, 0.1, 0.3, 0.2]])), np.array([1])
    got = metrics.sums(["information_f1", "majority_f1", "majority_precision", "expected_f1"], scores, y, fleet.run)
    assert got["information_f1"] == pytest.approx(0.5)  # class0 for class1: A, 1 bit of 2
    assert got["majority_f1"] == 0  # the root
    assert got["majority_precision"] == 1
    assert got["expected_f1"] == pytest.approx(0.5)  # class0: .4 + .1 / 2 = .45; A: .5 * 2/3 = .33


def spec() -> RunSpec[flat_softmax.Config]:
    return RunSpec("r", "flat_softmax", flat_softmax.Config(), ModelSpec("tiny"), test_fedavg.CASES[0].training, 1, 1)


def test_a_hierarchical_metric_without_taxonomy_says_what_to_set() -> None:
    assert spec().encodings == Encodings()
    with pytest.raises(ConfigError, match=r"set \[data\] taxonomy"):
        metrics.sums(["information_f1"], np.zeros((1, 2)), np.array([0]), spec())
