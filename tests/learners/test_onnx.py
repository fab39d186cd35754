"""An exported backbone: features equal torch's, the head trains as numpy's does, and nothing here loads torch."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from common import models
from common.errors import ConfigError, RemoteFault
from common.method import ModelSpec, Training
from common.payloads import Weights
from common.samples import from_arrays
from edge_client import learners
from tests.learners.conftest import Make, close

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

SPEC = ModelSpec("resnet10", {"width": 4, "input": "32x32x3", "stem": "small"})


@pytest.fixture(scope="module")
def trunk() -> Weights:
    """With statistics that are not those of the first draw, so that batch norm shows."""
    rng = np.random.default_rng(1)
    weights = models.load(SPEC, 0).initial(rng)
    shaken = {n: a + np.float32(0.3) * rng.random(a.shape, np.float32) for n, a in weights.items() if a.ndim == 1}
    return weights.updated(shaken)


@pytest.fixture(scope="module")
def graph(trunk: Weights) -> bytes:
    from common.nets import _export

    found, dim = _export.exported(SPEC, trunk)
    assert dim == 32
    return found


def spec_of(graph: bytes) -> ModelSpec:
    return ModelSpec("onnx", {"input": "32x32x3", "dim": 32, "n_bytes": len(graph)})


def held(graph: bytes, n_classes: int = 0) -> Weights:
    return (
        models.load(spec_of(graph), n_classes)
        .initial(np.random.default_rng(2))
        .updated({"graph": np.frombuffer(graph, np.uint8)})
    )


@pytest.mark.parametrize("n", [1, 5, 130])
def test_features_are_torchs(n: int, trunk: Weights, graph: bytes, images: Make) -> None:
    samples = images(n, (32, 32, 3))
    expected = learners.make("torch", SPEC, 0).embed(trunk, samples)
    close(
        learners.make("onnx", spec_of(graph), 0).embed(held(graph), samples), expected, atol=1e-4
    )  # seen: 2e-6 of about 3


def test_the_head_is_trained_as_numpy_does_it(graph: bytes, images: Make) -> None:
    samples, training = images(20, (32, 32, 3)), Training(lr=0.1, batch=8, epochs=2)
    learner, weights = learners.make("onnx", spec_of(graph), 4), held(graph, 4)
    head = [name for name in weights if name != "graph"]
    fitted = learner.fit(weights, samples, training, trainable=head, rng=np.random.default_rng(3))
    features = from_arrays(learner.embed(weights, samples), samples.labels, 4)
    alone = learners.make("numpy", ModelSpec("linear", {"input": "32"}), 4)
    expected = alone.fit(weights.only(head), features, training, rng=np.random.default_rng(3))
    assert all(np.array_equal(fitted.weights[name], expected.weights[name]) for name in head)
    assert fitted.weights["graph"] is weights["graph"]
    close(learner.scores(fitted.weights, samples), alone.scores(expected.weights, features), atol=0)
    slope = learner.gradients(weights, samples, "cross_entropy")
    assert set(slope) == set(head)


def test_no_samples_have_features_of_the_right_width(graph: bytes, images: Make) -> None:
    learner = learners.make("onnx", spec_of(graph), 0)
    assert learner.embed(held(graph), images(3, (32, 32, 3)).take(np.arange(0))).shape == (0, 32)


def test_a_frozen_backbone_says_that_it_is(graph: bytes, images: Make) -> None:
    learner = learners.make("onnx", spec_of(graph), 4)
    with pytest.raises(ConfigError, match=r"an exported backbone is frozen: set .method. tune = 'head'"):
        learner.fit(
            held(graph, 4), images(4, (32, 32, 3)), Training(), trainable=["graph"], rng=np.random.default_rng(0)
        )


def test_bytes_that_are_no_graph(images: Make) -> None:
    bad = b"no graph at all"
    with pytest.raises(RemoteFault, match="is no ONNX graph that onnxruntime can load"):
        learners.make("onnx", spec_of(bad), 0).embed(held(bad), images(2, (32, 32, 3)))


def test_features_of_another_size_than_the_run_says(graph: bytes, images: Make) -> None:
    spec = ModelSpec("onnx", {"input": "32x32x3", "dim": 99, "n_bytes": len(graph)})
    with pytest.raises((RemoteFault, ValueError), match=r"another size|must match exactly"):
        learners.make("onnx", spec, 0).embed(held(graph), images(2, (32, 32, 3)))


def test_weights_of_another_net_are_refused_by_their_first_tensor(trunk: Weights) -> None:
    from common.nets import _export

    wide = ModelSpec("resnet10", {**SPEC.options, "width": 8})
    with pytest.raises(ConfigError, match=r"tensor 'conv1.weight' must be \[8, 3, 3, 3\], got \[4, 3, 3, 3\]"):
        _export.exported(wide, trunk)
    with pytest.raises(ConfigError, match=r"tensor 'layer4.shortcut.1.num_batches_tracked' must be .*, got nothing"):
        _export.exported(SPEC, trunk.without(["layer4.shortcut.1.num_batches_tracked"]))


def test_the_learner_is_chosen_for_that_model_only() -> None:
    assert learners.choose("auto", ModelSpec("onnx")) == "onnx"
    assert learners.choose("onnx", ModelSpec("onnx")) == "onnx"
    assert learners.choose("onnx", ModelSpec("linear")) == "numpy"
    for preference, model in (("onnx", "resnet10"), ("torch", "onnx")):
        with pytest.raises(ConfigError, match="trains heads over an exported backbone"):
            learners.choose(preference, ModelSpec(model))
    with pytest.raises(ConfigError, match="trains heads over an exported backbone"):
        learners.choose("auto", ModelSpec("onnx"), objective="simclr")


def test_it_loads_no_torch(graph: bytes, tmp_path: Path) -> None:
    np.savez(tmp_path / "b.npz", graph=np.frombuffer(graph, np.uint8))
    code = (
        "import sys\nimport numpy as np\n"
        "from common import models\nfrom common.method import ModelSpec\nfrom common.samples import from_arrays\n"
        "from edge_client import learners\n"
        f"graph = np.load({str(tmp_path / 'b.npz')!r})['graph']\n"
        "spec = ModelSpec('onnx', {'input': '32x32x3', 'dim': 32, 'n_bytes': len(graph)})\n"
        "weights = models.load(spec, 0).initial(np.random.default_rng(0)).updated({'graph': graph})\n"
        "samples = from_arrays(np.zeros((3, 32, 32, 3), np.uint8), np.zeros(3), 2)\n"
        "assert learners.make(learners.choose('auto', spec), spec, 0).embed(weights, samples).shape == (3, 32)\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
