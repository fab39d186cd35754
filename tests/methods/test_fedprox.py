"""FedProx by hand: as FedAvg's example with two local steps and mu = 1, lr 0.5.

Agent a: step 1, 0 + .5 (2 - 0) - .5 * 1 (0 - 0) = 1; step 2, 1 + .5 (2 - 1) - .5 * 1 (1 - 0) = 1.
Agent b: 3, then 3 + .5 (6 - 3) - .5 * 3 = 3. Mean (1 * 1 + 3 * 3) / 4 = 2.5, where FedAvg
has (1.5 + 3 * 4.5) / 4 = 3.75.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from common.methods import fedavg, fedprox
from tests.methods import test_fedavg
from tests.methods.contract import Case, Folders, loopback

CASES = (
    Case("plain", fedprox.Config(mu=0.1)),
    Case("own heads and batch norm", fedprox.Config(mu=0.1, bn="local"), head="agent", keeps_memory=True),
)
TWO_STEPS = replace(test_fedavg.BY_HAND, training=replace(test_fedavg.BY_HAND.training, epochs=2))


def test_two_steps_by_hand(folders: Folders) -> None:
    held = loopback(fedprox, replace(TWO_STEPS, config=fedprox.Config(mu=1.0)), folders()).rounds(1)
    assert test_fedavg.trunk(held) == 2.5
    free = loopback(fedavg, TWO_STEPS, folders()).rounds(1)
    assert test_fedavg.trunk(free) == 3.75


@pytest.mark.parametrize("case", test_fedavg.CASES, ids=str)
def test_without_mu_it_is_fedavg_bit_for_bit(case: Case, folders: Folders) -> None:
    bare = replace(case, config=fedprox.Config(mu=0.0, bn=case.config.bn))
    mine, theirs = (
        loopback(fedprox, bare, folders()).rounds(3),
        loopback(fedavg, case, folders()).rounds(3),
    )
    assert mine.digest(mine.state) == theirs.digest(theirs.state)


def test_it_holds_nearer(tmp_path: Path, folders: Folders) -> None:
    case = CASES[0]
    near = loopback(fedprox, replace(case, config=fedprox.Config(mu=5.0)), folders()).rounds(1).state.weights
    far = loopback(fedprox, replace(case, config=fedprox.Config(mu=0.0)), folders()).rounds(1).state.weights
    first = loopback(fedprox, case, tmp_path).state.weights
    for name in ("trunk.weight", "classifier.weight"):
        assert abs(near[name] - first[name]).sum() < abs(far[name] - first[name]).sum()


@pytest.mark.parametrize("mu", [-0.1, float("nan"), float("inf")])
def test_mu_must_be_a_number_from_zero_up(mu: float) -> None:
    with pytest.raises(ValueError, match="mu must be finite and at least 0, got"):
        fedprox.Config(mu=mu)
