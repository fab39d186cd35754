"""FedProx: FedAvg whose agents are held near the common model while they train.

Source: Li et al., Federated Optimization in Heterogeneous Networks, MLSys 2020, algorithm 2: each agent minimises
    F_k(w) + mu/2 ||w - w_t||^2 (squared, over every tensor that was sent).
Deviation: as FedAvg's; every agent works the same number of epochs, so its gamma-inexactness is the run's setting.

On the wire it is FedAvg; mu is part of the run. With mu = 0 it equals FedAvg bit for bit.
"""

from dataclasses import dataclass
from typing import Any

from common import personal
from common.method import Site, Term
from common.methods import fedavg
from common.methods.fedavg import Memory, Reply, State, Task, init, merge, plan, predict, result

__all__ = ["Config", "Memory", "Reply", "State", "Task", "init", "merge", "plan", "predict", "result", "work"]


@dataclass(frozen=True)
class Config:
    mu: float = 0.01
    bn: personal.BatchNorm = "average"

    def __post_init__(self) -> None:
        if not 0 <= self.mu < float("inf"):
            raise ValueError(f"mu must be finite and at least 0, got {self.mu}")


def work(task: Task, memory: Memory, site: Site[Any]) -> tuple[Reply, Memory]:
    mu = site.run.config.mu
    anchor = {name: array for name, array in task.weights.items() if task.weights.kind(name) == "param"}
    return fedavg.train(task, memory, site, terms=(Term("proximal", mu, anchor),) if mu else ())
