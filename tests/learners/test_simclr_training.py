"""SimCLR through the learner: what a last batch of one image, or one image in all, does."""

import numpy as np
import pytest

pytest.importorskip("torch")

from common.errors import ConfigError
from common.method import ModelSpec, Training
from edge_client import learners

SPEC = ModelSpec("resnet10", {"width": 4, "input": "16x16x3", "stem": "small"})
TRAINING = Training("simclr", {}, optimiser="adamw", lr=0.01, batch=16)


@pytest.mark.parametrize(("n", "n_steps"), [(16, 1), (17, 1), (18, 2), (2, 1), (1, 0)])
def test_a_last_batch_of_one_image_is_dropped(images, n, n_steps):
    learner = learners.make("torch", SPEC, 0, objective="simclr")
    weights = learner.initial(np.random.default_rng(0))
    fitted = learner.fit(weights, images(n, (16, 16, 3)).unlabelled(), TRAINING, rng=np.random.default_rng(1))
    assert fitted.n_steps == n_steps
    moved = [name for name in weights if not np.array_equal(weights[name], fitted.weights[name])]
    assert ("objective.0.weight" in moved) == (n_steps > 0)


def test_batches_of_one_say_what_to_change(images):
    learner = learners.make("torch", SPEC, 0, objective="simclr")
    weights = learner.initial(np.random.default_rng(0))
    alone = Training("simclr", {}, batch=1)
    with pytest.raises(ConfigError, match=r"at least two images in a batch, got 1; raise optimiser.batch"):
        learner.fit(weights, images(3, (16, 16, 3)).unlabelled(), alone, rng=np.random.default_rng(1))
