"""FedAvg by hand, with the closed-form learner; lr 0.5.

Agent a has one sample of value 2, agent b three of value 6. From 0, one step each: a 0 + .5 (2 - 0) = 1, b 3; their
mean by samples is (1 * 1 + 3 * 3) / 4 = 2.5. The second round: a 2.5 + .5 (2 - 2.5) = 2.25, b 4.25, mean 3.75.
"""

from pathlib import Path

import numpy as np
import pytest

from common.errors import ConfigError
from common.method import Training
from common.methods import fedavg
from common.payloads import Weights
from tests.methods.closed_form import PullLearner, PullModel, constant
from tests.methods.contract import Case, loopback
from tests.methods.loopback import Faults, Loopback

CASES = (
    Case("plain", fedavg.Config()),
    Case("own heads", fedavg.Config(), head="agent", keeps_memory=True),
    Case("own batch norm", fedavg.Config(bn="local"), keeps_memory=True),
    Case("own heads and batch norm", fedavg.Config(bn="local"), head="agent", keeps_memory=True),
)
BY_HAND = Case(
    "by hand",
    fedavg.Config(),
    training=Training(lr=0.5, epochs=1),
    model=PullModel(),
    learner=PullLearner,
    data=lambda: {"a": constant(1, 2.0), "b": constant(3, 6.0)},
)


def trunk(fleet: Loopback) -> float:
    return float(fleet.state.weights["trunk.weight"][0])


def test_two_rounds_by_hand(tmp_path: Path) -> None:
    fleet = loopback(fedavg, BY_HAND, tmp_path).rounds(1)
    assert trunk(fleet) == 2.5
    assert trunk(fleet.rounds(1)) == 3.75


def test_the_mean_is_over_those_who_replied(tmp_path: Path) -> None:
    fleet = loopback(fedavg, BY_HAND, tmp_path)
    fleet.round(faults=Faults(lost=("b",)))
    assert trunk(fleet) == 1.0


def test_zero_steps_change_nothing(tmp_path: Path) -> None:
    case = Case("idle", fedavg.Config(), training=Training(epochs=0))
    fleet = loopback(fedavg, case, tmp_path)
    before = fleet.digest(fleet.state)
    assert fleet.digest(fleet.rounds(2).state) == before


def test_an_agent_without_samples_says_so_and_is_left_out(tmp_path: Path) -> None:
    fleet = loopback(fedavg, BY_HAND, tmp_path)
    fleet.data["c"] = constant(0, 0.0)
    fleet.reports["c"] = {}
    assert trunk(fleet.rounds(1)) == 2.5
    assert "c" not in fleet.replies


def test_own_heads_never_travel_and_differ(tmp_path: Path) -> None:
    fleet = loopback(fedavg, CASES[1], tmp_path).rounds(2)
    assert not [name for name in fleet.state.weights if name.startswith("classifier")]
    shapes = {fleet.memory(name).own["classifier.bias"].shape for name in fleet.data}
    assert shapes == {(4,), (3,), (2,)}


def test_local_batch_norm_starts_from_the_runs_first_values_and_stays(tmp_path: Path) -> None:
    fleet = loopback(fedavg, CASES[2], tmp_path).rounds(1)
    assert not [name for name in fleet.state.weights if name.startswith("norm")]
    owns = [fleet.memory(name).own for name in fleet.data]
    assert all(set(own) == {"norm.scale", "norm.mean", "norm.count"} for own in owns)
    assert len({own["norm.mean"].tobytes() for own in owns}) == 3
    assert set(fedavg.result(fleet.run, fleet.state)["weights"]) == set(fleet.state.weights) | set(owns[0])


def test_batch_norm_is_averaged_by_default_and_its_counter_is_the_largest(tmp_path: Path) -> None:
    fleet = loopback(fedavg, CASES[0], tmp_path).rounds(1)
    # 2 epochs in batches of 4: 5, 9 and 13 samples are 4, 6 and 8 steps
    assert fleet.state.weights["norm.count"] == 8
    assert fleet.state.weights["norm.count"].dtype == np.int64


def test_an_earlier_run_gives_the_first_weights(tmp_path: Path) -> None:
    earlier = Weights({"trunk.weight": np.array([9.0], np.float32)})
    case = Case("from", fedavg.Config(), model=PullModel(), learner=PullLearner, start={"weights": earlier})
    assert trunk(loopback(fedavg, case, tmp_path)) == 9.0


def test_earlier_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    earlier = Weights({"trunk.weight": np.zeros((2, 2), np.float32)})
    case = Case("from", fedavg.Config(), model=PullModel(), learner=PullLearner, start={"weights": earlier})
    with pytest.raises(ConfigError, match=r"'trunk.weight' must be \[1\], got \[2, 2\]"):
        loopback(fedavg, case, tmp_path)


def test_an_earlier_head_of_another_shape_is_left_out(tmp_path: Path) -> None:
    arrays = {"trunk.weight": np.array([9.0], np.float32), "classifier.weight": np.ones((7, 1), np.float32)}
    case = Case("from", fedavg.Config(), model=PullModel(), learner=PullLearner, start={"weights": Weights(arrays)})
    fleet = loopback(fedavg, case, tmp_path)
    assert trunk(fleet) == 9.0
    assert fleet.state.weights["classifier.weight"] == [0.0]
