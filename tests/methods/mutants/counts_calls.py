"""Keeps a counter between calls, so the first agent to arrive weighs more."""

from dataclasses import replace

from common.methods import fedavg
from common.methods.fedavg import Config, Memory, Reply, State, Task, init, merge, plan, predict, result  # noqa: F401

_CALLS = [0]


def work(task, memory, site):
    _CALLS[0] += 1
    reply, memory = fedavg.work(task, memory, site)
    return replace(reply, n_samples=reply.n_samples + 7 * (_CALLS[0] % 3)), memory
