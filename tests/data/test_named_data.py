"""Named data sets: official files, one source for all agents, partitions by place."""

import pickle  # noqa: TID251 - to write what the official files are
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from common import pb
from common.errors import ConfigError, UnknownName
from common.payloads import Array
from common.run_sections import DataSection
from edge_client.data import named
from edge_client.data.agent_data import AgentData
from edge_client.data.named import open_named
from edge_client.data.opening import open_part
from edge_client.data.stored import StoredSource


def part(index: int, of: int, **data: Any) -> AgentData:  # Any: fields of DataSection
    return open_part(DataSection(**data), pb.DataIndex(index=index, of=of))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(named.FOLDER_VARIABLE, str(tmp_path))
    return tmp_path


def write_idx(root: Path, n_train: int = 30, n_test: int = 10) -> Array:
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    x = np.arange((n_train + n_test) * 6, dtype=np.uint8).reshape(-1, 2, 3)
    y = (np.arange(n_train + n_test) % 10).astype(np.uint8)
    for name, images, labels in (("train", x[:n_train], y[:n_train]), ("t10k", x[n_train:], y[n_train:])):
        head = np.array([0x803, len(images), 2, 3], ">u4").tobytes()
        (raw / f"{name}-images-idx3-ubyte").write_bytes(head + images.tobytes())
        head = np.array([0x801, len(labels)], ">u4").tobytes()
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(head + labels.tobytes())
    return x


def write_cifar(root: Path) -> Array:
    folder = root / "cifar-100-python"
    folder.mkdir()
    x = np.random.default_rng(0).integers(0, 256, (12, 3072), np.uint8)
    for name, rows in (("train", slice(0, 8)), ("test", slice(8, 12))):
        labels = (np.arange(12) % 2).tolist()[rows]
        (folder / name).write_bytes(pickle.dumps({"data": x[rows], "fine_labels": labels}, protocol=2))
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": ["apple", "fish"]}, protocol=2))
    return x


def test_idx_files_are_read_where_they_lie(root: Path) -> None:
    x = write_idx(root)
    pool = open_named("mnist")
    assert (pool.n_train, pool.n_test, pool.classes) == (30, 10, tuple("0123456789"))
    assert np.array_equal(pool.source.read(np.array([29, 30, 31, 2, 39])), x[[29, 30, 31, 2, 39], ..., None])
    assert pool.source.labels.tolist() == [i % 10 for i in range(40)]
    assert pool.source.mean == (0.1307,)


def test_cifar_is_unpickled_once_and_then_read_by_position(root: Path) -> None:
    x = write_cifar(root)
    expected = x.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    for _ in range(2):
        pool = open_named("cifar100")
        assert isinstance(pool.source, StoredSource)
        assert np.array_equal(pool.source.read(np.array([11, 0, 1])), expected[[11, 0, 1]])
        assert (pool.n_train, pool.n_test, pool.classes) == (8, 4, ("apple", "fish"))
        named._opened.cache_clear()


class _Harmful:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return time.sleep, ("never",)


def test_a_pickle_may_hold_arrays_only(root: Path) -> None:
    write_cifar(root)
    (root / "cifar-100-python" / "meta").write_bytes(pickle.dumps(_Harmful()))
    with pytest.raises(ConfigError, match=r"must hold arrays only, this one asks for time.sleep"):
        open_named("cifar100")


def test_a_file_that_ends_early_is_named(root: Path) -> None:
    write_idx(root)
    path = root / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ConfigError, match=r"'mnist' in .*t10k-images-idx3-ubyte is no complete idx3 file"):
        open_named("mnist")


def test_missing_files_without_torchvision(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_torchvision(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr("edge_client.data.named.importlib.import_module", no_torchvision)
    with pytest.raises(ConfigError, match=r"'cifar10' is not in .*batches.meta is missing.* set EDGEFED_DATA"):
        open_named("cifar10")
    with pytest.raises(ConfigError, match=r"comes with scikit-learn, which is not installed"):
        open_named("digits")


def test_missing_files_are_downloaded_into_the_folder(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Datasets:
        @staticmethod
        def MNIST(folder: str, *, download: bool) -> None:
            write_idx(Path(folder))

    monkeypatch.setattr("edge_client.data.named.importlib.import_module", lambda name: Datasets)
    assert open_named("mnist").n_train == 30


def test_an_unknown_name_says_what_is_there(root: Path) -> None:
    (root / "flowers").mkdir()
    with pytest.raises(UnknownName, match=r"unknown data set 'flower'; did you mean 'flowers'"):
        open_named("flower")


def test_folders_and_archives_of_that_name_are_named_data_too(root: Path) -> None:
    for name in ("cat", "owl"):
        (root / "pets" / name).mkdir(parents=True)
        for i in range(4):
            Image.new("L", (2, 2), i).save(root / "pets" / name / f"{i}.png")
    np.savez(root / "shapes.npz", x=np.zeros((9, 5), np.uint8), y=np.arange(9) % 3)
    tasks = ("pets", "shapes")
    found = [part(i, 5, partition="iid", tasks=tasks, test_fraction=0.0) for i in range(5)]
    assert [data.name for data in found] == ["pets", "shapes", "pets", "shapes", "pets"]
    assert [len(data.train) for data in found] == [3, 5, 3, 4, 2]


def test_parts_are_disjoint_and_over_one_source(root: Path) -> None:
    write_idx(root)
    found = [part(i, 4, name="mnist", partition="iid") for i in range(4)]
    positions = np.concatenate([np.concatenate([d.train.positions, d.test.positions]) for d in found])
    assert sorted(positions.tolist()) == list(range(40))
    assert len({id(d.train.source) for d in found}) == 1
    assert [len(d.test) for d in found] == [2] * 4


def test_an_agent_too_many_is_told(root: Path) -> None:
    write_idx(root)
    with pytest.raises(ConfigError, match=r"n_agents = 2, and this is agent number 3"):
        part(2, 3, name="mnist", partition="iid", n_agents=2)


def test_digits_are_real_digits_in_bytes() -> None:
    pytest.importorskip("sklearn")
    pool = open_named("digits")
    images = pool.source.read(np.arange(pool.n_train))
    assert images.shape == (1438, 8, 8, 1)
    assert images.dtype == np.uint8
    assert images.max() == 255
    scaled = np.asarray(images, np.float64) / 255
    assert scaled.mean() == pytest.approx(pool.source.mean[0], abs=0.005)
    assert scaled.std() == pytest.approx(pool.source.std[0], abs=0.005)


def test_the_first_agents_of_a_larger_partition_have_the_parts_that_they_have_in_it() -> None:
    pytest.importorskip("sklearn")
    whole = [open_part(DataSection(n_agents=6), pb.DataIndex(index=i, of=6)) for i in range(6)]
    first = [open_part(DataSection(n_agents=2, parted_among=6), pb.DataIndex(index=i, of=2)) for i in range(2)]
    assert [list(part.train.positions) for part in first] == [list(part.train.positions) for part in whole[:2]]


def test_tasks_with_few_labels_each_have_their_own_classes_and_images(root: Path) -> None:
    for name, n in (("birds", 40), ("boats", 20)):
        x = np.zeros((n, 4, 4, 3), np.uint8)
        np.savez(root / f"{name}.npz", x=x, y=np.arange(n) % 2, classes=np.array([f"{name}-a", f"{name}-b"]))
    both = [part(i, 2, tasks=("birds", "boats"), split="transductive") for i in range(2)]
    assert [(d.name, d.classes[0], len(d.train), len(d.test), len(d.unlabelled)) for d in both] == [
        ("birds", "birds-a", 10, 30, 30),
        ("boats", "boats-a", 5, 15, 15),
    ]
    assert np.array_equal(both[0].test.positions, both[0].unlabelled.positions)
    assert set(both[0].unlabelled.labels.tolist()) == {-1}
    three = part(0, 1, name="birds", split="inductive", test_fraction=0.15)
    assert (len(three.train), len(three.test), len(three.unlabelled)) == (10, 6, 24)
    assert not set(three.test.positions.tolist()) & set(three.unlabelled.positions.tolist())
