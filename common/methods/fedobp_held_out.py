"""FedOBP whose q is found on data that agents hold out of their own training.

Source: FedOBP as in fedobp.py; the rule for q is ours, for the published q were chosen by accuracy on test data.
Deviation: q may change from round to round; [data] holdout says what share of its training data an agent holds out.

Down go, beside FedOBP's task, the personal entries of every candidate q, as nested levels; up come, beside the model,
the held-out samples that a start with each candidate gets right. The server takes the q that was right most often.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np

from common import entries, personal, quantile_rule
from common.method import AgentInfo, Model, RunSpec, Scores, Site, Step
from common.methods import fedavg, fedobp
from common.methods.fedobp import Memory
from common.payloads import Payload, Sparse
from common.quantile_rule import Answer, Trials
from common.samples import Samples

__all__ = ["Config", "Memory", "Reply", "State", "Task", "init", "merge", "plan", "predict", "result", "work"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Config(fedobp.Config):
    q: float = 0.999  # until there are answers
    candidates: tuple[float, ...] = (0.99, 0.997, 0.999, 0.9999)  # ascending
    remember: float = 0.8  # what the answers of one round are still worth in the next

    def __post_init__(self) -> None:
        super().__post_init__()
        ascending = all(a < b for a, b in pairwise(self.candidates))
        if not self.candidates or not ascending or not all(0 <= q <= 1 for q in self.candidates):
            raise ValueError(f"candidates must be ascending and in [0, 1], got {list(self.candidates)}")
        if not 0 <= self.remember <= 1 or self.score_on == "agent" or self.times or self.budget_bytes:
            raise ValueError("expected remember in [0, 1], score_on = 'server', and neither times nor budget_bytes")


@dataclass(frozen=True)
class State:
    obp: fedobp.State
    trials: Trials = field(default_factory=Trials)


@dataclass(frozen=True)
class Task:
    obp: fedobp.Task
    levels: tuple[Sparse, ...]


@dataclass(frozen=True)
class Reply:
    obp: fedavg.Reply
    answer: Answer


def init(run: RunSpec[Any], model: Model, start: Mapping[str, Payload], rng: np.random.Generator) -> State:
    return State(fedobp.init(run, model, start, rng))


def _at_best(run: RunSpec[Any], state: State) -> RunSpec[Any]:
    q = quantile_rule.best(state.trials, run.config.candidates, run.config.q)
    return replace(run, config=replace(run.config, q=q))


def plan(
    run: RunSpec[Any], state: State, agents: tuple[AgentInfo, ...], step: Step
) -> Iterator[tuple[AgentInfo, Task]]:
    best = _at_best(run, state)
    for agent in agents:
        found = fedobp.chosen_for(best, state.obp, agent.name)
        levels: tuple[Sparse, ...] = ()
        if found is not None:
            upload, scored = found
            levels = quantile_rule.levels(run.config.rule(), scored.running, upload.weights, run.config.candidates)
        yield agent, Task(fedobp.task_for(best, state.obp, agent, found), levels)


def plan_evaluation(
    run: RunSpec[Any], state: State, agents: tuple[AgentInfo, ...], step: Step
) -> Iterator[tuple[AgentInfo, Task]]:
    """No trials: nothing is answered in an evaluation."""
    for agent, task in fedobp.plan(_at_best(run, state), state.obp, agents, step):
        yield agent, Task(task, ())


def work(task: Task, memory: Memory, site: Site[Any]) -> tuple[Reply, Memory]:
    answer = _answer(task, memory, site)
    reply, memory = fedobp.work(task.obp, memory, site)
    return Reply(reply, answer), memory


def _answer(task: Task, memory: Memory, site: Site[Any]) -> Answer:
    """How many held-out samples each candidate's start gets right, in the order of the candidates."""
    inputs = site.data.holdout
    if not task.levels:
        return Answer()
    site.count("trial (bytes)", sum(entries.sparse_bytes(level, site.run.encodings.down) for level in task.levels))
    if not len(inputs):
        log.warning('trials_unused reason="no held-out samples to measure q with: [data] holdout is their share"')
        return Answer()
    learner, right, common = site.learner(), [], task.obp.common
    for start in quantile_rule.starts(common.weights, task.levels):
        model = personal.whole(site, learner, [common.first, memory.common.own, start])
        found = learner.scores(model, inputs).argmax(axis=1) == inputs.labels
        right.append(int(np.count_nonzero(found)))
    return Answer(tuple(reversed(right)), len(inputs))


def merge(run: RunSpec[Any], state: State, replies: Iterator[tuple[AgentInfo, Reply]], step: Step) -> State:
    answers: list[Answer] = []

    def obp() -> Iterator[tuple[AgentInfo, fedavg.Reply]]:
        for agent, reply in replies:
            answers.append(quantile_rule.check(agent.name, reply.answer, run.config.candidates))
            yield agent, reply.obp

    merged = fedobp.merge(_at_best(run, state), state.obp, obp(), step)
    return State(merged, quantile_rule.after(state.trials, answers, run.config.candidates, run.config.remember))


def predict(task: Task, reply: Reply | None, memory: Memory, site: Site[Any], inputs: Samples) -> dict[str, Scores]:
    return fedobp.predict(task.obp, reply.obp if reply else None, memory, site, inputs)


def result(run: RunSpec[Any], state: State) -> dict[str, Payload]:
    return fedobp.result(run, state.obp)
