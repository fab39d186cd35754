"""How a data set is divided over agents: iid, Dirichlet, pathological, or as a file says. All draws are seeded.

Positions count the data set's training samples first, then its test samples. The two are pooled, divided, and each
agent's share is split again, so that an agent's test data look like its own training data. With `shots` they are not
pooled: the few training samples are divided, and the test samples follow the agents' classes.
"""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common import data_files, seeds
from common.errors import EXIT_DATA, ConfigError, UnknownName
from common.label_split import few_labelled
from common.run_sections import DataSection
from common.samples import Labels

Positions = NDArray[np.int64]
MAX_DRAWS = 2000  # of a Dirichlet partition with a minimum; 100 agents of 70,000 samples at alpha 0.1 took up to 30


@dataclass(frozen=True)
class Part:
    """What one agent gets."""

    train: Positions
    test: Positions
    unlabelled: Positions | None = None  # None: the training samples without their labels


def parts(data: DataSection, labels: Labels, n_train: int, n_agents: int) -> tuple[Part, ...]:
    """The parts of all agents, by index.

    Args:
        data: the run's [data].
        labels: (n,) of the whole data set, `n_train` training samples first.
        n_train: how many of them are training samples.
        n_agents: how many agents share it.
    """
    if data.partition.endswith(".npz"):
        return from_file(data_files.found(data.partition), len(labels), n_agents)
    rng = seeds.generator(data.seed, "partition", data.name)
    train, test = _limited(data, labels, n_train, rng)
    if data.shots is not None:
        shares = _divided(data, labels, train, n_agents, rng)
        return tuple(Part(*both) for both in zip(shares, _following(labels, test, shares, rng), strict=True))
    shares = _divided(data, labels, np.concatenate([train, test]), n_agents, rng)
    return tuple(apart(data, labels, share, rng) for share in shares)


def apart(data: DataSection, labels: Labels, share: Positions, rng: "np.random.Generator") -> Part:
    """An agent's share, divided as [data] split says."""
    if data.split == "supervised":
        return split(share, data.test_fraction, rng)
    return Part(*few_labelled(data, labels, share, rng))


def split(share: Positions, test_fraction: float, rng: "np.random.Generator") -> Part:
    """Some of the share, drawn at random and rounded down, is for testing."""
    drawn = rng.permutation(share)
    n_test = int(len(share) * test_fraction)
    return Part(np.sort(drawn[n_test:]), np.sort(drawn[:n_test]))


def iid(pool: Positions, n_agents: int, rng: "np.random.Generator") -> list[Positions]:
    """Equal shares, to within one sample, at random."""
    return [np.sort(share) for share in np.array_split(rng.permutation(pool), n_agents)]


def dirichlet(
    labels: Labels, pool: Positions, n_agents: int, rng: "np.random.Generator", *, alpha: float, min_samples: int = 10
) -> list[Positions]:
    """Each class over the agents in proportions drawn from a symmetric Dirichlet; drawn again until all have enough.

    Source: Hsu et al., Measuring the Effects of Non-Identical Data Distribution, 2019, by class over agents as in
    Yurochkin et al., ICML 2019: an agent that already has its fair share of samples gets none of the next classes.

    Raises:
        ConfigError: no draw gave every agent `min_samples`.
    """
    fair = len(pool) / n_agents
    by_class = [pool[labels[pool] == c] for c in np.unique(labels[pool])]
    for _ in range(MAX_DRAWS if min_samples * n_agents <= len(pool) else 0):
        shares: list[list[Positions]] = [[] for _ in range(n_agents)]
        sizes = np.zeros(n_agents)
        for members in by_class:
            has_room = np.asarray(sizes < fair, np.float64)
            proportions = np.asarray(rng.dirichlet(np.full(n_agents, alpha)) * has_room)
            if not proportions.any():  # all draws underflowed on the agents that have room
                proportions = has_room
            cuts = (np.cumsum(proportions / proportions.sum()) * len(members)).astype(int)[:-1]
            for agent, share in enumerate(np.split(rng.permutation(members), cuts)):
                shares[agent].append(share)
                sizes[agent] += len(share)
        if sizes.min() >= min_samples:
            return [np.sort(np.concatenate(share)) for share in shares]
    raise ConfigError(
        f"no Dirichlet({alpha}) draw gives each of {n_agents} agents {min_samples} of {len(pool)} samples; "
        f"use fewer agents, a larger [data] alpha or a smaller [data] min_samples"
    )


def pathological(
    labels: Labels, pool: Positions, n_agents: int, rng: "np.random.Generator", *, classes_per_agent: int
) -> list[Positions]:
    """Each agent has samples of a few classes only; a class is shared equally by the agents that have it.

    Source: McMahan et al., Communication-Efficient Learning, AISTATS 2017, section 3. Deviation: by class, not by
    shards of the sorted samples, so that every agent has exactly so many classes. With fewer slots than classes some
    classes are nobody's.
    """
    classes = np.unique(labels[pool])
    if not 1 <= classes_per_agent <= len(classes):
        raise ConfigError(f"[data] classes_per_agent must be in 1..{len(classes)}, got {classes_per_agent}")
    owners: list[list[int]] = [[] for _ in classes]
    for agent in range(n_agents):  # those with the fewest owners so far; at random among equals
        taken = sorted(range(len(classes)), key=lambda c: (len(owners[c]), rng.random()))
        for c in taken[:classes_per_agent]:
            owners[c].append(agent)
    return _dealt(labels, pool, [(c, dict.fromkeys(owners[i], 1.0)) for i, c in enumerate(classes)], n_agents, rng)


def from_file(path: Path, n_samples: int, n_agents: int) -> tuple[Part, ...]:
    """The parts that an npz holds as `train_<i>` and `test_<i>`, in the order given there."""
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            found = [
                Part(file[f"train_{i}"].astype(np.int64), file[f"test_{i}"].astype(np.int64)) for i in range(n_agents)
            ]
    except KeyError as error:
        raise ConfigError(
            f"partition {path} has not every agent's part: expected train_<i> and test_<i> for i in 0..{n_agents - 1}, "
            f"missing {error}",
            exit_code=EXIT_DATA,
        ) from error
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ConfigError(f"cannot read partition {path}: {error}", exit_code=EXIT_DATA) from error
    for i, part in enumerate(found):
        both = np.concatenate([part.train, part.test])
        if len(both) and not 0 <= both.min() <= both.max() < n_samples:
            raise ConfigError(
                f"partition {path} does not fit the data set: expected positions in 0..{n_samples - 1}, "
                f"got {both.min()}..{both.max()} for agent {i}",
                exit_code=EXIT_DATA,
            )
    return tuple(found)


def histogram(labels: Labels, shares: Sequence[Positions], n_classes: int) -> NDArray[np.int64]:
    """Samples of each class that each agent has, (n_agents, n_classes)."""
    return np.stack([np.bincount(labels[share], minlength=n_classes) for share in shares]).astype(np.int64)


def _divided(
    data: DataSection, labels: Labels, pool: Positions, n_agents: int, rng: "np.random.Generator"
) -> list[Positions]:
    match data.partition:
        case "iid":
            return iid(pool, n_agents, rng)
        case "dirichlet":
            return dirichlet(labels, pool, n_agents, rng, alpha=data.alpha, min_samples=data.min_samples)
        case "pathological":
            return pathological(labels, pool, n_agents, rng, classes_per_agent=data.classes_per_agent)
    raise UnknownName("partition", data.partition, ("iid", "dirichlet", "pathological", "FILE.npz"))


def _limited(
    data: DataSection, labels: Labels, n_train: int, rng: "np.random.Generator"
) -> tuple[Positions, Positions]:
    """Training and test positions after `limit` (as large a share of the test samples stays) and `shots`."""
    train, test = np.arange(n_train), np.arange(n_train, len(labels))
    if data.limit is not None and data.limit < n_train:
        train, test = train[: data.limit], test[: round(len(test) * data.limit / n_train)]
    if data.shots is not None:
        drawn = rng.permutation(train)
        _check_shots(data.shots, labels[train])
        train = np.sort(np.concatenate([drawn[labels[drawn] == c][: data.shots] for c in np.unique(labels[train])]))
    return train, test


def _check_shots(shots: int, labels: Labels) -> None:
    classes, counts = np.unique(labels, return_counts=True)
    few = np.flatnonzero(counts < shots)
    if len(few):
        raise ConfigError(
            f"[data] shots = {shots} training images of each class, but class {classes[few[0]]} has {counts[few[0]]} "
            f"(and {len(few) - 1} others have too few); lower shots to {counts.min()} or leave it out for all images",
            exit_code=EXIT_DATA,
        )


def _following(labels: Labels, pool: Positions, shares: list[Positions], rng: "np.random.Generator") -> list[Positions]:
    """The pool's samples of each class, over the agents in proportion to their share of that class."""
    weights = []
    for c in np.unique(labels[pool]):
        held = {agent: float(np.count_nonzero(labels[share] == c)) for agent, share in enumerate(shares)}
        weights.append((c, {agent: n for agent, n in held.items() if n}))
    return _dealt(labels, pool, weights, len(shares), rng)


def _dealt(
    labels: Labels,
    pool: Positions,
    weights: list[tuple[int, dict[int, float]]],
    n_agents: int,
    rng: "np.random.Generator",
) -> list[Positions]:
    """Samples of each class over its agents by weight; a class without agents is left out."""
    dealt: list[list[Positions]] = [[np.empty(0, np.int64)] for _ in range(n_agents)]
    for c, held in weights:
        if held:
            members = rng.permutation(pool[labels[pool] == c])
            ends = np.cumsum(list(held.values()))
            cuts = np.round(ends / ends[-1] * len(members)).astype(int)[:-1]
            for agent, share in zip(held, np.split(members, cuts), strict=True):
                dealt[agent].append(share)
    return [np.sort(np.concatenate(share)) for share in dealt]
