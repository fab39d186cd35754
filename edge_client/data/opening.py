"""An agent's data, opened: from a path of its owner's, or its part of a named data set."""

import dataclasses
import functools
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common import pb, seeds
from common.errors import EXIT_DATA, ConfigError
from common.models import shape_text
from common.partition import Part, apart, parts
from common.run_sections import DataSection
from common.samples import Samples
from edge_client.data.agent_data import AgentData, shown
from edge_client.data.archive import open_npz
from edge_client.data.folder import open_folder
from edge_client.data.named import open_named
from edge_client.data.pool import Pool, first_classes
from edge_client.data.split_file import open_split

Shape = tuple[int, ...]


def open_path(path: Path, agent: str, data: DataSection | None = None, shape: Shape | None = None) -> AgentData:
    """A folder of images or an npz. What comes without a test part is split at random, by [data] seed and agent.

    Raises:
        ConfigError: it is not there, or cannot be read.
    """
    data = DataSection() if data is None else data
    if not path.exists():
        raise ConfigError(
            f"data {path} do not exist; expected a folder with one sub-folder of images per class, an .npz, or the "
            f".json of a CoOp split",
            exit_code=EXIT_DATA,
        )
    if path.is_dir():
        pool = open_folder(path, shape)
    else:
        pool = open_split(path, shape) if path.suffix == ".json" else open_npz(path)
    pool = first_classes(pool, data.n_classes)
    train = np.arange(pool.n_train)
    if pool.n_test is None:
        part = apart(data, pool.source.labels, train, seeds.generator(data.seed, agent, "split"))
    else:
        part = Part(train, np.arange(pool.n_train, pool.n_train + pool.n_test))
    first_extra = pool.n_train + (pool.n_test or 0)
    extra = np.arange(first_extra, first_extra + pool.n_extra) if pool.n_extra else None
    return _data(pool, part, extra)


def open_part(data: DataSection, index: pb.DataIndex, shape: Shape | None = None) -> AgentData:
    """An agent's part of the run's named data; with [data] tasks agent i has data set i modulo their number."""
    n_agents = data.n_agents or index.of
    if index.index >= n_agents:
        raise ConfigError(
            f"the run divides its data over [data] n_agents = {n_agents}, and this is agent number {index.index + 1}; "
            f"start fewer agents with named data, or raise n_agents",
            exit_code=EXIT_DATA,
        )
    names = data.tasks or (data.name,)
    which, place = index.index % len(names), index.index // len(names)
    of = len(range(which, data.parted_among or n_agents, len(names)))
    pool = first_classes(open_named(names[which], shape), data.n_classes)
    section = dataclasses.replace(data, name=names[which], tasks=(), classes=None, taxonomy=None, without=())
    return _without(_data(pool, _parts(section, pool, of)[place], None), data.without)


def _without(data: AgentData, classes: tuple[str, ...]) -> AgentData:
    """The data less those of these classes, which then are none of the agent's."""
    if not classes:
        return data
    if unknown := [name for name in classes if name not in data.classes]:
        raise ConfigError(
            f"[data] without names {shown(unknown)}, of which data {data.name!r} has no samples; it has classes"
            f" {shown(data.classes)}",
            exit_code=EXIT_DATA,
        )
    kept = [label for label, name in enumerate(data.classes) if name not in classes]
    table = np.full(len(data.classes), -1, np.int64)
    table[kept] = np.arange(len(kept))
    return dataclasses.replace(
        data,
        classes=tuple(data.classes[label] for label in kept),
        train=data.train.relabel(table, len(kept)),
        test=data.test.relabel(table, len(kept)),
    )


def check_shape(data: AgentData, wanted: Shape, model: str) -> None:
    """Refuses data whose samples the model does not take; flat models take any shape of the right size."""
    sample = next((s for s in (data.train, data.test, data.unlabelled) if len(s)), None)
    if sample is None:
        return
    got = sample.read(np.zeros(1, np.int64)).shape[1:]
    if got == wanted or (len(wanted) == 1 and prod(got) == prod(wanted)):
        return
    raise ConfigError(
        f"data {data.name!r} do not fit model {model!r}: expected samples of {shape_text(wanted)}, "
        f"got {shape_text(got)}; set [model] input to theirs, or use other data",
        exit_code=EXIT_DATA,
    )


@functools.lru_cache(maxsize=8)  # all agents of a process ask for the same table
def _parts(data: DataSection, pool: Pool, n_agents: int) -> tuple[Part, ...]:
    n_labelled = pool.n_train + (pool.n_test or 0)
    return parts(data, pool.source.labels[:n_labelled], pool.n_train, n_agents)


def _data(pool: Pool, part: Part, extra: NDArray[np.int64] | None) -> AgentData:
    def view(positions: NDArray[np.int64]) -> Samples:
        return Samples(pool.source, positions, pool.source.labels[positions], len(pool.classes))

    extra = part.unlabelled if extra is None else extra
    unlabelled = None if extra is None else view(extra).unlabelled()
    return AgentData(pool.name, pool.classes, view(part.train), view(part.test), unlabelled)
