"""Partitions: nothing lost, nothing twice, the same for the same seed, and each of the kind that it says."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import partition, seeds
from common.errors import ConfigError, UnknownName
from common.run_sections import DataSection

LABELS = seeds.generator(0, "labels").integers(0, 10, 1200)
N_TRAIN = 1000


def parts(n_agents: int = 8, **data: Any) -> tuple[partition.Part, ...]:  # Any: fields of DataSection
    return partition.parts(DataSection(**data), LABELS, N_TRAIN, n_agents)


def everything(found: tuple[partition.Part, ...]) -> list[int]:
    return sorted(np.concatenate([np.concatenate([p.train, p.test]) for p in found]).tolist())


@pytest.mark.parametrize(
    "data",
    [
        {"partition": "iid"},
        {"partition": "dirichlet", "alpha": 0.5},
        {"partition": "pathological", "classes_per_agent": 3},
    ],
)
def test_all_samples_are_given_once_and_a_quarter_is_for_testing(data: dict[str, Any]) -> None:
    found = parts(**data)
    assert everything(found) == list(range(len(LABELS)))
    for part in found:
        assert len(part.test) == (len(part.test) + len(part.train)) // 4


def test_the_seed_decides() -> None:
    a, b, c = (parts(partition="dirichlet", alpha=0.5, seed=seed) for seed in (1, 1, 2))
    assert [p.train.tolist() for p in a] == [p.train.tolist() for p in b]
    assert [p.train.tolist() for p in a] != [p.train.tolist() for p in c]


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 12), st.sampled_from([0.1, 0.5, 10.0]), st.integers(0, 99))
def test_dirichlet_keeps_its_minimum(n_agents: int, alpha: float, seed: int) -> None:
    rng = seeds.generator(seed)
    shares = partition.dirichlet(LABELS, np.arange(1200), n_agents, rng, alpha=alpha, min_samples=10)
    assert min(len(share) for share in shares) >= 10
    assert sorted(np.concatenate(shares).tolist()) == list(range(1200))


def test_small_alpha_is_skewed_and_large_alpha_is_even() -> None:
    def largest_share(alpha: float) -> float:
        shares = partition.dirichlet(LABELS, np.arange(1200), 8, seeds.generator(3), alpha=alpha)
        table = partition.histogram(LABELS, shares, 10)
        return float((table.max(axis=1) / table.sum(axis=1)).mean())

    assert largest_share(0.1) > 0.4
    assert largest_share(1000.0) < 0.15


def test_a_minimum_that_cannot_be_met_says_so() -> None:
    with pytest.raises(ConfigError, match="each of 200 agents 10 of 1200 samples"):
        parts(200, partition="dirichlet")


def test_pathological_agents_have_exactly_so_many_classes_and_classes_are_shared_evenly() -> None:
    shares = partition.pathological(LABELS, np.arange(1200), 10, seeds.generator(1), classes_per_agent=2)
    table = partition.histogram(LABELS, shares, 10)
    assert (np.count_nonzero(table, axis=1) == 2).all()
    assert (np.count_nonzero(table, axis=0) == 2).all()
    with pytest.raises(ConfigError, match=r"must be in 1..10, got 11"):
        parts(partition="pathological", classes_per_agent=11)


def test_limit_takes_the_first_and_as_large_a_share_of_the_test_samples() -> None:
    assert everything(parts(partition="iid", limit=100)) == [*range(100), *range(1000, 1020)]


def test_shots_are_counted_over_all_agents_and_test_samples_follow_the_classes() -> None:
    found = parts(5, partition="pathological", classes_per_agent=2, shots=4)
    train = np.concatenate([p.train for p in found])
    assert (train < N_TRAIN).all()
    assert (np.bincount(LABELS[train], minlength=10) == 4).all()
    assert sorted(np.concatenate([p.test for p in found]).tolist()) == list(range(N_TRAIN, 1200))
    for part in found:
        assert set(LABELS[part.test]) <= set(LABELS[part.train])


def test_a_file_is_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "p.npz"
    np.savez(path, train_0=[5, 3], test_0=[1], train_1=[2], test_1=[1199])
    found = parts(2, partition=str(path))
    assert found[0].train.tolist() == [5, 3]
    assert found[1].test.tolist() == [1199]
    with pytest.raises(ConfigError, match=r"i in 0..2, missing .*train_2"):
        parts(3, partition=str(path))
    np.savez(path, train_0=[5], test_0=[1200])
    with pytest.raises(ConfigError, match=r"expected positions in 0..1199, got 5..1200 for agent 0"):
        parts(1, partition=str(path))
    with pytest.raises(ConfigError, match=r"cannot read partition .*none.npz"):
        parts(1, partition=str(tmp_path / "none.npz"))


def test_an_unknown_partition_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'dirichlet'"):
        parts(partition="dirchlet")
