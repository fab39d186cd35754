"""`python -m benchmarks.prototype_leaks NAME`: what class means tell of the images that they were made of.

The attacker knows a class and has all training images of it, of all agents; it takes the one whose feature is nearest
to a mean. `found` is how often that image is the sender's, `chance` how often a random one would be. Which classes an
agent has needs no attack: the means are named. Written to DIR/prompts_leaks.json.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import experiment, in_memory
from common import files, runfile, seeds
from common.errors import FederationError
from common.prototypes import Privacy, class_means

NOISES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4)
ROW = "ours"
Features = NDArray[np.float32]


@dataclass(frozen=True)
class Leak:
    noise: float
    found: float
    chance: float
    n_means: int


def measured(parts: Sequence[tuple[Features, NDArray[np.int64]]], noises: Iterable[float] = NOISES) -> list[Leak]:
    """Of agents' features of unit length (n, dim) and labels (n,)."""
    every, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    owner = np.concatenate([np.full(len(y), i) for i, (_, y) in enumerate(parts)])
    return [_with(noise, parts, every, labels, owner) for noise in noises]


def _with(
    noise: float,
    parts: Sequence[tuple[Features, NDArray[np.int64]]],
    every: Features,
    labels: NDArray[np.int64],
    owner: NDArray[np.int64],
) -> Leak:
    hits: list[bool] = []
    chances: list[float] = []
    rng = seeds.generator(0, "leaks")
    for agent, (features, own) in enumerate(parts):
        sent = class_means(features, own, Privacy(noise=noise), rng, unit=True)
        if sent is None:
            continue
        for c, n, mean in zip(sent.class_ids, sent.counts, sent.vectors, strict=True):
            of_class = np.flatnonzero(labels == c)
            hits.append(bool(owner[of_class[np.argmax(every[of_class] @ mean)]] == agent))
            chances.append(float(n) / len(of_class))
    return Leak(noise, float(np.mean(hits)), float(np.mean(chances)), len(hits))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prototype_leaks")
    parser.add_argument("experiment", nargs="?", default="prompts_caltech101", metavar="NAME|FILE.toml")
    parser.add_argument("--out", type=Path, default=Path("docs/experiments"), metavar="DIR")
    asked = parser.parse_args(argv)
    try:
        stem, text = experiment.find(asked.experiment)
        file = in_memory.row(runfile.parse(text, stem), ROW)
        views = [agent.views.train for agent in in_memory.fleet(file).agents.values()]
    except FederationError as error:
        print(f"prototype_leaks: {error}", file=sys.stderr)
        return error.exit_code
    parts = [(np.asarray(view.read(), np.float32), view.labels) for view in views if len(view)]
    leaks = measured([(x / np.linalg.norm(x, axis=1, keepdims=True), y) for x, y in parts])
    for leak in leaks:
        print(f"noise {leak.noise:g}: found {leak.found:.3f}, chance {leak.chance:.3f}, {leak.n_means} means")
    kept = {"experiment": stem, "leaks": [asdict(leak) for leak in leaks]}
    asked.out.mkdir(parents=True, exist_ok=True)
    files.write_durably(asked.out / "prompts_leaks.json", [(json.dumps(kept, indent=1) + "\n").encode()])
    return 0


if __name__ == "__main__":
    sys.exit(main())
