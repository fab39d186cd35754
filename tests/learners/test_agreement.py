"""The learners agree: same first draw, same batch orders, same arithmetic, for the models that both have."""

import numpy as np
import pytest

pytest.importorskip("torch")

from common.method import ModelSpec, Term, Training
from edge_client import learners
from tests.learners.conftest import Make, close

TRAININGS = {
    "sgd": Training(lr=0.05, batch=8, epochs=3, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adamw": Training(lr=0.01, batch=8, epochs=3, optimiser="adamw", weight_decay=0.01),
}


@pytest.mark.parametrize("optimiser", TRAININGS)
@pytest.mark.parametrize("model", ["linear", "mlp"])
def test_numpy_and_torch_agree_after_twelve_steps(images: Make, model: str, optimiser: str) -> None:
    samples = images(33)  # a last batch of one sample, left out by both
    both = [learners.make(name, ModelSpec(model), 4, terms=("prototypes",)) for name in ("numpy", "torch")]
    start = [learner.initial(np.random.default_rng(1)) for learner in both]
    assert both[0].parameters() == both[1].parameters()
    assert all(np.array_equal(start[0][name], start[1][name]) for name in start[1])
    dim = both[0].embed(start[0], samples).shape[1]
    vectors = np.random.default_rng(2).random((2, dim), dtype=np.float32)
    terms = (
        Term("proximal", 0.1, start[0].only(["classifier.weight"])),
        Term("prototypes", 0.05, {"class_ids": np.array([0, 2]), "vectors": vectors}),
    )
    trained = [
        learner.fit(start[0], samples, TRAININGS[optimiser], terms=terms, rng=np.random.default_rng(3))
        for learner in both
    ]
    assert trained[0].n_steps == trained[1].n_steps == 12
    assert trained[0].loss == pytest.approx(trained[1].loss, abs=1e-5)
    for name, array in trained[0].weights.items():
        close(trained[1].weights[name], array, atol=1e-5)  # usual difference 1e-7
    for what in ("scores", "embed"):
        one, other = (getattr(learner, what)(trained[0].weights, samples) for learner in both)
        close(other, one, atol=1e-5)
    one, other = (learner.gradients(start[0], samples, "cross_entropy") for learner in both)
    for name, array in one.items():
        close(other[name], array, atol=1e-6)
