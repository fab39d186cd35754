from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from common.samples import ArraySource, Samples, view

Make = Callable[..., Samples]


def _images(n: int, shape: tuple[int, ...] = (8, 8, 1), n_classes: int = 4, seed: int = 0) -> Samples:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_classes, n)
    x = rng.integers(0, 200, (n, *shape)).astype(np.uint8)
    x[:, 0] = (labels * (200 // n_classes))[:, None, None]  # so that there is something to learn
    channels = shape[-1]
    return view(ArraySource(x, labels, mean=(0.4,) * channels, std=(0.3,) * channels), n_classes)


def close(got: Any, expected: Any, atol: float) -> None:  # Any: arrays of every dtype, and what is made of them
    np.testing.assert_allclose(got, expected, rtol=0, atol=atol)


@pytest.fixture
def images() -> Make:
    """Random uint8 images whose first row tells the class."""
    return _images
