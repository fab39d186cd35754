"""A class taxonomy: a rooted tree whose leaves are the classes of a run, in the order of the class list.

Whatever order edges arrive in, the tree is the same: children stand in the order of the first class below them, so
expert outputs keep their meaning. Nodes with one child say nothing and are collapsed; a node with several parents
keeps the first one named, and the other edges are in `cut` and, when the tree is built, in the log.
"""

import csv
import json
import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import ConfigError

Edge = tuple[str, str]  # parent, child
log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Taxonomy:
    """The tree. `children` has every inner node in breadth-first order, each with at least two children."""

    root: str
    classes: tuple[str, ...]
    children: Mapping[str, tuple[str, ...]]
    cut: tuple[Edge, ...] = ()
    collapsed: tuple[str, ...] = ()

    @cached_property
    def nodes(self) -> tuple[str, ...]:
        """Inner nodes breadth first, then the classes in order; positions in it number the nodes."""
        return (*self.children, *self.classes)

    @cached_property
    def number(self) -> dict[str, int]:
        return {node: i for i, node in enumerate(self.nodes)}

    @cached_property
    def parent(self) -> dict[str, str]:
        return {child: node for node, below in self.children.items() for child in below}

    @cached_property
    def below(self) -> dict[str, NDArray[np.int64]]:
        """node -> the classes under it, as ascending positions in `classes`."""
        found = {name: np.array([i]) for i, name in enumerate(self.classes)}
        for node in reversed(tuple(self.children)):  # deepest first
            found[node] = np.sort(np.concatenate([found[child] for child in self.children[node]]))
        return found

    def path(self, node: str) -> tuple[str, ...]:
        """From the root to the node, both included."""
        steps = [node]
        while steps[-1] != self.root:
            steps.append(self.parent[steps[-1]])
        return tuple(reversed(steps))

    def targets(self, node: str) -> NDArray[np.int64]:
        """class -> output of this node's expert, -1 for classes that are not under it; (n_classes,)."""
        table = np.full(len(self.classes), -1, np.int64)
        for output, child in enumerate(self.children[node]):
            table[self.below[child]] = output
        return table

    def is_bottom(self, node: str) -> bool:
        """Whether all children are classes."""
        return all(child not in self.children for child in self.children[node])

    def subtree(self, node: str) -> "Taxonomy":
        """The tree below a node, with only the classes there: all that a device for those classes needs."""
        if node not in self.children:
            raise ConfigError(f"a subtree starts at an inner node, and {node!r} is none of this taxonomy")
        kept = [n for n in self.children if node in self.path(n)]
        classes = tuple(self.classes[i] for i in self.below[node])
        return Taxonomy(node, classes, {n: self.children[n] for n in kept})


@lru_cache(maxsize=16)
def build(edges: tuple[Edge, ...], classes: tuple[str, ...]) -> Taxonomy:
    """The taxonomy of these (parent, child) edges over these classes.

    Raises:
        ConfigError: no or several roots, a cycle, a leaf that is no class, a class that is no leaf or not there.
    """
    if not edges:
        raise ConfigError("the taxonomy has no edges; expected (parent, child) pairs that lead to every class")
    parent, cut = _single_parents(edges)
    below: dict[str, list[str]] = defaultdict(list)
    for child, node in parent.items():
        below[node].append(child)
    root = _root(edges, parent)
    _check_reachable(root, below, parent)
    _check_leaves(below, parent, classes)
    collapsed: list[str] = []
    position = {name: i for i, name in enumerate(classes)}
    root = _collapse(root, below, collapsed)
    children = _ordered(root, below, position)
    if cut:
        log.warning("%s", _told(cut, parent))
    return Taxonomy(root, classes, children, tuple(cut), tuple(collapsed))


def load(path: Path) -> tuple[Edge, ...]:
    """Edges from a file: CSV `parent,child`, `parent child` text, or node-link JSON (`nodes`, `links`).

    Raises:
        ConfigError: it cannot be read, or a line is no edge.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read taxonomy {path}: {error}") from error
    return _node_link(text, path) if path.suffix == ".json" else _pairs(text, path)


def from_coarse(classes: Sequence[str], coarse_of: Sequence[str], root: str = "root") -> tuple[Edge, ...]:
    """Edges root -> coarse class -> class, for a data set that carries both labels."""
    return (*((root, c) for c in dict.fromkeys(coarse_of)), *zip(coarse_of, classes, strict=True))


def leaves_under(edges: tuple[Edge, ...], names: Iterable[str]) -> tuple[str, ...]:
    """The leaves under these nodes; a name that is no inner node stands for itself."""
    below: dict[str, list[str]] = defaultdict(list)
    for node, child in edges:
        below[node].append(child)
    found: list[str] = []
    open_nodes = list(names)
    for node in open_nodes:  # grows while it is read
        if node in below:
            open_nodes += [child for child in below.pop(node) if child not in open_nodes]
        else:
            found.append(node)
    return tuple(dict.fromkeys(found))


def without(edges: tuple[Edge, ...], classes: Sequence[str]) -> tuple[Edge, ...]:
    """The edges less those that lead to these classes, and to nothing else."""
    gone = set(classes)
    while True:
        kept = tuple(edge for edge in edges if edge[1] not in gone)
        childless = {child for _, child in kept} - {node for node, _ in kept}
        gone = {child for child in childless if any(node == child for node, _ in edges)}
        if not gone:
            return kept
        edges = kept


def drawing(taxonomy: Taxonomy, notes: Mapping[str, str] | None = None) -> str:
    """The tree as text, one node a line, with a note behind each node that has one."""
    lines: list[str] = []

    def draw(node: str, lead: str, branch: str) -> None:
        note = (notes or {}).get(node, "")
        lines.append(f"{lead}{branch}{node}{'  ' + note if note else ''}")
        below = taxonomy.children.get(node, ())
        inner = lead + {"": "", "├─ ": "│  ", "└─ ": "   "}[branch]
        for i, child in enumerate(below):
            draw(child, inner, "└─ " if i == len(below) - 1 else "├─ ")

    draw(taxonomy.root, "", "")
    return "\n".join(lines)


# ------------------------------------------------------------------ building


def _single_parents(edges: Iterable[Edge]) -> tuple[dict[str, str], list[Edge]]:
    parent: dict[str, str] = {}
    cut: list[Edge] = []
    for node, child in edges:
        if node == child:
            raise ConfigError(f"the taxonomy has a cycle: {node!r} is its own parent")
        if parent.setdefault(child, node) != node:
            cut.append((node, child))
    return parent, cut


def _told(cut: Sequence[Edge], parent: Mapping[str, str], shown: int = 5) -> str:
    named = ", ".join(f"{child!r} stays under {parent[child]!r}, not {node!r}" for node, child in cut[:shown])
    more = f" and {len(cut) - shown} more" if len(cut) > shown else ""
    return f"the taxonomy has nodes with several parents, of which the first counts: {named}{more}"


def _root(edges: Iterable[Edge], parent: Mapping[str, str]) -> str:
    roots = [node for node in dict.fromkeys(node for node, _ in edges) if node not in parent]
    if len(roots) > 1:
        named = ", ".join(repr(root) for root in roots[:5])
        raise ConfigError(f"the taxonomy must have one root, got {len(roots)}: {named}; join them under one node")
    if not roots:
        raise ConfigError(f"the taxonomy has a cycle: {_cycle(next(iter(parent)), parent)}")
    return roots[0]


def _check_reachable(root: str, below: Mapping[str, list[str]], parent: Mapping[str, str]) -> None:
    seen, open_nodes = {root}, [root]
    while open_nodes:
        for child in below.get(open_nodes.pop(), ()):
            seen.add(child)
            open_nodes.append(child)
    lost = [node for node in parent if node not in seen]
    if lost:
        raise ConfigError(f"the taxonomy has a cycle: {_cycle(lost[0], parent)}")


def _cycle(start: str, parent: Mapping[str, str]) -> str:
    """The cycle above a node; every way up from a node that the root does not reach ends in one."""
    seen: list[str] = []
    node = start
    while node not in seen:
        seen.append(node)
        node = parent[node]
    return " <- ".join(repr(n) for n in [*seen[seen.index(node) :], node])


def _check_leaves(below: Mapping[str, list[str]], parent: Mapping[str, str], classes: tuple[str, ...]) -> None:
    leaves = [node for node in parent if node not in below]
    known = set(classes)
    if len(known) != len(classes):
        twice = next(c for c in classes if classes.count(c) > 1)
        raise ConfigError(f"the class list names {twice!r} twice")
    for name in classes:
        if name in below:
            raise ConfigError(
                f"class {name!r} is an inner node of the taxonomy; expected a leaf, so give its children up"
            )
        if name not in parent:
            raise ConfigError(f"class {name!r} is not in the taxonomy; add an edge from its parent")
    strange = [leaf for leaf in leaves if leaf not in known]
    if strange:
        raise ConfigError(
            f"leaf {strange[0]!r} of the taxonomy is no class of the run ({len(strange)} such leaves); "
            f"remove it, or add it to the class list"
        )


def _collapse(root: str, below: dict[str, list[str]], collapsed: list[str]) -> str:
    def descend(node: str) -> str:
        while len(below.get(node, ())) == 1:
            collapsed.append(node)
            node = below[node][0]
        return node

    root = descend(root)
    open_nodes = [root]
    while open_nodes:
        node = open_nodes.pop()
        if node in below:
            below[node] = [descend(child) for child in below[node]]
            open_nodes += below[node]
    return root


def _ordered(root: str, below: Mapping[str, list[str]], position: Mapping[str, int]) -> dict[str, tuple[str, ...]]:
    first: dict[str, int] = dict(position)
    levels = [root]
    for node in levels:  # grows while it is read: breadth first
        levels += below.get(node, ())
    for node in reversed(levels):
        if node in below:
            first[node] = min(first[child] for child in below[node])
    children: dict[str, tuple[str, ...]] = {}
    queue = [root]
    for node in queue:
        if node in below:
            children[node] = tuple(sorted(below[node], key=first.__getitem__))
            queue += children[node]
    return children


def _pairs(text: str, path: Path) -> tuple[Edge, ...]:
    edges: list[Edge] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        cells = next(csv.reader([line])) if "," in line else line.split()
        if [c.strip() for c in cells] == ["parent", "child"]:
            continue
        if len(cells) != 2:
            raise ConfigError(f"{path} line {number}: expected `parent,child`, got {line!r}")
        edges.append((cells[0].strip(), cells[1].strip()))
    return tuple(edges)


def _node_link(text: str, path: Path) -> tuple[Edge, ...]:
    try:
        links: list[dict[str, Any]] = json.loads(text)["links"]
        return tuple((str(link["source"]), str(link["target"])) for link in links)
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is no node-link JSON with `links` of `source` and `target`: {error}") from error
