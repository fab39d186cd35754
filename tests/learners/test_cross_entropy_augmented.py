import numpy as np
import pytest

torch = pytest.importorskip("torch")

from common.method import ModelSpec, Training  # noqa: E402 - torch first
from common.objectives import cross_entropy_augmented as augmented  # noqa: E402
from common.samples import from_arrays  # noqa: E402
from edge_client import learners  # noqa: E402


def test_one_view_that_is_cropped_and_repeats_with_the_seed():
    x = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    (view,) = augmented.views(x, torch.Generator().manual_seed(1), augmented.Options())
    (again,) = augmented.views(x, torch.Generator().manual_seed(1), augmented.Options())
    assert view.shape == x.shape
    assert torch.equal(view, again)
    assert not torch.allclose(view, x, atol=0.05)


def test_a_net_learns_under_it():
    labels = np.arange(48) % 4
    pixels = np.broadcast_to((labels * 60).astype(np.uint8)[:, None, None, None], (48, 16, 16, 3))
    samples = from_arrays(pixels, labels, 4)
    spec = ModelSpec("mlp", {"input": "16x16x3", "hidden": 16})
    learner = learners.make("torch", spec, 4, objective="cross_entropy_augmented")
    training = Training("cross_entropy_augmented", {"crop_min": 0.8}, lr=0.05, batch=16, epochs=30)
    weights = learner.initial(np.random.default_rng(0))
    assert learner.fit(weights, samples, training, rng=np.random.default_rng(1)).loss < 1.0  # ln 4 = 1.39 at first
