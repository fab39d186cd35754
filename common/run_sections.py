"""The sections of a run file, as frozen dataclasses: every key, its default, and the range that it must be in."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from common import methods
from common.method import Scalar
from common.toml_reader import INTERNAL, REST

Moment = Literal["start", "trained", "merged", "finetuned"]


def _at_least(least: int, **values: float | None) -> None:
    for name, value in values.items():
        if value is not None and not least <= value < math.inf:  # NaN is neither
            raise ValueError(f"{name} must be at least {least}, got {value}")


def _check_seed(seed: int) -> None:
    if not -(2**63) <= seed < 2**63:
        raise ValueError(f"seed must fit into 64 bits, got {seed}")


@dataclass(frozen=True)
class RunSection:
    """What is run. `init`: "seed", or an .npz with weights; `init_from`: the name of an earlier run or stage.

    With `memory_from` agents begin with what they had at the end of that run, which must be of the same method.
    """

    method: str
    rounds: int
    seed: int = 1
    init: str = "seed"
    init_from: str = ""
    init_map: Mapping[str, str] = field(default_factory=dict)
    memory_from: Literal["none", "init_from"] = "none"

    def __post_init__(self) -> None:
        _at_least(1, rounds=self.rounds)
        _check_seed(self.seed)
        if self.memory_from != "none" and not self.init_from:
            raise ValueError('memory_from = "init_from" needs init_from, the run whose memories agents begin with')
        if self.method not in methods.names():
            methods.load(self.method)


@dataclass(frozen=True)
class ModelSection:
    """The model by name; every further key is an option of that model."""

    name: str = "linear"
    head: Literal["run", "agent"] = "run"
    options: Mapping[str, Scalar | tuple[Scalar, ...]] = field(default_factory=dict, metadata=REST)


@dataclass(frozen=True)
class ObjectiveSection:
    """The objective by name; every further key is an option of that objective."""

    name: str = "cross_entropy"
    options: Mapping[str, Scalar] = field(default_factory=dict, metadata=REST)


@dataclass(frozen=True)
class OptimiserSection:
    name: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.1
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    epochs: int = 1
    batch: int = 32
    steps: int | None = None

    def __post_init__(self) -> None:
        _at_least(0, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay, epochs=self.epochs)
        _at_least(1, batch=self.batch, steps=self.steps)


@dataclass(frozen=True)
class DataSection:
    """Data set and partition for agents started with `--data named`; other agents ignore all but the last lines."""

    name: str = "digits"
    partition: str = "iid"  # iid, dirichlet, pathological, or the path of an .npz
    alpha: float = 0.1
    classes_per_agent: int = 2
    n_agents: int | None = None
    parted_among: int | None = None  # the data are divided among so many, of which the first n_agents take part
    min_samples: int = 10
    test_fraction: float = 0.25
    split: Literal["supervised", "transductive", "inductive"] = "supervised"  # the others: common/label_split.py
    labelled: float = 0.25  # share of an agent's samples that train with their labels, unless split = "supervised"
    stratified: bool = True  # that share is of each class
    seed: int = 42
    shots: int | None = None  # images per class over all agents
    n_classes: int | None = None  # the first so many classes of each data set, the rest is left out
    limit: int | None = None  # first so many training samples of the data set, before it is partitioned
    tasks: tuple[str, ...] = ()  # several data sets, agent i takes tasks[i % len(tasks)]
    holdout: float = 0.0
    classes: tuple[str, ...] | None = None
    without: tuple[str, ...] = ()  # classes of the data set whose samples nobody has
    taxonomy: str | tuple[tuple[str, ...], ...] | None = None  # (parent, child) edges, a file of them, or "coarse"

    def __post_init__(self) -> None:
        _at_least(
            1, n_agents=self.n_agents, shots=self.shots, limit=self.limit, classes_per_agent=self.classes_per_agent
        )
        _at_least(0, min_samples=self.min_samples)
        _check_seed(self.seed)
        if not 0 < self.alpha < math.inf:
            raise ValueError(f"alpha must be above 0 and finite, got {self.alpha}")
        if self.parted_among is not None and self.parted_among < (self.n_agents or 1):
            raise ValueError(f"parted_among must be at least n_agents = {self.n_agents}, got {self.parted_among}")
        if not 0 <= self.holdout < 1 or not 0 <= self.test_fraction < 1:
            raise ValueError(f"holdout and test_fraction must be in [0, 1), got {self.holdout}, {self.test_fraction}")
        if not 0 < self.labelled < 1:
            raise ValueError(f"labelled must be in (0, 1), got {self.labelled}")
        if self.split != "supervised" and self.shots is not None:
            raise ValueError(f"shots go with split = 'supervised', got shots = {self.shots} and split = {self.split!r}")
        if self.split == "inductive" and self.labelled + self.test_fraction >= 1:
            raise ValueError(
                f"labelled and test_fraction must leave samples without labels, "
                f"got {self.labelled} and {self.test_fraction}"
            )
        for edge in () if isinstance(self.taxonomy, str) else self.taxonomy or ():
            if len(edge) != 2:
                raise ValueError(f"taxonomy is a list of [parent, child] pairs, got {list(edge)}")


@dataclass(frozen=True)
class AgentsSection:
    """Who takes part: `fraction` of the ready agents, at least `min`; `quorum` of their tasks must be answered."""

    min: int = 1
    fraction: float = 1.0
    quorum: float = 1.0
    deadline_s: float = 600.0
    over_selection: float = 0.0  # share of agents asked beyond `fraction`; the step closes when enough have replied
    tags: tuple[str, ...] = ()
    selection: str | tuple[tuple[str | int, ...], ...] = "seeded"  # or a list of agents (names or indices) per round,
    # or the .json that has those lists

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1 or not 0 <= self.quorum <= 1 or self.min < 1 or self.deadline_s <= 0:
            raise ValueError(
                f"expected 0 < fraction <= 1, 0 <= quorum <= 1, min >= 1, deadline_s > 0, got "
                f"fraction {self.fraction}, quorum {self.quorum}, min {self.min}, deadline_s {self.deadline_s}"
            )
        if isinstance(self.selection, str) and self.selection != "seeded" and not self.selection.endswith(".json"):
            raise ValueError(
                f"selection must be 'seeded', a list of agents per round or FILE.json, got {self.selection!r}"
            )


@dataclass(frozen=True)
class EvaluationSection:
    """Which moments are measured, on whom, how often (0: never; the last round always, if anything is)."""

    every: int = 1
    every_task: int | None = None  # of the moments within training tasks, "start" and "trained"; None: as `every`
    agents: str | int = "all"  # all, sampled, or a number of agents
    when: tuple[Moment, ...] = ("merged",)
    finetune_epochs: int = 0
    label_space: Literal["all", "own"] = "all"
    metrics: tuple[str, ...] = ("accuracy", "loss")

    def __post_init__(self) -> None:
        _at_least(0, every=self.every, every_task=self.every_task, finetune_epochs=self.finetune_epochs)
        if not isinstance(self.agents, str):
            _at_least(1, agents=self.agents)
        elif self.agents not in ("all", "sampled"):
            raise ValueError(f"agents must be 'all', 'sampled' or a number, got {self.agents!r}")


@dataclass(frozen=True)
class WireSection:
    """Lossy encodings of uploads and downloads, and whether NaN and Inf are refused on arrival."""

    up: Literal["float32", "float16", "bfloat16"] = "float32"
    down: Literal["float32", "float16", "bfloat16"] = "float32"
    non_finite: Literal["refuse", "allow"] = "refuse"


@dataclass(frozen=True)
class Row:
    label: str
    set: Mapping[str, Any] = field(default_factory=dict)  # Any: a value of a TOML file
    seeds: tuple[int, ...] = ()  # instead of the experiment's
    stages: tuple[str, ...] = ()  # of the file's, those that this row has; none named: all


@dataclass(frozen=True)
class Stage:
    name: str
    set: Mapping[str, Any] = field(default_factory=dict)  # Any: a value of a TOML file


@dataclass(frozen=True)
class RunFile:
    """A run file with every section read; `table` is what it was read from."""

    run: RunSection
    method: Mapping[str, Any] = field(default_factory=dict)  # Any: the method's own Config reads it
    model: ModelSection = field(default_factory=ModelSection)
    objective: ObjectiveSection = field(default_factory=ObjectiveSection)
    optimiser: OptimiserSection = field(default_factory=OptimiserSection)
    data: DataSection = field(default_factory=DataSection)
    agents: AgentsSection = field(default_factory=AgentsSection)
    evaluation: EvaluationSection = field(default_factory=EvaluationSection)
    wire: WireSection = field(default_factory=WireSection)
    isolate: bool = False
    row: tuple[Row, ...] = ()
    stage: tuple[Stage, ...] = ()
    table: Mapping[str, Any] = field(default_factory=dict, metadata=INTERNAL, compare=False)  # Any: TOML values


@dataclass(frozen=True)
class Variant:
    """One run of an experiment: a row, and a stage of it when there are stages."""

    label: str
    stage: str
    file: RunFile
