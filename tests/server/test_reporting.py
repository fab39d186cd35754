from typing import Any

import pytest

from common import pb
from common.task_key import Key
from server import drafts, reporting
from server.drafts import Drafts
from server.events import Transferred


def agent(name: str, *evaluations: pb.Evaluation, **fields: Any) -> pb.AgentReport:
    return pb.AgentReport(agent=name, outcome="merged", evaluations=evaluations, **fields)


def measured(n: int, correct: float, moment: str = "merged", reading: str = "model", **fields: Any) -> pb.Evaluation:
    given = {"label_space": "all", "split": "test"} | fields
    return pb.Evaluation(moment=moment, reading=reading, n=n, sums={"accuracy": correct}, **given)


def test_a_common_model_is_pooled_over_examples_and_a_mean_over_agents() -> None:
    assert reporting.pooled([agent("a", measured(10, 9)), agent("b", measured(30, 9))]) == {
        "accuracy": 18 / 40,
        "personal_accuracy": pytest.approx((0.9 + 0.3) / 2),
    }


def test_own_models_give_the_mean_over_agents_and_the_pooled_one() -> None:
    readings = [measured(10, 9, reading="personal"), measured(30, 9, reading="personal")]
    assert reporting.pooled([agent("a", readings[0]), agent("b", readings[1])]) == {
        "personal_accuracy": pytest.approx(0.6),
        "personal_accuracy_weighted": 0.45,
    }


def test_both_kinds_do_not_answer_for_each_other() -> None:
    both = agent("a", measured(10, 9), measured(10, 5, reading="personal"), measured(10, 1, reading="level_1"))
    assert reporting.pooled([both]) == {
        "accuracy": 0.9,
        "personal_accuracy": 0.5,
        "personal_accuracy_weighted": 0.5,
        "level_1_accuracy": 0.1,
    }


def test_moment_split_and_label_space_are_suffixes() -> None:
    found = reporting.pooled(
        [agent("a", measured(10, 5, "finetuned"), measured(10, 5, split="holdout"), measured(4, 2, label_space="own"))]
    )
    assert {name for name in found if name.startswith("accuracy")} == {
        "accuracy_finetuned",
        "accuracy_holdout",
        "accuracy_own",
    }


def test_agents_without_examples_and_sums_that_are_not_finite_are_left_out() -> None:
    assert reporting.pooled([agent("a", measured(0, 0)), agent("b", measured(5, float("nan")))]) == {}


def test_one_report_for_each_moment_with_its_own_evaluations() -> None:
    one = agent("a", measured(10, 9), measured(10, 5, "finetuned"))
    reports = reporting.evaluation_reports(3, ["merged", "finetuned"], [one], {"c", "b"})
    assert [
        (r.moment, dict(r.metrics)["accuracy" if r.moment == "merged" else "accuracy_finetuned"]) for r in reports
    ] == [
        ("merged", 0.9),
        ("finetuned", 0.5),
    ]
    assert all(list(r.missing) == ["b", "c"] for r in reports)
    assert [len(r.agents[0].evaluations) for r in reports] == [1, 1]


def test_the_training_loss_is_weighted_by_samples_of_merged_agents() -> None:
    one = agent("a", report=pb.ResourceReport(loss=1.0, n_samples=10))
    other = agent("b", report=pb.ResourceReport(loss=3.0, n_samples=30))
    late = pb.AgentReport(agent="c", outcome="late", report=pb.ResourceReport(loss=99.0, n_samples=10))
    without = agent("d", report=pb.ResourceReport(n_samples=1000))
    assert reporting.round_metrics([one, other, late, without])["train_loss"] == 2.5
    assert "train_loss" not in reporting.round_metrics([without])


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(drafts.time, "monotonic", lambda: self.now)


def transferred(name: str, step: int = 0) -> Transferred:
    return Transferred(Key("run", step, name, pb.WORK), pb.TransferReport(bytes_up=7, bytes_down=3))


def waiting(*names: str) -> pb.RoundReport:
    return pb.RoundReport(round=1, agents=[agent(name, transfer_missing=True) for name in names])


def test_a_report_is_published_when_its_last_transfer_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch)
    published: list[Any] = []
    waits = Drafts("run", published.append)
    report = waiting("a", "b")
    waits.heard(transferred("a"))  # before its step closed
    waits.add(pb.WORK, [report], ended=False)
    waits.add(pb.WORK, [report], ended=True)
    assert published == []
    assert waits.next_at() == 102.0
    waits.heard(transferred("b"))
    assert published == [report]
    assert report.metrics["bytes_per_round"] == 20
    assert waits.is_empty
    assert waits.unsaved == [report]


def test_after_two_seconds_it_is_published_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    published: list[Any] = []
    waits = Drafts("run", published.append)
    waits.add(pb.WORK, [waiting("a", "b")], ended=True)
    waits.heard(transferred("a"))
    clock.now += drafts.SETTLE_S - 0.01
    waits.settle()
    assert published == []
    clock.now += 0.02
    waits.settle()
    assert [a.transfer_missing for a in published[0].agents] == [False, True]
    waits.heard(transferred("b"))  # too late, and of no harm
    assert published[0].agents[1].transfer_missing
