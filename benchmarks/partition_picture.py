"""Who has which classes: the histogram that a run's partition gives, drawn before anything is trained."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import plot
from benchmarks.experiment import n_agents
from common.partition import parts
from common.run_sections import RunFile
from edge_client.data.named import open_named
from edge_client.data.pool import first_classes


def draw(file: RunFile, to: Path) -> Path:
    counts, classes = histogram(file)
    data = file.data
    how = {"dirichlet": f"Dirichlet({data.alpha:g})", "pathological": f"{data.classes_per_agent} classes per agent"}
    title = f"{data.name}, {how.get(data.partition, data.partition)}, {len(counts)} agents, seed {data.seed}"
    return plot.save(plot.partition(counts, classes, title), to)


def histogram(file: RunFile) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Training samples of each agent by class, (n_agents, n_classes), and the names of the classes."""
    pool = first_classes(open_named(file.data.name), file.data.n_classes)
    shares = parts(file.data, pool.source.labels, pool.n_train, n_agents(file))
    rows = [np.bincount(pool.source.labels[share.train], minlength=len(pool.classes)) for share in shares]
    return np.stack(rows).astype(np.int64), pool.classes
