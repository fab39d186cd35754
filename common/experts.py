"""One expert per inner node of a taxonomy: its variant of the model, its labels, first weights, and training.

A node's expert sees only the samples under the node, relabelled. Its outputs are named, so that a finished tree can
grow: rows of a head are found again by name when classes or branches are added.
"""

import csv
import io
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from common import expert_schedule, models, taxonomy
from common.errors import ConfigError, RemoteFault
from common.method import Learner, Model, RunSpec, Scalar, Site, Spec, Training
from common.payloads import Array, Blob, Payload, Weights
from common.samples import Samples, from_arrays
from common.taxonomy import Taxonomy

SMALL_BATCH = 8
RESERVED = ("outputs", "trunk")  # what a result has beside the experts


@dataclass(frozen=True)
class Widths:
    """Width of a node's expert by its place: `option` is the model option that it sets; without it all are alike."""

    option: str = ""
    root: int = 24
    inner: int = 24
    bottom: int = 16  # all children are classes

    @property
    def are_equal(self) -> bool:
        return not self.option or self.root == self.inner == self.bottom


@dataclass(frozen=True, eq=False)
class Family:
    """How the experts of a run are made. With `on_trunk` they are linear heads on the features of a common trunk."""

    tree: Taxonomy
    targets: Literal["children", "leaves"]
    widths: Widths
    on_trunk: bool

    def outputs(self, node: str) -> tuple[str, ...]:
        """The names of an expert's outputs: its children, or all classes under it."""
        if self.targets == "children":
            return self.tree.children[node]
        return tuple(self.tree.classes[i] for i in self.tree.below[node])

    def variant(self, node: str) -> dict[str, Scalar]:
        n, widths = len(self.outputs(node)), self.widths
        if not widths.option or self.on_trunk:
            return {"n_classes": n}
        inner = widths.bottom if self.tree.is_bottom(node) else widths.inner
        return {"n_classes": n, widths.option: widths.root if node == self.tree.root else inner}

    def labels(self, node: str) -> NDArray[np.int64]:
        """class -> output, -1 where the class is not under the node; (n_classes,)."""
        if self.targets == "children":
            return self.tree.targets(node)
        table = np.full(len(self.tree.classes), -1, np.int64)
        table[self.tree.below[node]] = np.arange(len(self.tree.below[node]))
        return table

    def by_child(self, node: str, log_p: NDArray[np.float64]) -> NDArray[np.float64]:
        """Log-probabilities of a node's outputs, (n, n_outputs), as those of its children, (n, n_children)."""
        if self.targets == "children":
            return log_p
        below, p = self.tree.below[node], np.exp(log_p)
        sums = [p[:, np.isin(below, self.tree.below[child])].sum(axis=1) for child in self.tree.children[node]]
        result: NDArray[np.float64] = np.log(np.maximum(np.stack(sums, axis=1), np.finfo(np.float64).tiny))
        return result


def check_config(config: Any) -> None:  # Any: of method hier_moe
    """What its fields must be to each other.

    Raises:
        ValueError: a count below its least value, or a start from the parent between experts of different widths.
    """
    for name in ("experts_per_round", "rounds_each", "least_steps", "beam_width"):
        if getattr(config, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(config, name)}")
    if config.anneal_over < 0 or not config.decode:
        raise ValueError(f"anneal_over must be at least 0, got {config.anneal_over}, and decode name a decoder")
    if config.init == "parent" and not config.widths.are_equal:
        raise ValueError(f'init = "parent" needs experts of one width, got {config.widths}')


def tree_of(run: RunSpec[Any]) -> Taxonomy:
    if run.head == "agent":
        raise ConfigError(f"method {run.method} has one tree for all agents: it needs [model] head = 'run'")
    if run.taxonomy is None or run.classes is None:
        raise ConfigError(f"method {run.method} needs a class taxonomy that all agents share: set [data] taxonomy")
    return taxonomy.build(run.taxonomy, run.classes)


def family_of(run: RunSpec[Any]) -> Family:  # Any: the Config of method hier_moe, or of one with these settings
    config = run.config
    return Family(tree_of(run), config.targets, config.widths, config.trunk == "shared_frozen")


def check_nodes(tree: Taxonomy, nodes: Mapping[str, object], run: RunSpec[Any], *, whole: bool) -> None:
    """That experts are of nodes of this tree, and with `whole` of all of them.

    Raises:
        RemoteFault: they are not; the text names the first node that differs.
    """
    differs = [node for node in nodes if node not in tree.children]
    differs += [node for node in tree.children if whole and node not in nodes]
    if differs:
        has = "has no inner node" if differs[0] in nodes else "has a new inner node"
        raise RemoteFault(f"run {run.name}: the taxonomy has changed between rounds: it {has} {differs[0]!r}")


def check_named(tree: Taxonomy, nodes: Iterable[str], where: str) -> None:
    """That a run file names inner nodes only."""
    for node in nodes:
        if node not in tree.children:
            why = "it has one child and is collapsed" if node in tree.collapsed else "it is none of its inner nodes"
            raise ConfigError(f"{where} names {node!r}, which has no expert in the taxonomy: {why}")


# ------------------------------------------------------------------ first weights


def first(
    family: Family, model: Model, start: Mapping[str, Payload], rng: "np.random.Generator"
) -> tuple[dict[str, Weights], tuple[str, ...]]:
    """Every node's first expert, with the experts of an earlier run over it; and the nodes that had none there.

    Experts of nodes that this tree does not have are left out: that is how a tree is cut to a subtree.
    """
    for node in family.tree.children:
        if node in RESERVED:
            raise ConfigError(f"taxonomy node {node!r} has a name that results use for other things; rename it")
    names = _named(start.get("outputs"))
    for node in start:
        start[node]  # read, so that experts which are cut away do not count as given in vain
    experts: dict[str, Weights] = {}
    for node in family.tree.children:
        variant = family.variant(node)
        drawn, specs = model.initial(rng, **variant), model.parameters(**variant)
        if family.on_trunk:
            drawn = drawn.only(name for name, spec in specs.items() if spec.part == "head")
        earlier = start.get(node)
        experts[node] = drawn
        if isinstance(earlier, Weights):
            rows = _rows(family.tree, family.outputs(node), names.get(node, family.outputs(node)))
            experts[node] = _grown(node, drawn, earlier, specs, rows)
    return experts, tuple(node for node in experts if not isinstance(start.get(node), Weights))


def trunk_of(model: Model, start: Mapping[str, Payload], objective: str) -> Weights:
    """The trunk of an earlier run's model, without its head."""
    given = start.get("trunk", start.get("weights"))
    if not isinstance(given, Weights):
        raise ConfigError(
            'trunk = "shared_frozen" needs the trunk of an earlier run: set [run] init_from, and where its weights'
            ' are not called "weights", init_map, for example {trunk = "root"} for the root expert of a tree'
        )
    if objective != "cross_entropy":
        need = "experts on a frozen trunk see features, not images: set [objective] name = 'cross_entropy'"
        raise ConfigError(f"{need}, got {objective!r}")
    specs = model.parameters(n_classes=0)
    for name, spec in specs.items():
        got = list(given[name].shape) if name in given else "nothing"
        if got != list(spec.shape):
            raise ConfigError(f"init_from: tensor {name!r} of the trunk must be {list(spec.shape)}, got {got}")
    return given.only(specs)


def outputs_table(family: Family) -> Blob:
    """What each expert's outputs mean, as CSV `node,output` in their order; goes with a finished tree."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("node", "output"))
    writer.writerows((node, name) for node in family.tree.children for name in family.outputs(node))
    return Blob("text/csv", text.getvalue().encode())


def warmed(tree: Taxonomy, experts: Mapping[str, Weights], untouched: Collection[str]) -> dict[str, Weights]:
    """The experts as they go to training: an untouched one starts from its parent's, if that was trained.

    Its head keeps its own first draw, since its outputs mean something else.
    """
    found = dict(experts)
    for node in untouched:
        parent = tree.parent.get(node, node)
        if parent not in untouched:
            trunk = experts[parent].only(name for name in experts[parent] if models.part_of(name) != "head")
            found[node] = experts[node].updated(trunk)
    return found


def training_bytes(family: Family, model: Model, experts: Mapping[str, Weights], training: Training) -> dict[str, int]:
    """What training each expert takes for parameters, gradients and optimiser state."""
    specs = {node: model.parameters(**family.variant(node)) for node in experts}
    own = {node: {name: specs[node][name] for name in experts[node]} for node in experts}
    return {node: models.training_bytes(of, training) for node, of in own.items()}


def _named(table: Payload | None) -> dict[str, tuple[str, ...]]:
    """node -> the names of its outputs in the earlier run."""
    found: dict[str, tuple[str, ...]] = {}
    if isinstance(table, Blob):
        for row in list(csv.reader(io.StringIO(bytes(table.data).decode())))[1:]:
            found[row[0]] = (*found.get(row[0], ()), row[1])
    return found


def _rows(tree: Taxonomy, now: tuple[str, ...], before: tuple[str, ...]) -> list[int]:
    """For each output its row in the earlier head, -1 for a new one.

    A child that only now has children of its own was there under the name of the one class below it.
    """
    place = {name: i for i, name in enumerate(before)}
    rows = []
    for name in now:
        below = [name] if name in place else [n for n in place if n in tree.number and name in tree.path(n)]
        rows.append(place[below[0]] if len(below) == 1 else -1)
    return rows


def _grown(node: str, drawn: Weights, earlier: Weights, specs: Mapping[str, Spec], rows: list[int]) -> Weights:
    arrays: dict[str, Array] = {}
    known = [i for i, row in enumerate(rows) if row >= 0]
    for name, array in drawn.items():
        given = earlier.get(name)
        is_head = specs[name].part == "head"
        expected = (max(rows) + 1, *array.shape[1:]) if is_head else array.shape
        fits = given is not None and given.shape[1:] == expected[1:] and given.ndim == array.ndim
        if given is None or not fits or (len(given) < expected[0] if is_head else given.shape != expected):
            got = "nothing" if given is None else list(given.shape)
            raise ConfigError(
                f"init_from: tensor {name!r} of expert {node!r} must be {list(expected)}, got {got}; were the experts"
                f" made with other [model] options or widths?"
            )
        grown = np.array(array)
        if is_head:
            grown[known] = given[[rows[i] for i in known]]
        arrays[name] = grown if is_head else given.astype(array.dtype, copy=False)
    return Weights(arrays, drawn.kinds)


# ------------------------------------------------------------------ on an agent


def trained(
    family: Family, experts: Mapping[str, Weights], trunk: Weights | None, lr: Mapping[str, float], site: Site[Any]
) -> Iterator[tuple[str, int, Weights]]:
    """Each expert that has samples here: node, samples, trained weights. `lr`: its share of the optimiser's."""
    for node in (n for n in family.tree.children if n in experts):  # one after the other: only one's samples are read
        mine = site.data.train.relabel(family.labels(node), len(family.outputs(node)))
        if len(mine):
            batch = batch_of(len(mine), site.training.batch, site.run.config.least_steps)
            training = replace(site.training, batch=batch, lr=site.training.lr * lr.get(node, 1.0))
            with site.span(expert_schedule.span(node), len(mine)):
                samples = seen(mine, trunk, site)
                learner = learner_of(family, node, samples, site)
                fitted = learner.fit(experts[node], samples, training, rng=site.rng)
            yield node, len(mine), fitted.weights


def batch_of(n_samples: int, batch: int, least_steps: int) -> int:
    """The batch of an expert with so many samples: small enough for that many steps an epoch, SMALL_BATCH at least."""
    return min(batch, max(SMALL_BATCH, n_samples // least_steps))


def seen(samples: Samples, trunk: Weights | None, site: Site[Any]) -> Samples:
    """What experts see of samples: themselves, or on a trunk their features, (n, dim)."""
    if trunk is None:
        return samples
    return from_arrays(site.learner(n_classes=0).embed(trunk, samples), samples.labels, samples.n_classes)


def learner_of(family: Family, node: str, samples: Samples, site: Site[Any]) -> Learner:
    """The learner of a node's expert, for samples as experts see them."""
    variant: dict[str, Any] = dict(family.variant(node))
    if not family.on_trunk:
        return site.learner(**variant)
    dim = samples.read(np.zeros(1, np.int64)).shape[1]
    return site.learner(model="linear", input=str(dim), **variant)
