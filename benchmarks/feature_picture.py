"""All test images through one agent's adapter, before and after training: t-SNE, and numbers that no picture gives.

t-SNE makes clusters of anything, so the silhouette (cosine, by true class) and the accuracy of the k nearest
neighbours, each image left out in turn, are written beside it; both are of the features themselves, not of the picture.
"""

import importlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import experiment, in_memory, plot
from common import files, personal, runfile
from common.errors import ConfigError

SEED, PERPLEXITY, NEIGHBOURS = 0, 20.0, 5
Features = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Numbers:
    """Of one set of features."""

    silhouette: float
    neighbours: float  # accuracy of the nearest, left out in turn


@dataclass(frozen=True)
class Compared:
    experiment: str
    row: str
    agent: str
    n_images: int
    n_classes: int
    static: Numbers
    trained: Numbers
    own_static: Numbers  # of the classes that the agent has trained on
    own_trained: Numbers


def draw(name: str, label: str, to: Path, changed: Mapping[str, Any]) -> tuple[Path, Compared]:
    """Trains a row in this process, and looks through the agent with the most classes to train on."""
    stem, text = experiment.find(name)
    file = runfile.parse(text, name)
    file = in_memory.row(runfile.with_overrides(file, changed) if changed else file, label)
    fleet = in_memory.fleet(file).rounds(file.run.rounds)
    agent = max(fleet.agents.values(), key=lambda a: (len(np.unique(a.views.train.labels)), a.name))
    tests = [other.views.test for other in fleet.agents.values()]
    labels = np.concatenate([test.labels for test in tests])
    if len(labels) <= PERPLEXITY:
        raise ConfigError(f"there are {len(labels)} test images, t-SNE needs more than {PERPLEXITY:.0f}")
    site = fleet.site(agent, file.run.rounds)
    learner, own = site.learner(adapter=True), getattr(agent.memory, "own", None)
    if own is None or not any(name.startswith("adapter.") for name in own):
        raise ConfigError(f"row {label!r}: its agents train no image features; take one with an adapter")
    first = personal.whole(site, learner, [])
    moved = personal.whole(site, learner, [own.only(learner.parameters())])
    static, trained = (np.concatenate([learner.embed(w, test) for test in tests]) for w in (first, moved))
    own_classes = np.isin(labels, agent.views.train.labels)
    both = [numbers(features, labels) for features in (static, trained)]
    both += [numbers(features[own_classes], labels[own_classes]) for features in (static, trained)]
    found = Compared(stem, label, agent.name, len(labels), len(np.unique(labels)), *both)
    plot.save(_figure(static, trained, labels, found), to)
    files.write_durably(to.with_suffix(".json"), [(json.dumps(asdict(found), indent=1) + "\n").encode()])
    return to, found


def numbers(features: Features, labels: NDArray[np.int64]) -> Numbers:
    """Silhouette over classes with two images or more, and accuracy of the nearest neighbours by cosine."""
    from sklearn.metrics import silhouette_score

    classes, counts = np.unique(labels, return_counts=True)
    several = np.isin(labels, classes[counts > 1])
    silhouette = float(silhouette_score(features[several], labels[several], metric="cosine"))
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    close = unit @ unit.T
    np.fill_diagonal(close, -np.inf)
    nearest = labels[np.argsort(-close, axis=1)[:, :NEIGHBOURS]]  # (n, k)
    voted = np.array([np.bincount(row).argmax() for row in nearest])
    return Numbers(round(silhouette, 4), round(float(np.mean(voted == labels)), 4))


def _figure(static: Features, trained: Features, labels: NDArray[np.int64], found: Compared) -> Any:
    from sklearn.manifold import TSNE

    plt = importlib.import_module("matplotlib.pyplot")  # benchmarks.plot has chosen where it draws
    figure, axes = plt.subplots(1, 2, figsize=(9, 4.4), layout="constrained")
    order = np.unique(labels, return_inverse=True)[1]
    colours = plt.get_cmap("nipy_spectral")(np.linspace(0.05, 0.95, found.n_classes))
    for axis, features, title, of in (
        (axes[0], static, "static features", found.static),
        (axes[1], trained, "after training", found.trained),
    ):
        places = TSNE(perplexity=PERPLEXITY, metric="cosine", init="random", random_state=SEED).fit_transform(features)
        axis.scatter(places[:, 0], places[:, 1], s=10, color=colours[order])
        said = f"silhouette {of.silhouette:.3f}, {NEIGHBOURS} nearest {100 * of.neighbours:.1f} %"
        axis.set(title=f"{title}\n{said}", xticks=[], yticks=[])
    figure.suptitle(
        f"{found.row}: {found.n_images} test images of {found.n_classes} classes through agent {found.agent}"
    )
    return figure
