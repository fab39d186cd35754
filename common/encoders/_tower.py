"""The image tower of a transformers model as a module of its own, for export: global and dense features."""

from typing import Any, cast

import torch
from torch import nn

from common.errors import ConfigError


class ImageTower(nn.Module):
    """Pixels -> global (n, dim) and dense (n, rows, columns, dim), both in the joint space, not normalised.

    A convolutional tower's dense features are its last map, each place projected; a transformer's are its patch
    tokens through the same last norm and projection as the class token, which is dropped.
    """

    def __init__(self, model: Any) -> None:  # Any: transformers
        super().__init__()
        self.tower, self.projection = model.vision_model, model.visual_projection

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found = self.tower(pixel_values=pixels)
        last = cast(torch.Tensor, found.last_hidden_state)
        if last.dim() == 4:  # (n, channels, rows, columns)
            dense = last.permute(0, 2, 3, 1)
        else:
            norm = getattr(getattr(self.tower, "vision_model", self.tower), "post_layernorm", None)
            if norm is None:
                raise ConfigError(f"the dense features of {type(self.tower).__name__} are not known to this build")
            dense = norm(last[:, 1:])
            side = round(dense.shape[1] ** 0.5)
            dense = dense.reshape(-1, side, side, dense.shape[-1])
        return self.projection(found.pooler_output), self.projection(dense)
