"""A whole job without a network: an offer in, records in the blobs, a report and evaluations out."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common import methods, pb
from common.blobs import Blobs
from common.errors import ConfigError
from common.wire import records
from edge_client import evaluation
from edge_client.job import Finished, Job, PreparedData
from edge_client.work import run_job
from edge_client.workplace import Workplace
from tests.edge_client import pets
from tests.edge_client.pets import CLASSES, DIM, N_TEST, N_TRAIN


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return pets.write_data(tmp_path / "pets.npz")


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    return Workplace(Blobs(tmp_path / "blobs", durable=False))


def job(place: Workplace, data: Path, changes: Mapping[str, Any] | None = None, **offer: Any) -> Job:
    return pets.job(place.blobs, data, changes, **offer)


def done(job: Job, place: Workplace) -> Finished:
    outcome = run_job(job, place, lambda phase, fraction: None)
    assert isinstance(outcome, Finished)
    return outcome


def sums(finished: Finished) -> dict[str, tuple[int, float]]:
    return {e.moment: (e.n, e.sums["accuracy"]) for e in finished.evaluations}


def test_work_trains_and_tells_what_it_cost(place: Workplace, data: Path) -> None:
    finished = done(job(place, data), place)
    assert finished.reply is not None
    reply = records.decode(methods.load("fedavg").Reply, finished.reply, lambda ref, _: place.blobs.open(ref))
    assert reply.n_samples == N_TRAIN
    assert np.abs(reply.weights["classifier.weight"]).max() > 0
    report = finished.report
    assert report.data_bytes == N_TRAIN * DIM * 4
    assert report.model_bytes == 2 * 4 * 3 * (DIM + 1)  # parameters and gradients; SGD without momentum has no state
    assert (report.n_samples, report.n_steps, report.warmup) == (N_TRAIN, 10, True)
    assert set(report.seconds) == {"decode", "load_data", "train", "commit", "evaluate"}
    assert report.wall_s >= sum(report.seconds.values()) * 0.99
    assert report.loss > 0
    assert not done(job(place, data), place).report.warmup


def test_what_an_evaluation_loads_is_not_taken_from_the_training(
    place: Workplace, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = evaluation.measured

    def slow(method: Any, held: Any, site: Any, *rest: Any) -> Any:
        site._source.load_s += 100.0
        return measured(method, held, site, *rest)

    monkeypatch.setattr(evaluation, "measured", slow)
    seconds = done(job(place, data, moments=["trained"]), place).report.seconds
    assert seconds["load_data"] >= 100
    assert 0 < seconds["train"] < 100
    assert seconds["evaluate"] < 0  # it took no hundred seconds


def test_moments_inside_a_training_task(place: Workplace, data: Path) -> None:
    finished = done(job(place, data, moments=["start", "trained"]), place)
    assert sums(finished) == {"start": (N_TEST, 10), "trained": (N_TEST, 20)}
    assert {(e.reading, e.split, e.label_space) for e in finished.evaluations} == {("model", "test", "all")}


def test_moments_of_an_evaluation_keep_nothing(place: Workplace, data: Path) -> None:
    finished = done(job(place, data, kind=pb.EVALUATE, moments=["merged", "finetuned"]), place)
    assert (finished.reply, finished.memory) == (None, None)
    assert sums(finished) == {"merged": (N_TEST, 10), "finetuned": (N_TEST, 20)}


@pytest.mark.parametrize("label_space", ["all", "own"])
def test_own_label_space_rules_out_classes_without_training_samples(
    place: Workplace, data: Path, label_space: str
) -> None:
    one = job(place, data, {"evaluation.label_space": label_space}, kind=pb.EVALUATE, moments=["merged"])
    evaluation = done(one, place).evaluations[0]
    n_possible = 3 if label_space == "all" else 2
    assert evaluation.sums["loss"] == pytest.approx(N_TEST * np.log(n_possible))
    assert evaluation.label_space == label_space


def test_evaluation_changes_nothing_of_the_work(place: Workplace, data: Path) -> None:
    plain = done(job(place, data), place)
    watched = done(job(place, data, moments=["start", "trained"]), place)
    assert plain.reply == watched.reply
    assert plain.memory == watched.memory


def test_the_holdout_is_fixed_never_trained_on_and_measured(place: Workplace, data: Path) -> None:
    held = {"data.holdout": 0.25}
    first, second = (done(job(place, data, held, moments=["trained"]), place) for _ in range(2))
    assert first.report.n_samples == N_TRAIN * 3 // 4
    assert {e.split: e.n for e in first.evaluations} == {"test": N_TEST, "holdout": N_TRAIN // 4}
    assert first.reply == second.reply


def test_an_isolated_task_gives_the_same_reply_and_is_no_warm_up(place: Workplace, data: Path) -> None:
    plain = done(job(place, data), place)
    fresh = Workplace(place.blobs)
    isolated = run_job(job(place, data), fresh, lambda phase, fraction: None, isolated=True)
    assert isinstance(isolated, Finished)
    assert isolated.reply == plain.reply
    assert isolated.report.isolated
    assert not isolated.report.warmup
    assert isolated.report.n_steps == plain.report.n_steps


def test_a_random_stream_belongs_to_round_and_agent(place: Workplace, data: Path) -> None:
    one = job(place, data)
    other = replace(one, agent=replace(one.agent, name="b"))
    later = replace(one, offer=pb.Offer.FromString(one.offer.SerializeToString()))
    later.offer.round = 2
    replies = [done(j, place).reply for j in (one, other, later)]
    assert replies[0] != replies[1]
    assert replies[0] != replies[2]


def test_prepare_answers_the_data_under_the_runs_classes(place: Workplace, data: Path) -> None:
    one = job(place, data, kind=pb.PREPARE)
    outcome = run_job(replace(one, agent=replace(one.agent, share_counts=True)), place, lambda phase, fraction: None)
    assert isinstance(outcome, PreparedData)
    assert outcome.classes == CLASSES
    assert outcome.data.n_classes == 3
    assert list(outcome.data.counts) == [N_TRAIN // 2, 0, N_TRAIN // 2]
    own = run_job(job(place, data, {"model.head": "agent"}, kind=pb.PREPARE), place, lambda phase, fraction: None)
    assert isinstance(own, PreparedData)
    assert own.classes == ("cat", "owl")
    assert not own.data.has_counts


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model.input": "5"}, "expected samples of 5, got 6; set .model. input"),
        ({"model.name": "linear", "model.input": "2x3x4"}, "expected samples of 2x3x4, got 6"),
    ],
)
def test_prepare_refuses_samples_of_another_shape(
    place: Workplace, data: Path, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        run_job(job(place, data, changes, kind=pb.PREPARE), place, lambda phase, fraction: None)


def test_prepare_refuses_a_class_that_the_run_does_not_know(place: Workplace, data: Path) -> None:
    np.savez(data, x=np.zeros((2, DIM), np.float32), y=["cat", "fox"])
    with pytest.raises(ConfigError, match=r"expected some of 'cat', 'dog', 'owl', got 'fox'"):
        run_job(job(place, data, kind=pb.PREPARE), place, lambda phase, fraction: None)


def test_prepare_refuses_a_model_beyond_the_memory_budget(place: Workplace, data: Path) -> None:
    one = job(place, data, {"model.name": "mlp", "model.hidden": 10_000, "optimiser.momentum": 0.9}, kind=pb.PREPARE)
    n_values = 10_000 * DIM + 10_000 + 3 * 10_000 + 3
    run_job(replace(one, memory_limit_bytes=3 * 4 * n_values), place, lambda phase, fraction: None)
    with pytest.raises(ConfigError, match=r"'mlp' does not fit agent a: .* takes 1.2 MB .* budget is 1.0 MB"):
        run_job(replace(one, memory_limit_bytes=1_000_000), place, lambda phase, fraction: None)


def test_data_that_vanish_during_a_run_are_a_sentence(place: Workplace, data: Path) -> None:
    done(job(place, data), place)
    stale = job(place, data)
    content = data.read_bytes()
    data.write_bytes(content[: len(content) // 4])
    with pytest.raises(ConfigError, match=r"cannot read data .*pets.npz"):
        run_job(stale, place, lambda phase, fraction: None)
