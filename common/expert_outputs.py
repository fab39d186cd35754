"""What a tree of experts says of inputs: conditionals, decoded classes, and a temperature for each expert."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from common import decoding
from common.errors import RemoteFault
from common.experts import Family, learner_of, seen
from common.method import Learner, Scores, Site
from common.payloads import Weights
from common.samples import Samples
from common.taxonomy import Taxonomy

Decoder = Literal["greedy", "beam", "product", "distribution"]
TEMPERATURES = tuple(float(t) for t in np.geomspace(0.25, 4.0, 25))
BLOCK, LEAST = 64, 8  # inputs that an expert sees at a time
SURE = 30.0  # log-odds by which a decoder that names one class prefers it


def outputs(
    family: Family,
    experts: Mapping[str, Weights],
    temperatures: Mapping[str, float],
    trunk: Weights | None,
    site: Site[Any],
    inputs: Samples,
) -> decoding.Experts:
    """Log-probabilities of a node's children for some of the inputs; each row goes through an expert once."""
    plain = seen(inputs.unlabelled(), trunk, site)
    learners: dict[str, Learner] = {}
    known: dict[str, NDArray[np.float64]] = {}

    def ask(node: str, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        found = known.setdefault(node, np.full((len(inputs), len(family.tree.children[node])), np.nan))
        missing = rows[np.isnan(found[rows, 0])]
        if len(missing):
            if node not in learners:
                learners[node] = learner_of(family, node, plain, site)
            logits = in_blocks(learners[node], experts[node], plain.take(missing))
            found[missing] = family.by_child(node, _log_softmax(logits / temperatures.get(node, 1.0)))
        return found[rows]

    return ask


def in_blocks(learner: Learner, weights: Weights, samples: Samples) -> NDArray[np.float64]:
    """Scores, (n, n_outputs), of blocks of 8, 16, 32 and 64 inputs only; a last one is filled up with its last input.

    As many inputs as happen to reach an expert would each be a size of its own, and what libraries compile and keep
    for every size of every expert is soon more than the tree itself, and than a small device has.
    """
    found = []
    for first in range(0, len(samples), BLOCK):
        rows = np.arange(first, min(first + BLOCK, len(samples)))
        size = max(LEAST, 1 << (len(rows) - 1).bit_length())
        filled = np.append(rows, np.repeat(rows[-1:], size - len(rows)))
        found.append(learner.scores(weights, samples.take(filled))[: len(rows)])
    return np.concatenate(found).astype(np.float64)


def readings(
    tree: Taxonomy, ask: decoding.Experts, decoders: Sequence[Decoder], width: int, site: Site[Any], inputs: Samples
) -> dict[str, Scores]:
    """Scores by decoder, (n, n_classes); the first decoder's are "model". Those that name one class score only that.

    Reported beside them: how many experts each decoder evaluated, and with "distribution", which evaluates all, how
    many inputs under a node its expert sends to the right child.
    """
    n, found = len(inputs), dict[str, Scores]()
    for name in decoders:
        match name:
            case "distribution":
                scores: Scores = decoding.distribution(tree, ask, n)
                cost = n * len(tree.children)
                _count_hits(tree, ask, site, inputs)
            case "product":
                scores, cost = _decoded(decoding.product(tree, ask, n), tree)
            case "greedy":
                scores, cost = _decoded(decoding.greedy(tree, ask, n), tree)
            case "beam":
                scores, cost = _decoded(decoding.beam(tree, ask, n, width=width), tree)
        found["model" if name == decoders[0] else name] = scores
        site.count(f"experts {name}", float(cost))
    site.count("inputs", float(n))
    return found


def losses(
    family: Family, experts: Mapping[str, Weights], trunk: Weights | None, site: Site[Any]
) -> Iterator[tuple[str, tuple[float, ...]]]:
    """Node, and the summed loss of its held-out samples at each of TEMPERATURES.

    With targets = "children" a class's loss is the sum of those along its path, so minimising each node's minimises the
    loss over classes; with "leaves" it is the loss of the node's own outputs, of which decoding takes sums.
    """
    for node in (n for n in family.tree.children if n in experts):
        mine = site.data.holdout.relabel(family.labels(node), len(family.outputs(node)))
        if len(mine):
            samples = seen(mine, trunk, site)
            learner = learner_of(family, node, samples, site)
            logits, rows = learner.scores(experts[node], samples).astype(np.float64), np.arange(len(mine))
            each = [_log_softmax(logits / t)[rows, mine.labels] for t in TEMPERATURES]
            yield node, tuple(float(-log_p.sum()) for log_p in each)


def temperatures(sent: Iterable[tuple[str, Mapping[str, tuple[float, ...]]]], nodes: Iterable[str]) -> dict[str, float]:
    """For each node that somebody has held-out samples of, the temperature of least loss over all agents.

    Raises:
        RemoteFault: an agent sent losses of another node, or not one for each temperature.
    """
    known, sums = set(nodes), dict[str, NDArray[np.float64]]()
    for agent, losses_of in sent:
        for node, values in losses_of.items():
            if node not in known:
                raise RemoteFault(f"agent {agent}: losses of {node!r}, which is no inner node of the run's taxonomy")
            if len(values) != len(TEMPERATURES) or not np.isfinite(values).all():
                raise RemoteFault(
                    f"agent {agent}: losses of expert {node!r} must be {len(TEMPERATURES)} finite numbers, got {values}"
                )
            sums[node] = sums.get(node, np.zeros(len(TEMPERATURES))) + np.array(values)
    return {node: TEMPERATURES[int(total.argmin())] for node, total in sums.items()}


def _decoded(decoded: decoding.Decoded, tree: Taxonomy) -> tuple[Scores, int]:
    scores = np.zeros((len(decoded.classes), len(tree.classes)), np.float32)
    scores[np.arange(len(scores)), decoded.classes] = SURE
    return scores, int(decoded.n_evaluations.sum())


def _count_hits(tree: Taxonomy, ask: decoding.Experts, site: Site[Any], inputs: Samples) -> None:
    for node in tree.children:
        targets = np.where(inputs.labels < 0, -1, tree.targets(node)[inputs.labels])
        rows = np.flatnonzero(targets >= 0)
        if len(rows):
            site.count(f"right {node}", float(np.count_nonzero(ask(node, rows).argmax(axis=1) == targets[rows])))
            site.count(f"inputs {node}", float(len(rows)))


def _log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = logits - logits.max(axis=1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result
