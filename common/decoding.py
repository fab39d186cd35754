"""From the outputs of a tree of experts to one class: greedy, beam, and the exact product, lazily.

An expert at node v gives log p(child | v). The product of these along a path is a class's probability. Because it
only falls along a path, best-first search finds the likeliest class exactly while it evaluates only experts that can
still win; greedy is the same search that keeps one node. `Experts` is asked for batches, so that images which need
the same expert next go through it together.
"""

import heapq
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.taxonomy import Taxonomy

# (node, rows) -> log-probabilities of the node's children for these rows, (len(rows), n_children)
Experts = Callable[[str, NDArray[np.int64]], NDArray[np.floating]]


@dataclass(frozen=True, eq=False)
class Decoded:
    """Per image: the class (n,), and how many experts were evaluated for it (n,)."""

    classes: NDArray[np.int64]
    n_evaluations: NDArray[np.int64]


def greedy(taxonomy: Taxonomy, experts: Experts, n: int) -> Decoded:
    """From the root to the likeliest child, level by level; ties go to the lowest child."""
    return beam(taxonomy, experts, n, width=1)


def beam(taxonomy: Taxonomy, experts: Experts, n: int, *, width: int) -> Decoded:
    """Keep the `width` likeliest paths at each level; answers the likeliest class among those that reached one."""
    kept: list[list[tuple[float, str]]] = [[(0.0, taxonomy.root)] for _ in range(n)]
    evaluations = np.zeros(n, np.int64)
    while True:
        wanted: dict[str, list[int]] = defaultdict(list)
        for row, paths in enumerate(kept):
            for _, node in paths:
                if node in taxonomy.children:
                    wanted[node].append(row)
        if not wanted:
            break
        outputs = _evaluate(experts, wanted)
        for row, paths in enumerate(kept):
            grown: list[tuple[float, str]] = []
            for log_p, node in paths:
                if node in taxonomy.children:
                    evaluations[row] += 1
                    outs = outputs[node, row]
                    grown += [(log_p + float(out), c) for out, c in zip(outs, taxonomy.children[node], strict=True)]
                else:
                    grown.append((log_p, node))
            kept[row] = sorted(grown, key=lambda path: -path[0])[:width]  # stable: ties keep the children's order
    return Decoded(_classes(taxonomy, [paths[0][1] for paths in kept]), evaluations)


def product(taxonomy: Taxonomy, experts: Experts, n: int) -> Decoded:
    """The likeliest class under the product of conditionals, exactly, by best-first search."""
    number = taxonomy.number
    queues: list[list[tuple[float, int, str]]] = [[(0.0, number[taxonomy.root], taxonomy.root)] for _ in range(n)]
    answers: list[str] = [""] * n
    evaluations = np.zeros(n, np.int64)
    searching = set(range(n))
    while searching:
        wanted: dict[str, list[int]] = defaultdict(list)
        for row in sorted(searching):
            node = queues[row][0][2]
            if node in taxonomy.children:
                wanted[node].append(row)
            else:
                answers[row] = node
                searching.discard(row)
        outputs = _evaluate(experts, wanted)
        for node, rows in wanted.items():
            for row in rows:
                cost, _, _ = heapq.heappop(queues[row])
                evaluations[row] += 1
                for out, child in zip(outputs[node, row], taxonomy.children[node], strict=True):
                    heapq.heappush(queues[row], (cost - float(out), number[child], child))
    return Decoded(_classes(taxonomy, answers), evaluations)


def distribution(taxonomy: Taxonomy, experts: Experts, n: int) -> NDArray[np.float64]:
    """Log-probabilities of all classes under the product, from every expert: (n, n_classes)."""
    rows = np.arange(n)
    log_p: dict[str, NDArray[np.float64]] = {taxonomy.root: np.zeros(n)}
    for node, below in taxonomy.children.items():  # parents first
        outs = experts(node, rows)
        for i, child in enumerate(below):
            log_p[child] = log_p[node] + outs[:, i]
    return np.stack([log_p[name] for name in taxonomy.classes], axis=1)


def _evaluate(experts: Experts, wanted: dict[str, list[int]]) -> dict[tuple[str, int], NDArray[np.floating]]:
    found = {}
    for node, rows in wanted.items():
        outs = experts(node, np.array(rows))
        found.update({(node, row): outs[i] for i, row in enumerate(rows)})
    return found


def _classes(taxonomy: Taxonomy, leaves: list[str]) -> NDArray[np.int64]:
    first = len(taxonomy.children)
    return np.array([taxonomy.number[name] - first for name in leaves], np.int64)
