"""FedSelect: the entries that move most in local training become personal, a few more in every round.

Source: Tamirisa et al., FedSelect: Personalized Federated Learning with Customized Selection of Parameters for
    Fine-Tuning, CVPR 2024, algorithm 1: |after - before| picks the next personal entries, each common entry is
    averaged over the agents that still share it, up to a share `limit` of the model.
Deviation: personal and common entries are trained together (the paper alternates between them, LocalAlt); buffers
    are never personal.

Down goes the common model, up the trained one and, as packed bits, which of its entries are personal. An agent keeps
its own model and those bits; a wiped device starts over as a newcomer.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common import entries, personal
from common.average import mean_of_shared
from common.method import AgentInfo, RunSpec, Scores, Site, Step
from common.methods import fedavg
from common.methods.fedavg import State, Task, init, plan, result
from common.payloads import Mask, Weights
from common.samples import Samples

__all__ = ["Config", "Memory", "Reply", "State", "Task", "init", "merge", "plan", "predict", "result", "work"]


@dataclass(frozen=True)
class Config:
    rate: float = 0.05  # share of the model that becomes personal in a round
    limit: float = 0.5
    bn: personal.BatchNorm = "average"

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= 1 or not 0 <= self.limit <= 1:
            raise ValueError(f"rate and limit must be in [0, 1], got rate {self.rate}, limit {self.limit}")


@dataclass(frozen=True)
class Reply:
    common: fedavg.Reply
    own: Mask


@dataclass(frozen=True)
class Memory:
    common: fedavg.Memory = field(default_factory=fedavg.Memory)
    weights: Weights | None = None
    own: Mask | None = None


def work(task: Task, memory: Memory, site: Site[Config]) -> tuple[Reply, Memory]:
    start, bits, config = _start(task, memory), entries.bits_of(memory.own), site.run.config
    reply, common = fedavg.train(replace(task, weights=start), memory.common, site)
    more = grown(bits, start, reply.weights, config.rate, config.limit)
    for name, n in entries.report(None, bits, site.run.encodings.down):
        site.count(name, n)
    return Reply(reply, entries.as_mask(bits)), Memory(common, reply.weights, entries.as_mask(more))


def grown(bits: entries.Bits, before: Weights, after: Weights, rate: float, limit: float) -> entries.Bits:
    """The personal entries, and of the others the `rate` share of the model that moved most; ties by position."""
    names = [name for name in before if before.kind(name) == "param"]
    none: Mapping[str, NDArray[np.bool_]] = {name: np.zeros(before[name].shape, bool) for name in names}
    chosen = np.concatenate([bits.get(name, none[name]).ravel() for name in names])
    moved = np.concatenate([np.abs(after[n].astype(np.float32) - before[n].astype(np.float32)).ravel() for n in names])
    moved[chosen] = -1
    n_more = min(int(rate * chosen.size), int(limit * chosen.size) - int(np.count_nonzero(chosen)))
    if n_more > 0:
        chosen[np.argsort(-moved, kind="stable")[:n_more]] = True
    ends = np.cumsum([before[name].size for name in names])[:-1]
    return {name: flat.reshape(before[name].shape) for name, flat in zip(names, np.split(chosen, ends), strict=True)}


def merge(run: RunSpec[Any], state: State, replies: Iterator[tuple[AgentInfo, Reply]], step: Step) -> State:
    parts = ((a.name, r.common.n_samples, r.common.weights, entries.bits_of(r.own)) for a, r in replies)
    return State(mean_of_shared(parts, like=state.weights), state.first)


def predict(task: Task, reply: Reply | None, memory: Memory, site: Site[Any], inputs: Samples) -> dict[str, Scores]:
    start = replace(task, weights=_start(task, memory))
    return {"personal": fedavg.scores(start, reply.common if reply else None, memory.common, site, inputs)}


def _start(task: Task, memory: Memory) -> Weights:
    return entries.put_back(task.weights, memory.own, memory.weights)
