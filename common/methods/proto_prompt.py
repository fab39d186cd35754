"""Prototype-based federated prompt learning: a common prompt, a small adapter of each agent's own, and class means.

Source: Park and Lee, Prototype-based Federated Prompt Learning for Personalization in Heterogeneous Environments, 2026:
    agents train prompt and MLP on L_CE + lambda L_reg(mu, g), send prompt and class means, get their averages back.
Deviation: the paper gives no settings. Reconstructed: text prompts as in CoOp; the MLP is an adapter on the image
    feature that stays with the agent; embeddings and means have unit length; L_reg is ||z(x) - g_y||^2 summed over
    dimensions (FedProto's mean over them is lambda / dim), a mean over samples; no g, no regulariser. Alternatives are
    options, see Config. `blend` mixes in the nearest mean when predicting; with `blend_by = "holdout"` an agent takes
    the share that suits its own [data] holdout.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from common import blending, personal, prompts, prototypes
from common.average import RunningMean
from common.method import AgentInfo, Learner, Model, RunSpec, Scores, Site, Step
from common.methods.fedavg import some_samples
from common.methods.fedproto import width
from common.payloads import Payload, Prompt, Prototypes, Weights
from common.prototypes import Known, Privacy, Weighting
from common.samples import Samples

MODEL = "prompted"  # the only one that it works on
Plan = Iterator[tuple[AgentInfo, "Task"]]


@dataclass(frozen=True)
class Config:
    strength: float = 1.0  # lambda
    of: prototypes.Of = "samples"  # or a batch's class means, mu_B: sum over classes of ||mu_B - g||^2
    adapter: bool = True
    share_adapter: bool = False  # averaged like the prompt
    learn_prompt: bool = True  # false: the data set's sentence
    share_prompt: bool = True
    exchange: bool = True  # of means
    weighting: Weighting = "weighted"  # of the means; prompts are always weighted by samples
    max_age: int = 0
    privacy: Privacy = field(default_factory=Privacy)
    blend: float = 0.0  # share of the nearest mean in what is predicted
    blend_by: Literal["fixed", "holdout"] = "fixed"
    scale: float = 28.0  # of its cosines; CLIP's is 100

    def __post_init__(self) -> None:
        if self.strength < 0 or self.max_age < 0 or not 0 <= self.blend <= 1:
            got = f"{self.strength}, {self.max_age}, {self.blend}"
            raise ValueError(f"expected strength >= 0, max_age >= 0 and 0 <= blend <= 1, got {got}")
        if not (self.adapter or self.learn_prompt):
            raise ValueError("nothing to train: adapter and learn_prompt are both false")
        if self.share_adapter and not self.adapter:
            raise ValueError("share_adapter is true and there is no adapter")


@dataclass(frozen=True)
class State:
    prompt: Prompt | None
    adapter: Weights | None  # None: each agent has its own, or none
    known: Known
    dim: int  # of the embedding


@dataclass(frozen=True)
class Task:
    prompt: Prompt | None
    adapter: Weights | None
    prototypes: Prototypes | None


@dataclass(frozen=True)
class Reply:
    prompt: Prompt | None
    adapter: Weights | None
    prototypes: Prototypes | None
    n_samples: int


@dataclass(frozen=True)
class Memory:
    own: Weights | None = None
    blend: float | None = None  # None: nothing has been chosen


def init(run: RunSpec[Config], model: Model, start: Mapping[str, Payload], rng: "np.random.Generator") -> State:
    config, parameters = run.config, model.parameters(adapter=True)
    prototypes.check_run(run)
    prompt = prompts.first_prompt(model, start, rng, "proto_prompt") if config.learn_prompt else None
    adapter = model.initial(rng, adapter=True).only(prompts.adapter(parameters)) if config.share_adapter else None
    return State(prompt, adapter, Known(), width(parameters))


def plan(run: RunSpec[Config], state: State, agents: tuple[AgentInfo, ...], step: Step) -> Plan:
    task = Task(state.prompt, state.adapter, state.known.prototypes)
    yield from ((agent, task) for agent in agents)


def work(task: Task, memory: Memory, site: Site[Config]) -> tuple[Reply, Memory]:
    config, samples, learner = site.run.config, some_samples(site), _learner(site)
    terms = prototypes.regulariser(task.prototypes, config.strength, config.of)
    weights = _whole(task, None, memory, site, learner)
    weights = learner.fit(weights, samples, site.training, terms=terms, rng=site.rng).weights
    means = None
    if config.exchange:
        embeddings = learner.embed(weights, samples)
        means = prototypes.class_means(embeddings, samples.labels, config.privacy, site.rng, unit=True)
    shared = prompts.adapter(learner.parameters()) if config.share_adapter else ()
    prompt, adapter, own = prompts.split(weights, shared, prompt=config.share_prompt and config.learn_prompt)
    held, share = site.data.holdout, memory.blend
    if config.blend_by == "holdout" and task.prototypes is not None and len(held):  # means of the round before
        share = blending.best_share(*blending.both(learner, weights, held, task.prototypes, config.scale), held.labels)
    return Reply(prompt, adapter, means, len(samples)), Memory(own, share)


def merge(run: RunSpec[Config], state: State, replies: Iterator[tuple[AgentInfo, Reply]], step: Step) -> State:
    n_classes = None if run.classes is None else len(run.classes)
    means = prototypes.Merging(state.dim, n_classes, run.config.weighting)
    shared = RunningMean(prompts.joined(state.prompt if run.config.share_prompt else None, state.adapter))
    for agent, reply in replies:
        means.add(agent.name, reply.prototypes)
        shared.add(agent.name, reply.n_samples, prompts.joined(reply.prompt, reply.adapter))
    known = means.merged(state.known, unit=True, max_age=run.config.max_age)
    learnt = run.config.share_prompt and state.prompt is not None
    prompt, adapter, _ = prompts.split(shared.mean(), state.adapter or (), prompt=learnt)
    return State(prompt if learnt else state.prompt, adapter, known, state.dim)


def predict(task: Task, reply: Reply | None, memory: Memory, site: Site[Config], inputs: Samples) -> dict[str, Scores]:
    config, learner = site.run.config, _learner(site)
    weights = _whole(task, reply, memory, site, learner)
    text, near, known = blending.both(learner, weights, inputs, task.prototypes, config.scale)
    share = config.blend if memory.blend is None else memory.blend
    return {"personal": prototypes.blended(text, near, known, share), "nearest": near}


def result(run: RunSpec[Config], state: State) -> dict[str, Payload]:
    found = {"prompt": state.prompt, "adapter": state.adapter, "prototypes": state.known.prototypes}
    return {name: payload for name, payload in found.items() if payload is not None}


def _whole(task: Task, reply: Reply | None, memory: Memory, site: Site[Any], learner: Learner) -> Weights:
    """Without a reply, as the next training would start."""
    trained = prompts.joined(reply.prompt, reply.adapter) if reply else None
    return personal.whole(site, learner, [prompts.joined(task.prompt, task.adapter), trained, memory.own])


def _learner(site: Site[Config]) -> Learner:
    words: dict[str, Any] = {} if site.run.config.learn_prompt else {"context": 0}  # the data set's sentence
    return site.learner(terms=(prototypes.TERMS[site.run.config.of],), adapter=site.run.config.adapter, **words)
