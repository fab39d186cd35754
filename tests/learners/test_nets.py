from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from common import models, nets
from common.errors import ConfigError
from common.method import ModelSpec, Spec, Training
from edge_client import learners
from tests.learners.conftest import Make, close


def n_values(specs: dict[str, Spec], kind: str = "param") -> int:
    return sum(int(np.prod(s.shape)) for s in specs.values() if s.kind == kind)


@pytest.mark.parametrize(
    ("spec", "n_params"),
    [
        (ModelSpec("fedavg_cnn"), 582_026),
        (ModelSpec("fedavg_cnn", {"input": "32x32x3"}), 878_538),
        (ModelSpec("gn_cnn", {"width": 16}), 16 * 27 + 32 * 16 * 9 + 64 * 32 * 9 + 2 * (16 + 32 + 64) + 650),
        (ModelSpec("resnet18"), 11_173_962),  # as the CIFAR form of the literature
        (ModelSpec("resnet18", {"stem": "large"}), 11_181_642),  # torchvision's, with 10 classes
        (ModelSpec("resnet50", {"stem": "large"}), 23_528_522),
        (ModelSpec("resnet10"), 307_536 + 128 * 10 + 10),
        (ModelSpec("resnet10", {"width": 32}), 1_226_400 + 256 * 10 + 10),
    ],
)
def test_sizes_are_the_known_ones(spec: ModelSpec, n_params: int) -> None:
    assert n_values(models.load(spec, 10).parameters()) == n_params


CLASSES_ARE_WORDS = ("prompted",)  # and not rows of a head


@pytest.mark.parametrize("name", nets.names())
def test_every_net_keeps_the_contract(name: str) -> None:
    spec = ModelSpec(name)
    specs, weights = models.load(spec, 7).parameters(), models.load(spec, 7).initial(np.random.default_rng(0))
    assert models.difference(specs, weights) is None
    assert all(n.startswith(s.layer + ".") for n, s in specs.items())
    without = models.load(spec, 0).parameters()
    assert without == {n: s for n, s in specs.items() if s.part != "head"}
    if name not in CLASSES_ARE_WORDS:
        assert {n for n, s in specs.items() if s.part == "head"} == {"classifier.weight", "classifier.bias"}
        assert specs["classifier.weight"].shape[0] == specs["classifier.bias"].shape[0] == 7
    again = models.load(spec, 7).initial(np.random.default_rng(0))
    assert all(np.array_equal(array, again[n]) for n, array in weights.items())


def test_fedavg_cnn_has_the_names_of_fl_bench() -> None:
    assert [(n, s.layer, s.part) for n, s in models.load(ModelSpec("fedavg_cnn"), 10).parameters().items()][::2] == [
        ("base.conv1.weight", "base.conv1", "trunk"),
        ("base.conv2.weight", "base.conv2", "trunk"),
        ("base.fc1.weight", "base.fc1", "trunk"),
        ("classifier.weight", "classifier", "head"),
    ]


@pytest.mark.parametrize(("name", "torchs"), [("resnet18", "resnet18"), ("resnet50", "resnet50")])
def test_resnets_with_the_large_stem_are_torchvisions(name: str, torchs: str) -> None:
    torchvision = pytest.importorskip("torchvision")
    with torch.device("meta"):
        theirs = getattr(torchvision.models, torchs)(num_classes=10).state_dict()
    ours = models.load(ModelSpec(name, {"stem": "large"}), 10).parameters()
    assert {n.replace("fc.", "classifier."): tuple(t.shape) for n, t in theirs.items()} == {
        n: s.shape for n, s in ours.items()
    }


def test_first_weights_of_a_resnet_are_those_of_he_et_al() -> None:
    weights = models.load(ModelSpec("resnet18"), 10).initial(np.random.default_rng(0))
    std = float(np.std(np.asarray(weights["layer3.1.conv1.weight"], np.float64)))
    assert std == pytest.approx(np.sqrt(2 / (256 * 9)), rel=0.01)
    assert (weights["bn1.weight"] == 1).all()
    assert not weights["bn1.bias"].any()
    assert not weights["bn1.running_mean"].any()
    assert (weights["bn1.running_var"] == 1).all()
    assert weights["bn1.num_batches_tracked"] == 0
    assert weights["bn1.num_batches_tracked"].dtype == np.int64


def test_kinds_tell_params_buffers_and_counters_apart() -> None:
    specs = models.load(ModelSpec("resnet18"), 10).parameters()
    assert (specs["bn1.weight"].kind, specs["bn1.running_var"].kind, specs["bn1.num_batches_tracked"].kind) == (
        "param",
        "buffer",
        "counter",
    )
    assert n_values(specs, "counter") == 20


@pytest.mark.parametrize(("pixels", "blocks"), [(8, 1), (16, 2), (28, 3), (32, 3), (64, 4)])
def test_gn_cnn_brings_the_map_down_to_four_pixels(pixels: int, blocks: int) -> None:
    spec = ModelSpec("gn_cnn", {"input": f"{pixels}x{pixels}x3", "width": 8})
    assert f"blocks.{blocks - 1}.conv.weight" in models.load(spec, 2).parameters()
    assert f"blocks.{blocks}.conv.weight" not in models.load(spec, 2).parameters()


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (ModelSpec("fedavg_cnn", {"input": "8x8x1"}), "16x16 and more"),
        (ModelSpec("fedavg_cnn", {"input": 64}), "16x16 and more"),
        (ModelSpec("gn_cnn", {"input": 64}), "takes images"),
        (ModelSpec("gn_cnn", {"width": 6}), "width must be a multiple of 4"),
        (ModelSpec("gn_cnn", {"input": "4x4x3", "blocks": 3}), "8 pixels and more"),
        (ModelSpec("resnet18", {"stem": "tiny"}), "expected 'small' or 'large', got 'tiny'"),
        (ModelSpec("resnet18", {"input": 64}), "takes images"),
    ],
)
def test_options_that_make_no_net_say_so(spec: ModelSpec, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        models.load(spec, 10).parameters()


def small_resnet(images: Make) -> tuple[Any, Any, Any]:
    spec = ModelSpec("resnet18", {"input": "8x8x1"})
    learner = learners.make("torch", spec, 4)
    return learner, images(9), learner.initial(np.random.default_rng(0))


def test_batch_norm_moves_in_training_and_is_still_in_evaluation(images: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEFED_THREADS", "1")
    learner, samples, start = small_resnet(images)
    fitted = learner.fit(start, samples, Training(lr=0.01, batch=4), rng=np.random.default_rng(0))
    assert fitted.n_steps == 2  # the ninth sample alone is left out
    assert fitted.weights["bn1.num_batches_tracked"] == 2
    assert fitted.weights.kind("bn1.num_batches_tracked") == "counter"
    assert not np.array_equal(fitted.weights["bn1.running_mean"], start["bn1.running_mean"])
    scores = learner.scores(fitted.weights, samples)
    alone = learner.scores(fitted.weights, samples.take(np.array([3])))
    close(alone[0], scores[3], atol=1e-5)  # running statistics, not the batch's
    learner.gradients(fitted.weights, samples, "cross_entropy")
    assert np.array_equal(learner.scores(fitted.weights, samples), scores)


def test_a_frozen_layer_keeps_its_statistics_and_works_as_in_evaluation(images: Make) -> None:
    learner, samples, start = small_resnet(images)
    head = ["classifier.weight", "classifier.bias"]
    step = Training(lr=0.1, batch=len(samples))
    fitted = learner.fit(start, samples, step, trainable=head, rng=np.random.default_rng(0))
    assert {n for n, array in fitted.weights.items() if not np.array_equal(array, start[n])} == set(head)
    gradients = learner.gradients(start, samples, "cross_entropy")
    for name in head:
        close(fitted.weights[name], start[name] - 0.1 * gradients[name], atol=1e-5)


def test_no_net_is_named_by_a_shared_part() -> None:
    assert Path(nets.__file__ or "").with_name("_resnet.py").exists()
    assert set(nets.names()) >= {"fedavg_cnn", "gn_cnn", "linear", "mlp", "resnet18", "resnet50"}
    assert not any(name.startswith("_") for name in nets.names())


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"input": "64"}, "model resnet10 takes images, got input = '64'"),
        ({"stem": "large"}, "stem must be 'pooled' or 'small', got 'large'"),
        ({"width": 0}, "width must be at least 1, got 0"),
    ],
)
def test_resnet10_says_what_it_takes(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        models.load(ModelSpec("resnet10", options), 2).parameters()
