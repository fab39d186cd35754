"""Data that hierarchical runs need: Tiny ImageNet's folder, coarse labels, classes that nobody has."""

import pickle  # noqa: TID251 - to write what the official files are
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common import data_files, pb
from common.errors import ConfigError
from common.run_sections import DataSection
from edge_client.data import named
from edge_client.data.opening import open_part


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(data_files.FOLDER_VARIABLE, str(tmp_path))
    return tmp_path


def write_tiny_imagenet(root: Path) -> None:
    folder = root / "tiny-imagenet-200"
    (folder / "val" / "images").mkdir(parents=True)
    (folder / "wnids.txt").write_text("n2\nn1\n")
    for level, wnid in ((10, "n1"), (200, "n2")):
        images = folder / "train" / wnid / "images"
        images.mkdir(parents=True)
        for i in range(2):
            Image.new("RGB", (64, 64), (level, i, 0)).save(images / f"{wnid}_{i}.JPEG")
    Image.new("L", (64, 64), 200).save(folder / "val" / "images" / "val_0.JPEG")  # some of the official ones are grey
    (folder / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn2\t0\t0\t1\t1\nval_9.JPEG\tn1\t0\t0\t1\t1\n")


def test_tiny_imagenet_is_read_in_the_size_that_the_model_takes(root: Path) -> None:
    write_tiny_imagenet(root)
    pool = named.open_named("tiny_imagenet", (32, 32, 3))
    assert (pool.classes, pool.n_train, pool.n_test) == (("n1", "n2"), 2 * 2, 1)
    assert pool.source.labels.tolist() == [0, 0, 1, 1, 1]
    images = pool.source.read(np.array([0, 2, 4]))
    assert images.shape == (3, 32, 32, 3)
    assert images.dtype == np.uint8
    assert np.abs(images[:, 0, 0, 0].astype(int) - [10, 200, 200]).max() <= 3  # JPEG
    assert named.open_named("tiny_imagenet").source.read(np.array([0])).shape == (1, 64, 64, 3)
    again = named.tiny_imagenet.read(root, 32)  # from the kept arrays
    assert (again.source.read(np.arange(5)) == pool.source.read(np.arange(5))).all()


def test_tiny_imagenet_that_is_not_there_says_where_to_put_it(root: Path) -> None:
    with pytest.raises(ConfigError, match=r"'tiny_imagenet' .* cannot be read: .*unpack its official archive there"):
        named.open_named("tiny_imagenet")


def write_cifar100(root: Path, coarse: list[int]) -> None:
    folder = root / "cifar-100-python"
    folder.mkdir()
    x, fine = np.zeros((4, 3072), np.uint8), [0, 1, 2, 1]
    for name in ("train", "test"):
        data = {"data": x, "fine_labels": fine, "coarse_labels": coarse}
        (folder / name).write_bytes(pickle.dumps(data, protocol=2))
    meta = {"fine_label_names": ["apple", "bee", "shark"], "coarse_label_names": ["animals", "fruit"]}
    (folder / "meta").write_bytes(pickle.dumps(meta, protocol=2))


def test_coarse_labels_are_read_from_the_data(root: Path) -> None:
    write_cifar100(root, [1, 0, 0, 0])
    assert named.coarse_edges("cifar100") == (
        ("root", "animals"), ("root", "fruit"), ("fruit", "apple"), ("animals", "bee"), ("animals", "shark"),
    )  # fmt: skip


def test_coarse_labels_that_contradict_each_other_are_refused(root: Path) -> None:
    write_cifar100(root, [1, 0, 0, 1])
    with pytest.raises(ConfigError, match="are no function of the classes"):
        named.coarse_edges("cifar100")


def test_a_data_set_without_coarse_labels_says_so() -> None:
    with pytest.raises(ConfigError, match="only 'cifar100' has coarse labels, not 'digits'"):
        named.coarse_edges("digits")


def test_classes_that_nobody_has_are_gone_from_every_part_and_the_rest_stays_where_it_was() -> None:
    pytest.importorskip("sklearn")
    place = pb.DataIndex(index=1, of=3)
    whole = open_part(DataSection(n_agents=3), place)
    some = open_part(DataSection(n_agents=3, without=("0", "7")), place)
    assert some.classes == tuple("12345689")
    kept = ~np.isin(whole.train.labels, [0, 7])
    assert some.train.positions.tolist() == whole.train.positions[kept].tolist()
    names = [some.classes[label] for label in some.train.labels]
    assert names == [whole.classes[label] for label in whole.train.labels[kept]]
    assert set(some.test.labels.tolist()) <= set(range(8))
    with pytest.raises(ConfigError, match="without names 'zero', of which data 'digits' has no samples"):
        open_part(DataSection(n_agents=3, without=("zero",)), place)
