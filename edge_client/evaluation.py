"""Evaluation moments on an agent: counts and sums over its examples, never means, images or predictions."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common import metrics, pb
from common.errors import LocalFault
from common.method import Method, RunSpec, Scores, Skip
from common.run_sections import EvaluationSection
from common.samples import Samples
from edge_client.site import TaskSite


@dataclass(frozen=True)
class Held:
    """What `predict` is given: records of types that only the method knows."""

    task: Any
    reply: Any
    memory: Any


@dataclass(frozen=True)
class Ruler:
    """How to measure: the run's [evaluation], and the classes (n_classes,) that the agent's training part has."""

    section: EvaluationSection
    own_classes: NDArray[np.bool_]

    def ruled(self, scores: Scores) -> Scores:
        """Without the classes that [evaluation] label_space rules out."""
        return metrics.ruled_out(scores, self.own_classes) if self.section.label_space == "own" else scores


def measured(method: Method, held: Held, site: TaskSite, moment: str, ruler: Ruler) -> list[pb.Evaluation]:
    """One moment on every split that has samples, for each reading that `predict` names."""
    found: list[pb.Evaluation] = []
    for split, inputs in (("test", site.data.test), ("holdout", site.data.holdout)):
        if len(inputs):
            begin = time.monotonic()
            readings = method.predict(held.task, held.reply, held.memory, site, inputs)
            evaluations = [_evaluation(name, scores, inputs, site.run, ruler) for name, scores in readings.items()]
            seconds = (time.monotonic() - begin) / max(1, len(evaluations))  # readings share what predict costs
            for evaluation in evaluations:
                evaluation.moment, evaluation.split, evaluation.seconds = moment, split, seconds
            found += evaluations
    return found


def finetuned(method: Method, held: Held, site: TaskSite, ruler: Ruler) -> list[pb.Evaluation]:
    """`work` for [evaluation] finetune_epochs, then `predict` with its reply; reply and memory are then dropped."""
    site.training = replace(site.training, epochs=ruler.section.finetune_epochs, steps=None)
    try:
        reply, memory = method.work(held.task, held.memory, site)
    except Skip:  # nothing to train on: the model stays what it was
        reply, memory = None, held.memory
    return measured(method, Held(held.task, reply, memory), site, "finetuned", ruler)


def _evaluation(reading: str, scores: Scores, inputs: Samples, run: RunSpec[Any], ruler: Ruler) -> pb.Evaluation:
    if scores.shape != (len(inputs), len(ruler.own_classes)):
        raise LocalFault(
            f"predict of method {run.method} gave scores of shape {scores.shape} as {reading!r}, "
            f"expected {(len(inputs), len(ruler.own_classes))}"
        )
    sums: Mapping[str, float] = metrics.sums(ruler.section.metrics, ruler.ruled(scores), inputs.labels, run)
    return pb.Evaluation(reading=reading, label_space=ruler.section.label_space, n=len(inputs), sums=sums)
