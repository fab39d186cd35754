"""Prototype-based federated prompt learning: a common prompt, a small adapter of each agent's own, and class means.

Source: Park and Lee, Prototype-based Federated Prompt Learning for Personalization in Heterogeneous Environments, 2026:
    agents train prompt and MLP on L_CE + lambda L_reg(mu, g), send prompt and class means, get their averages back.
Deviation: the paper gives no settings. Reconstructed: text prompts as in CoOp; the MLP is an adapter on the image
    feature that stays with the agent; embeddings and means have unit length; L_reg is ||z(x) - g_y||^2 summed over
    dimensions, a mean over samples; no g, no regulariser. The alternatives are options: prompts that stay
    (`share_prompt`), a prompt that is the data set's sentence (`learn_prompt`), no adapter (`adapter`), no exchange of
    means (`exchange`), lambda 0 (`strength`). `blend` mixes in the nearest mean when predicting; with `blend_by =
    "holdout"` an agent takes the share that suits its own [data] holdout.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from common import blending, personal, prompts, prototypes
from common.method import AgentInfo, Learner, Model, RunSpec, Scores, Site, Step
from common.methods.fedavg import some_samples
from common.methods.fedproto import width
from common.payloads import Payload, Prompt, Prototypes, Weights
from common.prototypes import Known, Privacy, Weighting
from common.samples import Samples

MODEL = "prompted"  # the only one that it works on


@dataclass(frozen=True)
class Config:
    strength: float = 1.0  # lambda
    adapter: bool = True
    learn_prompt: bool = True
    share_prompt: bool = True
    exchange: bool = True
    weighting: Weighting = "weighted"  # of the means; prompts are always weighted by samples
    max_age: int = 0
    privacy: Privacy = field(default_factory=Privacy)
    blend: float = 0.0  # share of the nearest mean in what is predicted
    blend_by: Literal["fixed", "holdout"] = "fixed"
    scale: float = 28.0  # of its cosines; CLIP's is 100

    def __post_init__(self) -> None:
        if self.strength < 0 or self.max_age < 0 or not 0 <= self.blend <= 1:
            raise ValueError(
                f"expected strength >= 0, max_age >= 0 and 0 <= blend <= 1, "
                f"got {self.strength}, {self.max_age}, {self.blend}"
            )
        if not (self.adapter or self.learn_prompt):
            raise ValueError("nothing to train: adapter and learn_prompt are both false")


@dataclass(frozen=True)
class State:
    prompt: Prompt | None
    known: Known
    dim: int  # of the embedding


@dataclass(frozen=True)
class Task:
    prompt: Prompt | None
    prototypes: Prototypes | None


@dataclass(frozen=True)
class Reply:
    prompt: Prompt | None
    prototypes: Prototypes | None
    n_samples: int


@dataclass(frozen=True)
class Memory:
    own: Weights | None = None
    blend: float | None = None  # None: nothing has been chosen


def init(run: RunSpec[Config], model: Model, start: Mapping[str, Payload], rng: "np.random.Generator") -> State:
    prompt = prompts.first_prompt(model, start, rng, "proto_prompt")
    return State(prompt if run.config.learn_prompt else None, Known(), width(model.parameters(adapter=True)))


def plan(
    run: RunSpec[Config], state: State, agents: tuple[AgentInfo, ...], step: Step
) -> Iterator[tuple[AgentInfo, Task]]:
    task = Task(state.prompt, state.known.prototypes)
    for agent in agents:
        yield agent, task


def work(task: Task, memory: Memory, site: Site[Config]) -> tuple[Reply, Memory]:
    config, samples, learner = site.run.config, some_samples(site), _learner(site)
    terms = prototypes.regulariser(task.prototypes, config.strength)
    weights = _whole(task, None, memory, site, learner)
    weights = learner.fit(weights, samples, site.training, terms=terms, rng=site.rng).weights
    means = None
    if config.exchange:
        embeddings = learner.embed(weights, samples)
        means = prototypes.class_means(embeddings, samples.labels, config.privacy, site.rng, unit=True)
    shared = config.share_prompt and config.learn_prompt
    prompt, own = (prompts.prompt_of(weights), prompts.own_part(weights)) if shared else (None, weights)
    held, share = site.data.holdout, memory.blend
    if config.blend_by == "holdout" and task.prototypes is not None and len(held):  # means of the round before
        share = blending.best_share(*blending.both(learner, weights, held, task.prototypes, config.scale), held.labels)
    return Reply(prompt, means, len(samples)), Memory(own, share)


def merge(run: RunSpec[Config], state: State, replies: Iterator[tuple[AgentInfo, Reply]], step: Step) -> State:
    n_classes = None if run.classes is None else len(run.classes)
    means = prototypes.Merging(state.dim, n_classes, run.config.weighting)

    def sent() -> Iterator[tuple[str, float, Prompt]]:
        for agent, reply in replies:
            means.add(agent.name, reply.prototypes)
            if reply.prompt is not None:
                yield agent.name, reply.n_samples, reply.prompt

    prompt = state.prompt
    if run.config.share_prompt and prompt is not None:
        prompt = prompts.mean_prompt(sent(), like=prompt)
    else:
        deque(sent(), maxlen=0)  # the means alone
    return State(prompt, means.merged(state.known, unit=True, max_age=run.config.max_age), state.dim)


def predict(task: Task, reply: Reply | None, memory: Memory, site: Site[Config], inputs: Samples) -> dict[str, Scores]:
    config, learner = site.run.config, _learner(site)
    weights = _whole(task, reply, memory, site, learner)
    text, near, known = blending.both(learner, weights, inputs, task.prototypes, config.scale)
    share = config.blend if memory.blend is None else memory.blend
    return {"personal": prototypes.blended(text, near, known, share), "nearest": near}


def result(run: RunSpec[Config], state: State) -> dict[str, Payload]:
    found: dict[str, Payload | None] = {"prompt": state.prompt, "prototypes": state.known.prototypes}
    return {name: payload for name, payload in found.items() if payload is not None}


def _whole(task: Task, reply: Reply | None, memory: Memory, site: Site[Any], learner: Learner) -> Weights:
    """Without a reply, as the next training would start."""
    trained = reply.prompt if reply else None
    return personal.whole(site, learner, [prompts.weights_of(task.prompt), prompts.weights_of(trained), memory.own])


def _learner(site: Site[Config]) -> Learner:
    words: dict[str, Any] = {} if site.run.config.learn_prompt else {"context": 0}  # the data set's sentence
    return site.learner(terms=("prototypes",), adapter=site.run.config.adapter, **words)
