"""FedProto: means travel, models never; on the numpy MLP's embedding and on an adapter of an encoder's."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.errors import ConfigError, RemoteFault
from common.method import Learner, ModelSpec, Scalar, Training
from common.methods import fedproto
from common.models import load
from common.payloads import Prototypes
from common.prototypes import Privacy
from edge_client import learners
from tests.methods.contract import Case, loopback
from tests.methods.loopback import AGENTS, make_data
from tests.methods.tiny import DIM
from tests.methods.tiny_prompts import PromptLearner, PromptModel

MLP = ModelSpec("mlp", {"input": str(DIM), "hidden": 5})


def mlp(n_classes: int, **variant: Scalar) -> Learner:
    return learners.make("numpy", MLP, n_classes, terms=("prototypes",))


def adapted(n_classes: int, **variant: Scalar) -> PromptLearner:
    return PromptLearner(n_classes, **{"context": 0, "adapter": True, **variant})


ON_MLP: dict[str, Any] = {"model": load(MLP, 4), "learner": mlp, "keeps_memory": True}
CASES = (
    Case("mlp", fedproto.Config(), **ON_MLP),
    Case("own starts, uniform", fedproto.Config(start="own", weighting="uniform", max_age=2), **ON_MLP),
    Case(
        "adapter",
        fedproto.Config(privacy=Privacy(clip=1.0, noise=0.01)),
        model=PromptModel({"context": 0, "adapter": True}),
        learner=adapted,
        keeps_memory=True,
    ),
)


def test_only_means_travel(tmp_path: Path) -> None:
    fleet = loopback(fedproto, CASES[0], tmp_path).rounds(2)
    for name in AGENTS:
        reply, data = fleet.replies[name], fleet.data[name]
        assert set(vars(reply)) == {"prototypes"}
        assert reply.prototypes.vectors.shape == (len(reply.prototypes), 5)
        np.testing.assert_array_equal(reply.prototypes.class_ids, np.unique(data.train.labels))
        np.testing.assert_array_equal(reply.prototypes.counts, data.train.counts()[reply.prototypes.class_ids])


def test_a_mean_is_of_the_trained_model_over_all_samples(tmp_path: Path) -> None:
    fleet = loopback(fedproto, CASES[0], tmp_path).rounds(1)
    data, weights = fleet.data["bert"].train, fleet.memory("bert").weights
    z = mlp(4).embed(weights, data)
    sent = fleet.replies["bert"].prototypes
    expected = np.stack([z[data.labels == c].mean(0) for c in sent.class_ids])
    np.testing.assert_allclose(sent.vectors, expected, atol=1e-6)


@pytest.mark.parametrize(("start", "n_first"), [("common", 1), ("own", len(AGENTS))])
def test_agents_start_from_one_draw_or_each_from_its_own(tmp_path: Path, start: Any, n_first: int) -> None:
    """Without an epoch of training what an agent keeps is what it started from."""
    case = replace(CASES[0], config=fedproto.Config(start=start), training=Training(epochs=0))
    fleet = loopback(fedproto, case, tmp_path).rounds(1)
    assert len({fleet.memory(name).weights["fc1.weight"].tobytes() for name in AGENTS}) == n_first


def test_no_regulariser_in_the_first_round_and_one_in_the_second(tmp_path: Path) -> None:
    without = replace(CASES[0], config=fedproto.Config(strength=0.0))
    fleets = [loopback(fedproto, case, tmp_path / case.name) for case in (CASES[0], replace(without, name="none"))]
    digests = [fleet.rounds(1).digest(fleet.memory("cleo")) for fleet in fleets]
    assert digests[0] == digests[1]
    digests = [fleet.rounds(1).digest(fleet.memory("cleo")) for fleet in fleets]
    assert digests[0] != digests[1]


def test_the_main_reading_is_the_nearest_mean(tmp_path: Path) -> None:
    fleet = loopback(fedproto, CASES[0], tmp_path).rounds(3, evaluate=True)
    readings = fleet.predictions["anna", "merged", 2]
    assert list(readings) == ["personal", "head"]
    z = mlp(4).embed(fleet.memory("anna").weights, fleet.data["anna"].test)
    known = fleet.state.known.prototypes
    distances = ((z[:, None] - known.vectors[None]) ** 2).sum(2)
    np.testing.assert_array_equal(readings["personal"].argmax(1), known.class_ids[distances.argmin(1)])


def test_an_absent_class_keeps_its_last_mean_until_it_is_too_old(tmp_path: Path) -> None:
    fleet = loopback(fedproto, CASES[1], tmp_path)
    fleet.round()
    before = dict(zip(fleet.state.known.prototypes.class_ids.tolist(), fleet.state.known.ages, strict=True))
    assert set(before.values()) == {0}
    only = fleet.replies["anna"].prototypes.class_ids.tolist()
    lost = sorted(set(before) - set(only))
    for expected in (1, 2):
        fleet.round(arrival=("anna",))
        ages = dict(zip(fleet.state.known.prototypes.class_ids.tolist(), fleet.state.known.ages, strict=True))
        assert {c: ages.get(c) for c in lost} == dict.fromkeys(lost, expected)
    fleet.round(arrival=("anna",))
    assert fleet.state.known.prototypes.class_ids.tolist() == only


def test_own_heads_and_models_without_an_embedding_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"it needs \[model\] head = 'run'"):
        loopback(fedproto, replace(CASES[0], head="agent"), tmp_path)
    with pytest.raises(ConfigError, match="an embedding that is trained"):
        loopback(fedproto, replace(CASES[0], model=PromptModel()), tmp_path)


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        (Prototypes(np.array([1]), np.array([2]), np.zeros((1, 9), np.float32)), "expected 1 vectors of 5"),
        (Prototypes(np.array([1]), np.array([0]), np.zeros((1, 5), np.float32)), "counts of at least 1"),
        (Prototypes(np.array([2, 1]), np.array([1, 1]), np.zeros((2, 5), np.float32)), "ascending class ids"),
        (Prototypes(np.array([4]), np.array([1]), np.zeros((1, 5), np.float32)), "class 4, the run has 4 classes"),
        (Prototypes(np.array([1]), np.array([1]), np.full((1, 5), np.nan, np.float32)), "NaN"),
    ],
)
def test_means_that_do_not_fit_are_refused_by_name(tmp_path: Path, sent: Prototypes, says: str) -> None:
    fleet = loopback(fedproto, CASES[0], tmp_path).rounds(1)
    replies = iter([(fleet.info("anna"), fedproto.Reply(sent))])
    with pytest.raises(RemoteFault, match=f"agent anna: prototype.*{says}"):
        fedproto.merge(fleet.run, fleet.state, replies, None)  # type: ignore[arg-type]


def test_data_helper_makes_agents_that_lack_classes() -> None:
    present = [set(np.unique(data.train.labels)) for data in make_data().values()]
    assert present[0] != present[-1]
