"""Evaluation moments: sums over examples, whatever readings `predict` names."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from common.errors import LocalFault
from common.method import Method, Skip
from common.run_sections import EvaluationSection
from edge_client.evaluation import Held, Ruler, finetuned, measured
from tests.edge_client.test_site import N, make_site

OWN = np.array([True, True, False])


def oracle(task: Any, reply: Any, memory: Any, site: Any, inputs: Any) -> dict[str, Any]:
    """Two readings: one that is always right, one that always says class 2."""
    right = np.eye(3, dtype=np.float32)[inputs.labels]
    return {"right": right, "two": np.tile(np.eye(3, dtype=np.float32)[2], (len(inputs), 1))}


def method(**functions: Any) -> Method:
    return cast(Method, SimpleNamespace(predict=oracle, **functions))


def test_each_reading_is_summed_over_each_split() -> None:
    ruler = Ruler(EvaluationSection(metrics=("accuracy",)), OWN)
    site = make_site(share=0.25)
    found = measured(method(), Held(None, None, None), site, "merged", ruler)
    n_held_of_class_2 = int(np.count_nonzero(site.data.holdout.labels == 2))
    assert {(e.reading, e.split): (e.n, e.sums["accuracy"]) for e in found} == {
        ("right", "test"): (4, 4),
        ("two", "test"): (4, 1),
        ("right", "holdout"): (3, 3),
        ("two", "holdout"): (3, n_held_of_class_2),
    }
    assert {e.moment for e in found} == {"merged"}
    assert all(e.seconds >= 0 for e in found)


def test_own_label_space_takes_away_classes_without_training_samples() -> None:
    ruler = Ruler(EvaluationSection(metrics=("accuracy",), label_space="own"), OWN)
    found = measured(method(), Held(None, None, None), make_site(), "merged", ruler)
    n_of_class_2 = int(np.count_nonzero(np.arange(N, N + 4) % 3 == 2))
    n_of_class_0 = int(np.count_nonzero(np.arange(N, N + 4) % 3 == 0))
    assert [e.sums["accuracy"] for e in found] == [4 - n_of_class_2, n_of_class_0]


def test_fine_tuning_works_for_its_own_epochs_and_predicts_with_the_reply() -> None:
    seen: list[Any] = []

    def work(task: Any, memory: Any, site: Any) -> tuple[Any, Any]:
        seen.append((task, memory, site.training.epochs, site.training.steps))
        return "reply", "new memory"

    def predict(task: Any, reply: Any, memory: Any, site: Any, inputs: Any) -> dict[str, Any]:
        seen.append((task, reply, memory))
        return {"model": np.zeros((len(inputs), 3), np.float32)}

    ruler = Ruler(EvaluationSection(finetune_epochs=5), OWN)
    tuned = cast(Method, SimpleNamespace(work=work, predict=predict))
    finetuned(tuned, Held("task", None, "memory"), make_site(), ruler)
    assert seen == [("task", "memory", 5, None), ("task", "reply", "new memory")]


def test_fine_tuning_of_an_agent_with_nothing_to_do_measures_what_it_has() -> None:
    def work(task: Any, memory: Any, site: Any) -> Any:
        raise Skip("nothing here")

    ruler = Ruler(EvaluationSection(finetune_epochs=5), OWN)
    found = finetuned(method(work=work), Held("task", None, "memory"), make_site(), ruler)
    assert [e.moment for e in found] == ["finetuned", "finetuned"]


def test_scores_of_another_shape_are_refused() -> None:
    def predict(task: Any, reply: Any, memory: Any, site: Any, inputs: Any) -> dict[str, Any]:
        return {"model": np.zeros((len(inputs), 2))}

    ruler = Ruler(EvaluationSection(), OWN)
    with pytest.raises(LocalFault, match=r"scores of shape \(4, 2\) as 'model', expected \(4, 3\)"):
        measured(cast(Method, SimpleNamespace(predict=predict)), Held(0, 0, 0), make_site(), "merged", ruler)
