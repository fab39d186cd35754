"""CoOp's split files, and a data set's first classes alone."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common import pb
from common.errors import ConfigError
from common.run_sections import DataSection
from edge_client.data import opening
from edge_client.data.named import open_named
from edge_client.data.split_file import open_split

ROWS = {
    "train": [["cat/1.png", 0, "cat"], ["cat/2.png", 0, "cat"], ["sea/1.png", 1, "sea horse"]],
    "val": [["cat/9.png", 0, "cat"]],
    "test": [["sea/2.png", 1, "sea horse"]],
}


def write(root: Path, rows: object = ROWS, images: str = "images") -> Path:
    for file in ("cat/1.png", "cat/2.png", "sea/1.png", "sea/2.png"):
        path = root / images / file
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((6, 6, 3), len(str(path)) % 200, np.uint8)).save(path)
    (root / "split_zhou_Sea.json").write_text(json.dumps(rows))
    return root / "split_zhou_Sea.json"


@pytest.mark.parametrize("images", ["images", "."])
def test_a_split_by_hand(tmp_path: Path, images: str) -> None:
    pool = open_split(write(tmp_path, images=images), (4, 4, 3))
    assert pool.classes == ("cat", "sea horse")
    assert (pool.n_train, pool.n_test) == (3, 1)
    assert pool.source.labels.tolist() == [0, 0, 1, 1]
    assert pool.source.read(np.arange(4)).shape == (4, 4, 4, 3)


def test_named_data_and_a_path_find_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "sea")
    monkeypatch.setenv("EDGEFED_DATA", str(tmp_path))
    assert open_named("sea").classes == ("cat", "sea horse")
    assert len(opening.open_path(path, "anna").train) == 3


def test_two_splits_are_one_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "sea")
    (tmp_path / "sea" / "split_other.json").write_text("{}")
    monkeypatch.setenv("EDGEFED_DATA", str(tmp_path))
    with pytest.raises(ConfigError, match=r"have 2 split files, keep one: split_other.json, split_zhou_Sea.json"):
        open_named("sea")


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([], "are no CoOp split"),
        ({"train": [], "test": []}, "name no training images"),
        ({"train": [["cat/1.png", 3, "cat"]], "test": []}, "labels must be 0, 1"),
        (
            {"train": [["x/1.png", 0, "x"]], "test": []},
            r"neither beside it nor in a folder there, the first is x/1.png",
        ),
        (
            {"train": [["cat/1.png", 0, "cat"], ["cat/7.png", 0, "cat"]], "test": []},
            r"1 of the 2 images that .* the first is cat/7.png",
        ),
    ],
)
def test_splits_that_cannot_be(tmp_path: Path, rows: object, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        open_split(write(tmp_path, rows))


# ------------------------------------------------------------------ the first classes, and shots


def test_the_first_classes_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.arange(12, dtype=np.float32).reshape(6, 2)
    np.savez(tmp_path / "few.npz", x=x, y=np.array([0, 1, 2, 0, 1, 2]), x_test=x[:3], y_test=np.array([2, 1, 0]))
    monkeypatch.setenv("EDGEFED_DATA", str(tmp_path))
    section = DataSection(name="few", n_classes=2, n_agents=1, shots=2)
    data = opening.open_part(section, pb.DataIndex(index=0, of=1))
    assert data.classes == ("0", "1")
    np.testing.assert_array_equal(data.train.read(), x[[0, 1, 3, 4]])
    assert data.test.labels.tolist() == [1, 0]
    with pytest.raises(ConfigError, match=r"n_classes must be in 1..3 for data set 'few', got 4"):
        opening.open_part(DataSection(name="few", n_classes=4, n_agents=1), pb.DataIndex(index=0, of=1))


def test_more_shots_than_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "few.npz", x=np.zeros((5, 2), np.float32), y=np.array([0, 0, 0, 1, 1]))
    monkeypatch.setenv("EDGEFED_DATA", str(tmp_path))
    section = DataSection(name="few", n_agents=1, shots=3, min_samples=1)
    with pytest.raises(
        ConfigError, match=r"shots = 3 training images of each class, but class 1 has 2 .*lower shots to 2"
    ):
        opening.open_part(section, pb.DataIndex(index=0, of=1))
