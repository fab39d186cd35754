"""Samples as a model takes them: uint8 stays uint8 until the batch, then x / 255, then (x - mean) / std.

`mean` and `std` per channel come from the source of the samples when it states them; other dtypes are taken as
they are.
"""

import numpy as np
from numpy.typing import NDArray

from common.samples import Source
from edge_client.learners.layout import Flat


def scaling(source: Source) -> tuple[Flat, Flat] | None:
    """(mean, std) of a source, float32 per channel; None when it states none."""
    if not source.mean:
        return None
    return np.array(source.mean, np.float32), np.array(source.std, np.float32)


def prepared(x: NDArray[np.generic], scale: tuple[Flat, Flat] | None) -> Flat:
    """float32, (n, height * width * channels): what numpy's models take."""
    values = x.astype(np.float32)
    if x.dtype == np.uint8:
        values /= np.float32(255)
        if scale is not None:
            values -= scale[0]
            values /= scale[1]
    return values.reshape(len(x), -1)
