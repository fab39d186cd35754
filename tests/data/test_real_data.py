"""Against the official files of real data sets, where EDGEFED_DATA has them."""

import os
from pathlib import Path

import numpy as np
import pytest

from common import partition, pb, seeds
from common.run_sections import DataSection
from edge_client.data.named import open_named
from edge_client.data.opening import open_part

pytestmark = pytest.mark.data


def need(folder: str) -> None:
    found = os.environ.get("EDGEFED_DATA")
    if not found or not (Path(found) / folder).is_dir():
        pytest.skip(f"set EDGEFED_DATA to a folder with {folder}")


def test_fashion_mnist() -> None:
    need("FashionMNIST")
    pool = open_named("fashion_mnist")
    assert (pool.n_train, pool.n_test) == (60_000, 10_000)
    assert np.bincount(pool.source.labels).tolist() == [7000] * 10
    every = np.asarray(pool.source.read(np.arange(60_000)), np.float64) / 255
    assert every.mean() == pytest.approx(pool.source.mean[0], abs=1e-3)
    shares = partition.dirichlet(pool.source.labels, np.arange(70_000), 100, seeds.generator(42), alpha=0.1)
    table = partition.histogram(pool.source.labels, shares, 10)
    assert table.sum(axis=0).tolist() == [7000] * 10
    assert table.sum(axis=1).min() >= 10


def test_cifar100() -> None:
    need("cifar-100-python")
    pool = open_named("cifar100")
    assert (pool.n_train, pool.n_test, len(pool.classes)) == (50_000, 10_000, 100)
    assert np.bincount(pool.source.labels).tolist() == [600] * 100
    some = np.asarray(pool.source.read(np.arange(0, 50_000, 10)), np.float64) / 255
    assert some.mean(axis=(0, 1, 2)) == pytest.approx(np.array(pool.source.mean), abs=5e-3)


@pytest.mark.parametrize(
    ("folder", "n", "n_unlabelled", "n_labelled", "n_classes"),
    [("flowers102_all", 8189, 6142, 2047, 102), ("intel_scenes_all", 10_890, 8168, 2722, 6)],  # 10,890 of 17,034
)
def test_three_quarters_of_flowers_and_scenes_have_no_labels(folder, n, n_unlabelled, n_labelled, n_classes) -> None:
    need(folder)
    data = DataSection(name=folder, split="transductive")
    found = open_part(data, pb.DataIndex(index=0, of=1), (64, 64, 3))
    assert found.extra is not None
    assert (len(found.train) + len(found.extra), len(found.classes)) == (n, n_classes)
    assert (len(found.extra), len(found.train), len(found.test)) == (n_unlabelled, n_labelled, n_unlabelled)
    assert set(found.extra.labels.tolist()) == {-1}
    assert found.train.counts().min() >= 1
