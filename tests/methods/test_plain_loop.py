"""Four agents, five rounds: the methods through the codec equal a plain loop that knows neither codec nor engine."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from common import seeds
from common.methods import fedavg, fedprox, local
from common.payloads import Weights
from tests.methods import plain_loop
from tests.methods.contract import Case, loopback
from tests.methods.loopback import TRAINING, make_data
from tests.methods.tiny import TinyLearner

ROUNDS = 5
TOLERANCE = 1e-6  # usual difference 1e-7: a float64 sum in another order, rounded to float32 once a round
PLAIN = Case("plain", fedavg.Config(), data=lambda: make_data(4))


def federation(seed: int) -> plain_loop.Federation:
    samples = {name: data.train for name, data in make_data(4).items()}
    return plain_loop.Federation(
        TinyLearner(4),
        samples,
        TRAINING,
        lambda number, agent: seeds.generator(seed, number, number - 1, agent, "work"),
    )


def assert_close(mine: Weights, plain: Weights) -> None:
    assert list(mine) == list(plain)
    for name in mine:
        assert np.allclose(mine[name], plain[name], rtol=0, atol=TOLERANCE), name


@pytest.mark.parametrize("mu", [0.0, 0.3])
def test_fedavg_and_fedprox(mu: float, tmp_path: Path) -> None:
    method, config = (fedprox, fedprox.Config(mu)) if mu else (fedavg, fedavg.Config())
    fleet = loopback(method, replace(PLAIN, config=config), tmp_path)
    first = fleet.state.weights
    fleet.rounds(ROUNDS)
    assert_close(fleet.state.weights, plain_loop.fedprox(federation(fleet.run.seed), first, ROUNDS, mu))


def test_local(tmp_path: Path) -> None:
    fleet = loopback(local, replace(PLAIN, config=local.Config()), tmp_path)
    plain = plain_loop.local(federation(fleet.run.seed), fleet.state.first, ROUNDS)
    fleet.rounds(ROUNDS)
    for name, weights in plain.items():
        assert_close(fleet.memory(name).weights, weights)
