"""Draws from the agent's generator while predicting, so evaluation changes training."""

from common.methods import fedavg
from common.methods.fedavg import Config, Memory, Reply, State, Task, init, merge, plan, result, work  # noqa: F401


def predict(task, reply, memory, site, inputs):
    site.rng.random()
    return fedavg.predict(task, reply, memory, site, inputs)
