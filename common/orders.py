"""Which samples make which batch: the one place where an order is drawn, so that all learners and methods agree."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from common.method import Training


def batches(
    n: int, training: Training, rng: "np.random.Generator", *, has_batch_norm: bool = False
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """(epoch, places) of every optimiser step; `rng.permutation(n)` once an epoch, and nothing else is drawn.

    The last, smaller batch is kept, but a last batch of a single sample is left out, as FL-bench does: batch norm
    cannot use it, and its gradient is mostly noise. It is kept when it is all there is, unless the net has batch
    norm; with `batch = 1` nothing is left out.
    """
    n_steps = 0
    for epoch in range(training.epochs):
        order = rng.permutation(n)
        for start in range(0, n, training.batch):
            if n_steps == training.steps:
                return
            which = order[start : start + training.batch]
            if len(which) == 1 < training.batch and (n > 1 or has_batch_norm):
                continue
            n_steps += 1
            yield epoch, which
