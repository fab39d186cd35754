"""Data in an npz: lazy where they can be, and every way to be wrong is a sentence."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.errors import EXIT_DATA, ConfigError
from common.run_sections import DataSection
from edge_client.data.agent_data import facts, under
from edge_client.data.opening import open_path
from edge_client.data.stored import StoredSource

X = np.arange(10 * 4 * 3, dtype=np.uint8).reshape(10, 4, 3)
Y = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 0])


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_samples_and_labels_are_those_of_the_file(tmp_path: Path, save: Any) -> None:  # Any: numpy's functions
    save(tmp_path / "d.npz", x=X, y=Y, x_test=X[::-1], y_test=Y[::-1], x_unlabelled=X[:2])
    data = open_path(tmp_path / "d.npz", "a")
    assert (data.name, data.classes) == ("d", ("0", "1", "2"))
    assert np.array_equal(data.train.read(), X[..., None])
    assert np.array_equal(data.test.read(np.array([9, 0])), X[[0, 9]][..., None])
    assert np.array_equal(data.test.labels, Y[::-1])
    assert np.array_equal(data.unlabelled.read(), X[:2, ..., None])
    assert (data.unlabelled.labels == -1).all()
    assert isinstance(data.train.source, StoredSource) == (save is np.savez)


def test_without_a_test_part_it_is_split_the_same_way_each_time(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=X, y=Y)
    section = DataSection(test_fraction=0.3)
    first, again, other = (open_path(tmp_path / "d.npz", name, section) for name in ("a", "a", "b"))
    assert (len(first.train), len(first.test)) == (7, 3)
    assert first.test.positions.tolist() == again.test.positions.tolist()
    assert first.test.positions.tolist() != other.test.positions.tolist()
    assert sorted([*first.train.positions, *first.test.positions]) == list(range(10))


def test_all_agents_of_a_process_share_one_source(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "d.npz", x=X, y=Y)
    assert open_path(tmp_path / "d.npz", "a").train.source is open_path(tmp_path / "d.npz", "b").train.source


def test_labels_may_be_names_in_any_order_of_the_run(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=X, y=np.array(["owl", "cat"] * 5))
    data = under(open_path(tmp_path / "d.npz", "a", DataSection(test_fraction=0)), ["dog", "owl", "cat"])
    assert data.train.labels.tolist() == [1, 2] * 5
    told = facts(data, share_counts=True)
    assert (told.n_classes, list(told.counts), told.n_train) == (3, [0, 5, 5], 10)


def test_real_vectors_stay_as_they_are(tmp_path: Path) -> None:
    x = np.linspace(0, 1, 20, dtype=">f8").reshape(10, 2)
    np.savez(tmp_path / "d.npz", x=x, y=Y)
    data = open_path(tmp_path / "d.npz", "a", DataSection(test_fraction=0))
    assert np.array_equal(data.train.read(np.array([7, 3, 4])), x[[7, 3, 4]])


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"x": X}, "lack an array: expected x and y, got x"),
        ({"x": X, "y": Y, "x_test": X}, "lack an array: expected x and y, got x, x_test, y"),
        ({"x": X, "y": Y[:4]}, r"one label for each of the 10 samples of x, got shape \(4,\)"),
        ({"x": X, "y": Y - 1}, "labels must be whole numbers from 0, or names"),
        (
            {"x": X, "y": Y + 0.5},
            "labels must be whole numbers from 0, or names, .*; got 10 of float",
        ),
        ({"x": X, "y": Y, "classes": ["a"]}, "names 1 classes, but labels go up to 2"),
        ({"x": X, "y": np.array(["a", "b"] * 5), "classes": ["a"]}, "y has names that `classes` lacks: b"),
        ({"x": X, "y": Y, "x_test": X[:, :2], "y_test": Y}, r"samples of one shape and type, got \(4, 3\) uint8"),
        ({"x": X.astype(np.int32), "y": Y}, r"must be uint8 images .* got shape \(4, 3\) of int32"),
        ({"x": X[:0], "y": Y[:0]}, "at least one of them; got 0"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, arrays: dict[str, Any], says: str) -> None:
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(ConfigError, match=says) as caught:
        open_path(tmp_path / "d.npz", "a")
    assert caught.value.exit_code == EXIT_DATA


def test_missing_unreadable_and_pickled_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none.npz do not exist; expected a folder"):
        open_path(tmp_path / "none.npz", "a")
    (tmp_path / "text.npz").write_text("not an archive")
    with pytest.raises(ConfigError, match=r"cannot read data .*text.npz: it is no .npz; expected a folder"):
        open_path(tmp_path / "text.npz", "a")
    np.savez(tmp_path / "objects.npz", x=X, y=np.array([{}] * 10))
    with pytest.raises(ConfigError, match=r"cannot read data .*objects.npz: Object arrays cannot be loaded"):
        open_path(tmp_path / "objects.npz", "a")


def test_a_file_that_was_cut_after_it_was_opened_is_named(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    np.savez(path, x=X, y=Y)
    data = open_path(path, "a")
    path.write_bytes(path.read_bytes()[:150])
    with pytest.raises(ConfigError, match=r"data .*d.npz cannot be read: it ended early"):
        data.train.read()
