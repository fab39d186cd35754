"""A batch on its way into a net: uint8 (n, height, width, channels) -> float32 (n, channels, height, width)."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edge_client.learners.layout import Flat


def tensor(x: NDArray[np.generic], device: torch.device) -> torch.Tensor:
    """The samples as they are, on the device; copied only if they are read-only or lie there otherwise."""
    writable: NDArray[Any] = np.require(x, requirements=("C", "W"))
    return torch.from_numpy(writable).to(device)


class Prepare:
    """(x / 255 - mean) / std for uint8, as `edge_client.learners.inputs` does it; a dense net takes it flat.

    In two halves, because an objective's views are of pixels in [0, 1]: `pixels`, then `normalised`.
    """

    def __init__(
        self, scale: tuple[Flat, Flat] | None, *, flattens: bool, channels_last: bool, device: torch.device
    ) -> None:
        self._scale = None if scale is None else [torch.from_numpy(p).view(-1, 1, 1).to(device) for p in scale]
        self._flattens = flattens
        self._channels_last = channels_last and device.type == "cpu"

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self.normalised(self.pixels(x), x.dtype)

    def pixels(self, x: torch.Tensor) -> torch.Tensor:
        """uint8 -> [0, 1], (n, channels, height, width) as it lies in memory; anything else as it is."""
        values = x.float()
        if x.dtype == torch.uint8:
            values = values.div_(255)
        return values.permute(0, 3, 1, 2) if values.dim() == 4 else values

    def normalised(self, pixels: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """What the net takes, of samples that came as `dtype`.

        The memory layout is set here and not in `pixels`, because an objective's views may come out in another.
        """
        if self._scale is not None and dtype == torch.uint8:
            pixels = pixels.sub(self._scale[0]).div_(self._scale[1])
        if self._flattens:
            return (pixels.permute(0, 2, 3, 1) if pixels.dim() == 4 else pixels).flatten(1)
        if pixels.dim() != 4:
            return pixels
        if self._channels_last:
            return pixels.contiguous(memory_format=torch.channels_last)
        return pixels.clone(memory_format=torch.contiguous_format)  # contiguous() keeps odd strides of one channel
