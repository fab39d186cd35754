"""Declares a Memory, and gives back the one that it was given."""

from common.methods import fedavg
from common.methods.fedavg import Config, Memory, Reply, State, Task, init, merge, plan, predict, result  # noqa: F401


def work(task, memory, site):
    reply, _ = fedavg.work(task, memory, site)
    return reply, memory
