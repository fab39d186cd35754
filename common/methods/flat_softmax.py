"""Flat softmax: one net over all classes of a taxonomy, the baseline that a tree of experts is measured against.

Source: McMahan et al., AISTATS 2017, algorithm 1, as method fedavg; its hierarchical readings (leaf, majority,
    best expected F1) are those of Valmadre, NeurIPS 2022, and are the metrics information_…, majority_… and expected_….
Deviation: as FedAvg's. Batch norm is averaged and the head is common, for a taxonomy is over common classes.

On the wire it is FedAvg.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from common import experts
from common.method import Model, RunSpec
from common.methods import fedavg
from common.methods.fedavg import Config, Memory, Reply, State, Task, merge, plan, predict, result, work
from common.payloads import Payload

__all__ = ["Config", "Memory", "Reply", "State", "Task", "init", "merge", "plan", "predict", "result", "work"]


def init(run: RunSpec[Any], model: Model, start: Mapping[str, Payload], rng: "np.random.Generator") -> State:
    experts.tree_of(run)  # a taxonomy that does not fit the classes ends the run before anything is trained
    return fedavg.init(run, model, start, rng)
