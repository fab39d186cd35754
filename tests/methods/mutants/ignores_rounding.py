"""Compares what the agent received with what the server holds, not with what it sent (`run.down`)."""

from dataclasses import dataclass

from common.methods import fedavg
from common.methods.fedavg import Config, Memory, State, Task, init, plan, predict, result  # noqa: F401


@dataclass(frozen=True)
class Reply(fedavg.Reply):
    received: float = 0.0


def _sum(weights):
    return float(sum(array.sum(dtype="float64") for array in weights.values()))


def work(task, memory, site):
    reply, memory = fedavg.work(task, memory, site)
    return Reply(reply.weights, reply.n_samples, _sum(task.weights)), memory


def merge(run, state, replies, step):
    replies = list(replies)
    assert all(reply.received == _sum(state.weights) for _, reply in replies), "trained from another model"
    return fedavg.merge(run, state, iter(replies), step)
