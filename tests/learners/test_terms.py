"""Loss-space terms of the torch learner against numbers that were worked out by hand."""

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from common.method import Term
from common.objectives import Seen
from edge_client.learners.torch.terms import TERMS

# Samples of classes 0, 0, 1, 2 and one without a label; prototypes of 0, (1, 0), and 1, (0, 1).
EMBEDDINGS = [[1.0, 2.0], [3.0, 0.0], [0.0, 3.0], [9.0, 9.0], [5.0, 5.0]]
LABELS = [0, 0, 1, 2, -1]
ARRAYS = {"class_ids": np.array([0, 1]), "vectors": np.eye(2, dtype=np.float32)}


@pytest.fixture
def seen() -> Seen:
    embeddings = torch.tensor(EMBEDDINGS, requires_grad=True)
    return Seen((embeddings,), torch.tensor(LABELS), torch.clone)


def value(name: str, seen: Seen) -> "torch.Tensor":
    return TERMS[name](Term(name, 1.0, ARRAYS), 3, 2, torch.device("cpu"))(seen)


def test_samples_are_drawn_to_their_prototypes(seen: Seen) -> None:
    """Squared distances 0 + 4, 4 + 0 and 0 + 4 of the three samples that have one; their mean."""
    assert float(value("prototypes", seen).detach()) == pytest.approx(4.0)


def test_class_means_of_a_batch_are_drawn_to_the_prototypes(seen: Seen) -> None:
    """Class 0 has mean (2, 1): 1 + 1; class 1 (0, 3): 4; a sum over classes. Each sample of 0 has half its pull."""
    found = value("prototype_means", seen)
    assert float(found.detach()) == pytest.approx(6.0)
    (slopes,) = torch.autograd.grad(found, seen.embeddings)
    expected = torch.tensor([[1.0, 1.0], [1.0, 1.0], [0.0, 4.0], [0.0, 0.0], [0.0, 0.0]])
    torch.testing.assert_close(slopes, expected)


def test_no_class_in_the_batch_is_no_pull() -> None:
    seen = Seen((torch.ones(2, 2),), torch.tensor([2, -1]), torch.clone)
    assert {float(value(name, seen)) for name in TERMS} == {0.0}
