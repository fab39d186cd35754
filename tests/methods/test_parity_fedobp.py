"""Two rounds of FedAvg, FedPer and FedOBP on Fashion-MNIST against another implementation's counts and distances.

The methods' own plan, work, merge and predict, through the codec; only the batch orders are given. Round 1 is the same
for all of them, so it is trained once.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from common import models
from common.method import Fitted, Learner, ModelSpec, RunSpec, Training
from common.methods import fedavg, fedobp, fedper
from common.payloads import Weights
from common.samples import Samples
from edge_client import learners
from tests import fashion_parity
from tests.fashion_parity import N_ROUNDS, TRAINING, Given
from tests.methods.loopback import Data, Loopback, Site

MODEL = ModelSpec("fedavg_cnn", {"channels_last": False})  # the memory layout of the run that gave the counts
CLASSES = tuple("0123456789")
# of the participants of each round, in all
N_TEST = (1573, 1444)
ROUND_1 = (412, 1358), (0.200305, 0.063127, 0.446500, 0.029842, 0.424141, 0.028105, 0.365656, 0.066489)
# (correct before, after the training of round 2), ||global - initial|| per tensor after it
ROUND_2 = {
    "fedavg": ((88, 1281), (0.370235, 0.093470, 0.741687, 0.031763, 0.742249, 0.032197, 0.582759, 0.068327)),
    "fedper": ((311, 1281), (0.368917, 0.093702, 0.734711, 0.032015, 0.727092, 0.032854, 0.588168, 0.063794)),
    "fedobp .9999": ((101, 1280), (0.345151, 0.084077, 0.740620, 0.032064, 0.739892, 0.032586, 0.591996, 0.072558)),
    "fedobp .99": ((361, 1271), (0.268040, 0.059656, 0.687819, 0.030839, 0.722001, 0.034773, 0.475229, 0.032435)),
}
METHODS: dict[str, tuple[Any, Any]] = {
    "fedavg": (fedavg, fedavg.Config()),
    "fedper": (fedper, fedper.Config(newcomers="average")),
    "fedobp .9999": (fedobp, fedobp.Config(q=0.9999, first_contact="initial")),
    "fedobp .99": (fedobp, fedobp.Config(q=0.99, first_contact="initial")),
}
# Other kernels round otherwise; near-ties of ReLU and pooling make that visible in a few predictions. On one kind of
# machine, after round 1: this layout gives the counts exactly and distances to 4e-7; channels last 1,357 and 1.5e-4;
# convolutions without oneDNN 1,356 and 2.6e-4; float64 throughout 1,357 and 9e-5; the images of each batch in the
# opposite order 1,358 and 6e-5.
COUNT_ATOL, DISTANCE_ATOL = 2, 3e-4
EXACT_ATOL = 1e-6


class Remembered:
    """A learner that does not train again what any fleet of this module has trained."""

    fitted: dict[bytes, Fitted] = {}  # noqa: RUF012 - that is its purpose

    def __init__(self, inner: Learner) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def fit(self, weights: Weights, samples: Samples, training: Training, **rest: Any) -> Fitted:
        if rest["rng"].backwards:
            return self._inner.fit(weights, samples, training, **rest)
        key = hashlib.sha256(samples.positions.tobytes())
        for array in weights.values():
            key.update(np.ascontiguousarray(array).tobytes())
        found = self.fitted.get(key.digest())
        if found is None:
            found = self.fitted[key.digest()] = self._inner.fit(weights, samples, training, **rest)
        return found


class GivenFleet(Loopback):
    """The participants of each round, with the given batch orders; agent i has the name of its number."""

    given: Given
    backwards = False

    def site(self, name: str, number: int, purpose: str) -> Site:
        site = super().site(name, number, purpose)
        if purpose == "work":
            site.rng = self.given.orders(number, int(name), backwards=self.backwards)
        return site

    def evaluate(self, number: int, phase: str) -> None:
        """Only what is measured within the training: before and after."""


@pytest.fixture(scope="module")
def given() -> Given:
    return fashion_parity.opened()


def fleet_of(given: Given, name: str, folder: Path) -> GivenFleet:
    method, config = METHODS[name]
    run: RunSpec[Any] = RunSpec("parity", "", config, MODEL, TRAINING, N_ROUNDS, 42, classes=CLASSES)
    learner = Remembered(learners.make("torch", MODEL, len(CLASSES)))
    agents = sorted({agent for chosen in given.participants[:N_ROUNDS] for agent in chosen})
    data = {f"{a:02}": data_of(given, a) for a in agents}
    fleet = GivenFleet(
        folder,
        method,
        run,
        data,
        model=models.load(MODEL, len(CLASSES)),
        make_learner=lambda *_, **__: learner,
        start={"weights": given.first},
    )
    fleet.given = given
    return fleet


def data_of(given: Given, agent: int) -> Data:
    train = given.train(agent)
    return Data(train, train.take(np.arange(0)), given.test(agent), train.unlabelled())


def correct(fleet: Loopback, moment: str, step: int) -> Iterator[int]:
    for (agent, when, at), readings in fleet.predictions.items():
        if (when, at) == (moment, step):
            (scores,) = readings.values()
            yield int(np.count_nonzero(scores.argmax(axis=1) == fleet.data[agent].test.labels))


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_two_rounds_equal_the_known_ones(
    given: Given, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEFED_THREADS", "1")
    fleet = fleet_of(given, name, tmp_path)
    for step, (counts, distances) in enumerate((ROUND_1, ROUND_2[name])):
        names = [f"{agent:02}" for agent in given.participants[step]]
        fleet.round(arrival=names, evaluate=True)
        assert sum(len(fleet.data[agent].test) for agent in names) == N_TEST[step]
        before, after = (sum(correct(fleet, moment, step)) for moment in ("start", "trained"))
        assert step > 0 or before == counts[0]  # nothing was trained yet: data, split, scaling or layout differ
        np.testing.assert_allclose((before, after), counts, rtol=0, atol=COUNT_ATOL)
        whole = fleet.method.result(fleet.run, fleet.state)["weights"]
        np.testing.assert_allclose(fashion_parity.moved(whole, given.first), distances, rtol=0, atol=DISTANCE_ATOL)
    if name.startswith("fedobp"):
        n_personal = {"fedobp .9999": 59, "fedobp .99": 5821}[name]
        assert {fleet.counts[agent]["personal"] for agent in names} == {n_personal}


@pytest.mark.data
@pytest.mark.slow
def test_after_round_1_only_rounding_is_left(given: Given, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal to 1e-6, or, with other kernels, to a few times what the order of the images in a batch changes."""
    monkeypatch.setenv("EDGEFED_THREADS", "1")
    distances = {}
    for backwards in (False, True):
        fleet = fleet_of(given, "fedavg", tmp_path)
        fleet.backwards = backwards
        fleet.round(arrival=[f"{agent:02}" for agent in given.participants[0]])
        distances[backwards] = fashion_parity.moved(fleet.state.weights, given.first)
    rounding = float(np.abs(np.subtract(distances[True], distances[False])).max())
    assert 0 < rounding < DISTANCE_ATOL
    np.testing.assert_allclose(distances[False], ROUND_1[1], rtol=0, atol=max(EXACT_ATOL, 5 * rounding))
