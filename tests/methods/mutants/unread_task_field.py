"""Sends a number that the agent never looks at."""

from dataclasses import dataclass

from common.methods import fedavg
from common.methods.fedavg import Config, Memory, Reply, State, init, merge, predict, result, work  # noqa: F401


@dataclass(frozen=True)
class Task(fedavg.Task):
    strength: float = 0.5


def plan(run, state, agents, step):
    for agent, task in fedavg.plan(run, state, agents, step):
        yield agent, Task(task.weights, task.first)
