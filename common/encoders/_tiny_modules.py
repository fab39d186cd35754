"""The two towers of the tiny encoder."""

from itertools import count

import torch
from torch import nn
from torch.nn import functional as F

from common.encoders import Facts, tiny


class TextTower(nn.Module):
    def __init__(self, facts: Facts, n_tokens: int, seeds: "count[int]") -> None:
        super().__init__()
        width = facts.width
        self.table, self.positions = _fixed((n_tokens, width), seeds), _fixed((facts.n_positions, width), seeds)
        self.qkv, self.out = _fixed((3 * width, width), seeds), _fixed((width, width), seeds)
        self.up, self.down = _fixed((2 * width, width), seeds), _fixed((width, 2 * width), seeds)
        self.projection = _fixed((facts.dim, width), seeds)

    def embedded(self, ids: torch.Tensor) -> torch.Tensor:
        return self.table[ids]

    def forward(self, embedded: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
        x = embedded + self.positions[: embedded.shape[1]]
        q, k, v = (x @ self.qkv.T).chunk(3, dim=-1)
        x = x + F.scaled_dot_product_attention(q, k, v, is_causal=True) @ self.out.T
        x = x + torch.tanh(x @ self.up.T) @ self.down.T
        return x[torch.arange(len(x), device=ends.device), ends] @ self.projection.T


class ImageTower(nn.Module):
    def __init__(self, facts: Facts, patch: int, seeds: "count[int]") -> None:
        super().__init__()
        self.patch = patch
        self.projection = _fixed((facts.dim, 3 * patch * patch), seeds)

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        kernel = self.projection.view(len(self.projection), 3, self.patch, self.patch)
        dense = torch.tanh(F.conv2d(pixels, kernel, stride=self.patch)).permute(0, 2, 3, 1)
        return dense.mean((1, 2)), dense


def towers(facts: Facts, n_tokens: int, patch: int) -> tuple[TextTower, ImageTower]:
    seeds = count(1)
    text, image = TextTower(facts, n_tokens, seeds), ImageTower(facts, patch, seeds)
    return text.requires_grad_(False).eval(), image.requires_grad_(False).eval()


def _fixed(shape: tuple[int, ...], seeds: "count[int]") -> nn.Parameter:
    return nn.Parameter(torch.from_numpy(tiny.draw(shape, next(seeds))))
