"""Image features as samples: made once, kept by content, the tower loaded only when some are missing."""

import hashlib
import io
import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from PIL import Image

from common import encoders, pb, runfile
from common.encoders import Preprocessing
from common.errors import ConfigError
from common.method import ModelSpec
from common.samples import ArraySource
from edge_client import features, image_tower
from edge_client.data.folder import open_folder
from edge_client.data.pool import first_classes
from edge_client.feature_store import FeatureStore
from edge_client.features import FeatureSource, encoded, feature_source, needs_features, preprocessed
from edge_client.image_tower import Kind
from edge_client.job import AgentConfig, Job
from edge_client.prepare import open_data

SPEC = ModelSpec("prompted", {"encoder": "tiny"})
DENSE = ModelSpec("prompted", {"encoder": "tiny", "features": "dense"})


class Tower:
    """Counts what goes through it; features are what the encoder's own tower gives."""

    def __init__(self) -> None:
        self.images = 0
        self.loaded = 0

    def opened(self, encoder: str) -> Any:
        self.loaded += 1
        return self

    def __call__(self, pixels: Any, kind: Kind) -> Any:
        import torch

        self.images += len(pixels)
        with torch.no_grad():
            found = encoders.load("tiny").image_tower()(torch.from_numpy(pixels))
        return found[kind == "dense"].numpy()


@pytest.fixture
def tower(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Tower:
    counting = Tower()
    monkeypatch.setattr(image_tower, "opened", counting.opened)
    monkeypatch.setattr(image_tower, "close", lambda: None)
    monkeypatch.setenv("EDGEFED_CACHE", str(tmp_path / "cache"))
    return counting


def source(n: int = 40, shape: tuple[int, ...] = (8, 8, 1)) -> ArraySource:
    rng = np.random.default_rng(0)
    return ArraySource(rng.integers(0, 256, (n, *shape)).astype(np.uint8), np.arange(n) % 3, "s")


def every(n: int = 40) -> Any:
    return np.arange(n)


def test_each_image_goes_through_the_tower_once(tower: Tower) -> None:
    first = feature_source(source(), SPEC).read(every())
    assert tower.images == 40
    assert first.shape == (40, 16)
    assert first.dtype == np.float32
    tower.loaded = 0
    again = feature_source(source(), SPEC).read(every())
    np.testing.assert_array_equal(again, first)
    assert (tower.images, tower.loaded) == (40, 0)


def test_features_are_kept_by_content_not_by_place(tower: Tower) -> None:
    first = feature_source(source(), SPEC).read(every())
    turned = ArraySource(source().x[::-1].copy(), np.zeros(40, np.int64), "other")
    np.testing.assert_array_equal(feature_source(turned, SPEC).read(every()), first[::-1])
    assert tower.images == 40


def test_twice_the_same_image_is_made_once(tower: Tower) -> None:
    found = feature_source(source(), SPEC).read(np.array([3, 3, 3]))
    assert tower.images == 1
    assert (found == found[0]).all()


def test_dense_features_are_a_map_and_kept_apart(tower: Tower) -> None:
    feature_source(source(), SPEC).read(every(5))
    dense = feature_source(source(), DENSE).read(every(5))
    assert dense.shape == (5, 2, 2, 16)
    assert dense.dtype == np.float16
    assert tower.images == 10


def test_a_broken_row_is_made_again(tower: Tower, tmp_path: Path) -> None:
    found = feature_source(source(), SPEC).read(every(2))
    (path,) = (tmp_path / "cache" / "features").glob("*.sqlite")
    store = FeatureStore(path, "global")
    keys = [k for k, _ in _rows(path)]
    store.put({keys[0]: b"short"})
    np.testing.assert_array_equal(feature_source(source(), SPEC).read(every(2)), found)
    assert tower.images == 3


def _rows(path: Path) -> list[tuple[bytes, bytes]]:
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(path)) as base:
        return base.execute("SELECT key, data FROM features").fetchall()


def test_a_cache_that_cannot_be_written_says_what_to_do(tower: Tower, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(ConfigError, match=r"the cache of image features .* cannot be used: .*set EDGEFED_CACHE"):
        feature_source(source(), SPEC).read(every())


def test_what_is_no_image_is_refused(tower: Tower) -> None:
    flat = ArraySource(np.zeros((3, 64), np.float32), np.zeros(3, np.int64))
    with pytest.raises(ConfigError, match=r"encoder 'tiny' takes images, .* got samples of shape \(64,\) of float32"):
        feature_source(flat, SPEC).read(every(3))


def image_folder(root: Path) -> Path:
    rng = np.random.default_rng(0)
    for split, n in (("train", 3), ("test", 2)):
        for name in ("cat", "dog", "eel"):
            (root / split / name).mkdir(parents=True)
            for i in range(n):
                pixels = rng.integers(0, 256, (10 + i, 14, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{i}.png")
    return root


def test_a_folder_is_decoded_in_the_encoders_size_and_kept_by_file(tower: Tower, tmp_path: Path) -> None:
    pool = open_folder(image_folder(tmp_path / "pets"))
    some = first_classes(pool, 2)
    found = feature_source(some.source, SPEC).read(every(10))
    assert found.shape == (10, 16)
    feature_source(pool.source, SPEC).read(every(15))
    assert tower.images == 15


def large_images(root: Path, n: int) -> Path:
    """Each more than 700 kB, whatever is on it."""
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
    for i in range(n):
        Image.new("RGB", (500, 500), (i, 0, 0)).save(root / ("cat", "dog")[i % 2] / f"{i}.bmp")
    return root


def test_files_are_in_memory_one_batch_at_a_time(tower: Tower, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "BATCH", 2)
    feature_source(open_folder(large_images(tmp_path / "first", 2)).source, SPEC).read(every(2))  # modules are loaded
    pool = open_folder(large_images(tmp_path / "pets", 16))
    peaks = []
    for _ in ("made", "found"):
        tracemalloc.start()
        feature_source(pool.source, SPEC).read(every(16))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert tower.images == 16  # the first two are among them
    assert max(peaks) < 5 * 750_000  # two files, and what they are decoded to


def test_a_file_is_read_again_when_it_has_changed(
    tower: Tower, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = open_folder(large_images(tmp_path / "pets", 4))
    digested = []
    original = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda file, how: digested.append(file.name) or original(file, how))
    first = feature_source(pool.source, SPEC).read(every(4))
    path = pool.source.file(0)
    assert len(digested) == 4
    feature_source(pool.source, SPEC).read(every(4))
    assert len(digested) == 4
    times = path.stat()
    Image.new("RGB", (500, 500), (9, 9, 9)).save(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # of the same size and time, as some copies are
    again = feature_source(pool.source, SPEC).read(every(4))
    assert len(digested) == 5
    assert (again[0] != first[0]).any()
    np.testing.assert_array_equal(again[1:], first[1:])


def test_a_file_that_changes_meanwhile_is_kept_under_what_it_is(
    tower: Tower, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = open_folder(large_images(tmp_path / "pets", 2))
    original = feature_source(pool.source, SPEC).read(every(1))
    (path,) = (tmp_path / "cache" / "features").glob("*.sqlite")
    before = pool.source.file(1).read_bytes()
    get = FeatureStore.get

    def changed(store: FeatureStore, keys: set[bytes], size: int) -> dict[bytes, bytes]:
        pool.source.file(1).write_bytes(pool.source.file(0).read_bytes())
        return get(store, keys, size)

    monkeypatch.setattr(FeatureStore, "get", changed)
    np.testing.assert_array_equal(feature_source(pool.source, SPEC).read(np.array([1])), original)
    assert hashlib.sha256(before).digest() not in {key for key, _ in _rows(path)}


def test_an_image_that_breaks_when_decoded_is_named(tower: Tower, tmp_path: Path) -> None:
    root = image_folder(tmp_path / "pets")
    pool = open_folder(root)
    broken = root / "train" / "cat" / "0.png"
    broken.write_bytes(broken.read_bytes()[:60])
    with pytest.raises(ConfigError, match=r"cat/0.png cannot be read"):
        feature_source(pool.source, SPEC).read(every(1))


def test_preprocessing_is_transformers_own() -> None:
    transformers = pytest.importorskip("transformers")
    how = Preprocessing(24, 24, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    own = transformers.CLIPImageProcessor(
        size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24}, image_mean=how.mean, image_std=how.std
    )
    x, y = np.mgrid[0:40, 0:60]
    pixels = np.stack([x * 4, y * 3, x + y], -1).astype(np.uint8)
    image = Image.open(io.BytesIO(_png(pixels)))
    expected = np.asarray(own(images=[image], return_tensors="np")["pixel_values"][0])
    np.testing.assert_allclose(preprocessed(image, how), expected, atol=0.06)  # whole grey levels: resize rounds


def _png(pixels: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def test_only_models_with_an_encoder_need_features() -> None:
    assert needs_features(SPEC)
    assert not needs_features(ModelSpec("mlp"))
    assert not needs_features(ModelSpec("gn_cnn"))


def test_a_digest_names_source_tower_and_kind(tower: Tower) -> None:
    digests = {feature_source(source(), spec).digest for spec in (SPEC, DENSE)}
    assert len(digests) == 2
    nameless = FeatureSource(ArraySource(source().x, source().labels), "tiny", "global", Path())
    assert nameless.digest == ""


def test_an_agents_data_of_a_run_with_an_encoder_are_features(tower: Tower) -> None:
    pytest.importorskip("sklearn")
    table = {
        "run": {"method": "promptfl", "rounds": 1},
        "model": {"name": "prompted", "encoder": "tiny"},
        "data": {"name": "digits", "n_agents": 4, "n_classes": 3, "shots": 4, "min_samples": 1},
    }
    run = runfile.Run("r", runfile.from_table(table, "test"), None, None)
    job = Job(pb.Offer(data=pb.DataIndex(index=1, of=4)), AgentConfig("anna", named=True))
    data = open_data(job, run, run.at(1))
    assert data.classes == ("0", "1", "2")
    assert data.train.read().shape == (3, 16)
    assert data.train.source is data.test.source
    assert tower.images == 3  # of its own samples alone


def test_data_of_other_models_are_left_alone() -> None:
    class Data:
        train = None

    data: Any = Data()
    assert encoded(data, ModelSpec("linear")) is data


@pytest.mark.slow
def test_a_tower_file_is_exported_when_it_is_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxscript")
    monkeypatch.setenv("EDGEFED_CACHE", str(tmp_path))
    image_tower.close()
    pixels = np.random.default_rng(0).standard_normal((3, 3, 8, 8)).astype(np.float32)
    found = image_tower.opened("tiny")(pixels, "global")
    image_tower.close()
    np.testing.assert_allclose(found, Tower()(pixels, "global"), atol=1e-5)
    assert image_tower.tower_file("tiny").is_file()


def test_a_tower_that_cannot_be_exported_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEFED_CACHE", str(tmp_path))
    (tmp_path / "clip").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "clip" / name).write_text('{"model_type": "clip"}')
    with pytest.raises(ConfigError, match=r"is not here as image_tower.onnx and cannot be exported: encoder .* lacks"):
        image_tower.tower_file(str(tmp_path / "clip"))
