"""How experts are asked: in blocks of few sizes, whatever number of inputs reaches them."""

import numpy as np
import pytest

from common.expert_outputs import BLOCK, in_blocks
from common.payloads import Weights
from common.samples import Samples, from_arrays


class Recording:
    """A learner whose scores are the inputs themselves; it keeps the sizes that it was asked for."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def scores(self, weights: Weights, samples: Samples) -> "np.ndarray":
        self.sizes.append(len(samples))
        return np.asarray(samples.read(), np.float32)


@pytest.mark.parametrize(
    ("n", "sizes"), [(1, [8]), (8, [8]), (9, [16]), (33, [64]), (64, [64]), (70, [64, 8]), (200, [64, 64, 64, 8])]
)
def test_blocks_have_few_sizes_and_rows_keep_their_order(n: int, sizes: list[int]) -> None:
    """Libraries keep what they compiled for each size, so a tree of a hundred experts may not bring a hundred."""
    assert BLOCK == 64
    samples = from_arrays(np.arange(2 * n, dtype=np.float32).reshape(n, 2), np.zeros(n, np.int64), 1)
    learner = Recording()
    found = in_blocks(learner, Weights({}), samples)  # type: ignore[arg-type]  # of a Learner, scores are all it needs
    assert found.tolist() == samples.read().tolist()
    assert learner.sizes == sizes
