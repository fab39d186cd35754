"""Image trees: layouts, sizes, greys and colours, broken files."""

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.errors import ConfigError
from common.run_sections import DataSection
from edge_client.data.opening import check_shape, open_path


def write(path: Path, colour: int | tuple[int, int, int], size: tuple[int, int] = (6, 4)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L" if isinstance(colour, int) else "RGB", size, colour).save(path)


def tree(root: Path, n: int = 4) -> Path:
    for i in range(n):
        write(root / "cat" / f"{i}.png", i)
        write(root / "owl" / f"{i}.png", 100 + i)
    return root


def test_one_tree_is_split_and_classes_are_its_folders(tmp_path: Path) -> None:
    data = open_path(tree(tmp_path / "pets"), "a", DataSection(test_fraction=0.25))
    assert (data.name, data.classes, len(data.train), len(data.test)) == ("pets", ("cat", "owl"), 6, 2)
    images = data.train.read()
    assert images.shape == (6, 4, 6, 1)
    assert images.dtype == np.uint8
    assert (np.greater_equal(images[:, 0, 0, 0], 100) == data.train.labels).all()


def test_train_and_test_trees_and_images_without_classes(tmp_path: Path) -> None:
    tree(tmp_path / "train", 3)
    write(tmp_path / "test" / "owl" / "deep" / "x.jpg", 7)
    write(tmp_path / "unlabelled" / "y.png", 9)
    data = open_path(tmp_path, "a")
    assert (len(data.train), data.test.labels.tolist()) == (6, [1])
    assert data.unlabelled.read().max() == 9
    assert len(data.unlabelled) == 1


def test_colour_anywhere_makes_all_of_them_colour(tmp_path: Path) -> None:
    tree(tmp_path)
    write(tmp_path / "owl" / "z.png", (10, 20, 30))
    data = open_path(tmp_path, "a", DataSection(test_fraction=0))
    assert data.train.read()[-1, 0, 0].tolist() == [10, 20, 30]
    assert data.train.read()[0, 0, 0].tolist() == [0, 0, 0]


def test_images_are_brought_to_the_shape_that_the_model_takes(tmp_path: Path) -> None:
    tree(tmp_path)
    write(tmp_path / "cat" / "large.png", (200, 0, 0), (40, 20))
    data = open_path(tmp_path, "a", DataSection(test_fraction=0), (8, 8, 3))
    assert data.train.read().shape == (9, 8, 8, 3)
    check_shape(data, (8, 8, 3), "m")
    with pytest.raises(ConfigError, match="do not fit model 'm': expected samples of 9x9x3, got 8x8x3"):
        check_shape(data, (9, 9, 3), "m")


def test_an_image_that_comes_later_is_seen(tmp_path: Path) -> None:
    whole = DataSection(test_fraction=0)
    assert len(open_path(tree(tmp_path), "a", whole).train) == 8
    write(tmp_path / "owl" / "new.png", 1)
    assert len(open_path(tmp_path, "a", whole).train) == 9


def test_no_images(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "notes.txt").write_text("x")
    with pytest.raises(ConfigError, match=r"no images in .*: expected one folder per class"):
        open_path(tmp_path, "a")


def test_few_unreadable_images_are_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tree(tmp_path, 20)
    (tmp_path / "cat" / "broken.png").write_bytes(b"x")
    with caplog.at_level(logging.WARNING):
        data = open_path(tmp_path, "a", DataSection(test_fraction=0))
    assert len(data.train) == 40
    assert "unreadable=1 of=41" in caplog.text


def test_many_unreadable_images_are_an_error(tmp_path: Path) -> None:
    tree(tmp_path, 4)
    for i in range(2):
        (tmp_path / "cat" / f"broken{i}.png").write_bytes(b"x")
    with pytest.raises(ConfigError, match=r"2 of 10 images in .* cannot be read, the first is .*broken0.png"):
        open_path(tmp_path, "a")


def test_an_image_that_ends_early_is_named_when_it_is_read(tmp_path: Path) -> None:
    tree(tmp_path, 1)
    path = tmp_path / "cat" / "0.png"
    write(path, (1, 2, 3), (300, 300))
    Image.effect_noise((300, 300), 50).save(path)
    path.write_bytes(path.read_bytes()[:5000])
    data = open_path(tmp_path, "a", DataSection(test_fraction=0))
    with pytest.raises(ConfigError, match=r"0.png cannot be read: .*; replace or remove it"):
        data.train.read()
