"""APFL by hand: one tensor pair (t, v), equal in all; one step of lr 0.5, alpha 0.5, an agent of value 1.

From w = v = 0, mix 0: both gradients are -1. w = .5; v = 0 + .5 * .5 * 1 = .25. Mix .375, gradient -.625, slope over
both tensors 2 * (.25 - .5) * -.625 = .3125, alpha = .5 - .5 * .3125 = .34375.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from common.errors import ConfigError
from common.method import Training
from common.methods import apfl
from tests.methods import test_fedavg
from tests.methods.closed_form import PullLearner, PullModel, constant
from tests.methods.contract import Case, loopback

CASES = (
    Case("plain", apfl.Config(), keeps_memory=True, model=PullModel(), learner=PullLearner),
    Case("fixed", apfl.Config(adaptive=False), head="agent", keeps_memory=True, model=PullModel(), learner=PullLearner),
)
BY_HAND = replace(
    test_fedavg.BY_HAND, config=apfl.Config(), data=lambda: {"a": constant(1, 1.0), "b": constant(3, 6.0)}
)


def test_a_task_by_hand(tmp_path: Path) -> None:
    fleet = loopback(apfl, BY_HAND, tmp_path).rounds(1, evaluate=True)
    memory = fleet.memory("a")
    assert memory.own["trunk.weight"] == [0.25]
    assert memory.alpha == 0.34375
    assert fleet.state.weights["trunk.weight"] == [(0.5 + 3 * 3) / 4]
    mix = np.float32(0.34375) * np.float32(0.25) + np.float32(1 - 0.34375) * np.float32(0.5)
    assert fleet.predictions["a", "trained", 0]["personal"][0, 0] == mix
    assert fleet.counts["a"] == {"alpha": 0.34375}


def test_alpha_stays_between_zero_and_one(tmp_path: Path) -> None:
    assert loopback(apfl, BY_HAND, tmp_path).rounds(1).memory("b").alpha == 0.0


def test_momentum_is_that_of_the_learner(tmp_path: Path) -> None:
    """Heavy ball: v <- m v + g, w <- w - lr v. From 0 to 1: w = .5, then speed .5 * -1 - .5 = -1, w = 1."""
    training = Training(lr=0.5, momentum=0.5, epochs=2, batch=1)
    fleet = loopback(apfl, replace(BY_HAND, training=training, data=lambda: {"a": constant(1, 1.0)}), tmp_path)
    assert fleet.rounds(1).state.weights["trunk.weight"] == [1.0]


def test_running_statistics_and_other_optimisers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"apfl needs a model without running .* got tensor 'norm.mean'"):
        loopback(apfl, Case("statistics", apfl.Config()), tmp_path)
    adam = replace(BY_HAND, training=Training(optimiser="adamw"))
    with pytest.raises(ConfigError, match="got optimiser adamw"):
        loopback(apfl, adam, tmp_path)


def test_alpha_must_be_a_share() -> None:
    with pytest.raises(ValueError, match=r"alpha must be in \[0, 1\], got 2"):
        apfl.Config(alpha=2)
