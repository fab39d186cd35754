"""`python -m benchmarks.prototype_cuts [NAME]`: how few bytes class means can do with, and what that costs.

A row is trained in this process; its agents' means of every round are then sent again in shorter forms, and each
agent's test images are given the class of the nearest common mean. Written to DIR/prompts_cuts.json. Bytes are those
of the numbers and of 8 for each class's id and count.
"""

import argparse
import functools
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import experiment, in_memory
from common import files, personal, prototypes, runfile
from common.errors import FederationError
from common.payloads import Prototypes
from common.prototypes import Known, Merging, Privacy

ROW = "ours"
LABEL_BYTES = 8  # of a class: its id and its count
RANKS, MOVES = (16, 8, 4), (0.02, 0.05, 0.1)
Vectors = NDArray[Any]  # float32, (n, dim)
Sent = Sequence[Prototypes]  # of each agent, in one round


@dataclass(frozen=True)
class Cut:
    """Bytes are means over agents and rounds; accuracy is that of the last round, a mean over agents."""

    name: str
    bytes_up: float
    bytes_down: float
    accuracy: float


@dataclass(frozen=True)
class Trained:
    """What a run sent, and where its agents' test images lie, in the end: embeddings of unit length and labels."""

    rounds: tuple[Sent, ...]
    tests: tuple[tuple[Vectors, NDArray[np.int64]], ...]


def measured(run: Trained) -> list[Cut]:
    cuts = [
        _shortened("float32", run, lambda v: (v, 4 * v.size)),
        _shortened("float16", run, lambda v: (v.astype(np.float16).astype(np.float32), 2 * v.size)),
        _shortened("int8, a scale a mean", run, eighths),
    ]
    cuts += [_shortened(f"rank {r}, float32", run, functools.partial(low_rank, rank=r)) for r in RANKS]
    return cuts + [_changed(run, least) for least in MOVES]


def eighths(vectors: Vectors) -> tuple[Vectors, int]:
    scale = np.maximum(np.abs(vectors).max(axis=1, keepdims=True), 1e-12) / 127
    return (np.rint(vectors / scale) * scale).astype(np.float32), vectors.size + 4 * len(vectors)


def low_rank(vectors: Vectors, rank: int) -> tuple[Vectors, int]:
    """The nearest matrix of that rank, as two factors; what has no higher rank goes as it is."""
    n, dim = vectors.shape
    if rank * (n + dim) >= n * dim:
        return vectors, 4 * vectors.size
    u, s, v = np.linalg.svd(vectors, full_matrices=False)
    return ((u[:, :rank] * s[:rank]) @ v[:rank]).astype(np.float32), 4 * rank * (n + dim)


def _shortened(name: str, run: Trained, short: Callable[[Vectors], tuple[Vectors, int]]) -> Cut:
    """Both ways in the shorter form."""
    up, down, known = [], [], Known()
    for sent in run.rounds:
        received = [_with(means, short(means.vectors)[0]) for means in sent]
        up += [short(means.vectors)[1] + LABEL_BYTES * len(means) for means in sent]
        known = _merged(received, known)
        common = known.prototypes
        assert common is not None
        down.append(short(common.vectors)[1] + LABEL_BYTES * len(common))
    common = known.prototypes
    assert common is not None
    shown = _with(common, short(common.vectors)[0])
    return Cut(name, float(np.mean(up)), float(np.mean(down)), _accuracy(run, shown))


def _changed(run: Trained, least: float) -> Cut:
    """A mean goes up again when it has moved that far since it was last sent; the server keeps each agent's last."""
    up, down, known = [], [], Known()
    latest: list[dict[int, tuple[Vectors, int]]] = [{} for _ in run.rounds[0]]
    before: dict[int, Vectors] = {}  # what the agents have of the common means
    for sent in run.rounds:
        for means, has in zip(sent, latest, strict=True):
            moved = [i for i, c in enumerate(means.class_ids.tolist()) if _far(means.vectors[i], has.get(c), least)]
            has.update({int(means.class_ids[i]): (means.vectors[i], int(means.counts[i])) for i in moved})
            up.append(len(moved) * (4 * means.vectors.shape[1] + LABEL_BYTES))
        known = _merged([_gathered(has) for has in latest if has], Known())
        common = known.prototypes
        assert common is not None
        now = dict(zip(common.class_ids.tolist(), common.vectors, strict=True))
        news = {c: v for c, v in now.items() if c not in before or np.linalg.norm(v - before[c]) >= least}
        before |= news
        down.append(len(news) * (4 * common.vectors.shape[1] + LABEL_BYTES))
    ids = sorted(before)
    shown = Prototypes(np.array(ids), np.ones(len(ids), np.int64), np.stack([before[c] for c in ids]))
    return Cut(f"moved by {least:g} or more", float(np.mean(up)), float(np.mean(down)), _accuracy(run, shown))


def _far(vector: Vectors, last: tuple[Vectors, int] | None, least: float) -> bool:
    return last is None or float(np.linalg.norm(vector - last[0])) >= least


def _gathered(has: dict[int, tuple[Vectors, int]]) -> Prototypes:
    ids = sorted(has)
    return Prototypes(np.array(ids), np.array([has[c][1] for c in ids]), np.stack([has[c][0] for c in ids]))


def _with(means: Prototypes, vectors: Vectors) -> Prototypes:
    return Prototypes(means.class_ids, means.counts, vectors)


def _merged(sent: Sent, before: Known) -> Known:
    merging = Merging(sent[0].vectors.shape[1], None)
    for i, means in enumerate(sent):
        merging.add(f"{i:02}", means)
    return merging.merged(before, unit=True)


def _accuracy(run: Trained, known: Prototypes) -> float:
    n_classes = 1 + max(int(known.class_ids.max()), *(int(y.max(initial=0)) for _, y in run.tests))
    right = [(prototypes.nearest(x, known, n_classes).argmax(1) == y).mean() for x, y in run.tests if len(y)]
    return float(np.mean(right))


def trained(file: Any) -> Trained:  # Any: a RunFile
    """The row of that file, in this process."""
    fleet, rounds = in_memory.fleet(file), []
    for number in range(1, file.run.rounds + 1):
        fleet.round(number)
        rounds.append([_sent(fleet, agent, number) for agent in fleet.agents.values()])
    tests = [(_embedded(fleet, agent, agent.views.test), agent.views.test.labels) for agent in fleet.agents.values()]
    return Trained(tuple(rounds), tuple(tests))


def _sent(fleet: in_memory.Fleet, agent: in_memory.Agent, number: int) -> Prototypes:
    """An agent's means depend on its adapter, which its Memory holds."""
    view = agent.views.train
    rng = np.random.default_rng(0)  # no noise: nothing is drawn
    found = prototypes.class_means(_embedded(fleet, agent, view), view.labels, Privacy(), rng, unit=True)
    assert found is not None
    return found


def _embedded(fleet: in_memory.Fleet, agent: in_memory.Agent, view: Any) -> Vectors:
    site = fleet.site(agent, fleet.run.at(1).rounds)
    learner = site.learner(adapter=True)
    weights = personal.whole(site, learner, [agent.memory.own.only(learner.parameters())])
    return np.asarray(learner.embed(weights, view), np.float32)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prototype_cuts")
    parser.add_argument("experiment", nargs="?", default="prompts_caltech101", metavar="NAME|FILE.toml")
    parser.add_argument("--out", type=Path, default=Path("docs/experiments"), metavar="DIR")
    asked = parser.parse_args(argv)
    try:
        stem, text = experiment.find(asked.experiment)
        cuts = measured(trained(in_memory.row(runfile.parse(text, stem), ROW)))
    except FederationError as error:
        print(f"prototype_cuts: {error}", file=sys.stderr)
        return error.exit_code
    for cut in cuts:
        print(f"{cut.name}: {cut.bytes_up:.0f} up, {cut.bytes_down:.0f} down, accuracy {cut.accuracy:.4f}")
    asked.out.mkdir(parents=True, exist_ok=True)
    kept = {"experiment": stem, "cuts": [asdict(cut) for cut in cuts]}
    files.write_durably(asked.out / "prompts_cuts.json", [(json.dumps(kept, indent=1) + "\n").encode()])
    return 0


if __name__ == "__main__":
    sys.exit(main())
