"""FedPGP: a common prompt, and beside it a low-rank part of the agent's own; a contrast holds the common one to the
encoder's knowledge.

Source: Cui et al., Harmonizing Generalization and Personalization in Federated Prompt Learning, ICML 2024: p_i = p_G +
    U_i V_i, eq. 7 for the contrast; one prompt a class (the released script's two add classes that do not exist).
Deviation: the anchor of the contrast is the data set's sentence, as in the paper; `anchor = "placeholder"` is the
    released code's string of placeholder words.

Down goes the common prompt, up the trained one; U and V stay in Memory.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from common import personal, prompts
from common.method import AgentInfo, Learner, Model, RunSpec, Scores, Site, Step, Term
from common.methods import promptfl
from common.methods.fedavg import some_samples
from common.methods.promptfl import Reply, State, Task, plan, result
from common.payloads import Payload, Weights
from common.samples import Samples

__all__ = ["Config", "Memory", "Reply", "State", "Task", "init", "merge", "plan", "predict", "result", "work"]
MODEL = "prompted"  # the only one that it works on
CONTRAST = "text_contrast"


@dataclass(frozen=True)
class Config:
    strength: float = 0.5  # mu
    temperature: float = 0.5  # tau
    rank: int = 8
    anchor: Literal["template", "placeholder"] = "template"

    def __post_init__(self) -> None:
        if self.strength < 0 or self.temperature <= 0 or self.rank < 1:
            raise ValueError(
                f"expected strength >= 0, temperature > 0 and rank >= 1, "
                f"got {self.strength}, {self.temperature}, {self.rank}"
            )


@dataclass(frozen=True)
class Memory:
    own: Weights | None = None


def init(run: RunSpec[Config], model: Model, start: Mapping[str, Payload], rng: "np.random.Generator") -> State:
    return State(prompts.first_prompt(model, start, rng, "fedpgp"))


def work(task: Task, memory: Memory, site: Site[Config]) -> tuple[Reply, Memory]:
    config, samples, learner = site.run.config, some_samples(site), _learner(site)
    numbers = {"temperature": np.float32(config.temperature), "placeholder": np.bool_(config.anchor == "placeholder")}
    arrays = {name: np.asarray(value) for name, value in numbers.items()}
    terms = (Term(CONTRAST, config.strength, arrays),) if config.strength else ()
    start = personal.whole(site, learner, [prompts.weights_of(task.prompt), memory.own])
    trained = learner.fit(start, samples, site.training, terms=terms, rng=site.rng).weights
    return Reply(prompts.prompt_of(trained), len(samples)), Memory(prompts.own_part(trained))


def merge(run: RunSpec[Config], state: State, replies: Iterator[tuple[AgentInfo, Reply]], step: Step) -> State:
    return State(promptfl.averaged("weighted", state, replies))


def predict(task: Task, reply: Reply | None, memory: Memory, site: Site[Config], inputs: Samples) -> dict[str, Scores]:
    learner, trained = _learner(site), reply.prompt if reply else None
    parts = [prompts.weights_of(task.prompt), prompts.weights_of(trained), memory.own]
    return {"personal": learner.scores(personal.whole(site, learner, parts), inputs)}


def _learner(site: Site[Any]) -> Learner:
    return site.learner(terms=(CONTRAST,), rank=site.run.config.rank)
