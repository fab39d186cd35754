"""Random views of a batch of images, with parameters drawn per image and applied to all at once.

Images are (n, 3, height, width) with values in [0, 1]. Everything is drawn from the given generator, so that a run
can be repeated. Per-image transforms of an image library cost several times as much on small images.
"""

import math

import torch
from torch.nn import functional as F

RGB_TO_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


def uniform(n: int, low: float, high: float, noise: torch.Generator, device: torch.device) -> torch.Tensor:
    return torch.rand(n, generator=noise, device=device) * (high - low) + low


def crop_and_flip(x: torch.Tensor, smallest: float, noise: torch.Generator) -> torch.Tensor:
    """A crop of `smallest`..1 of the area, aspect 3/4..4/3 (log-uniform), back to full size; half of them mirrored."""
    n = len(x)
    area = uniform(n, smallest, 1.0, noise, x.device)
    ratio = torch.exp(uniform(n, math.log(3 / 4), math.log(4 / 3), noise, x.device))
    width, height = ((area * r).sqrt().clamp(max=1.0) for r in (ratio, 1 / ratio))
    centre_x = uniform(n, -1, 1, noise, x.device) * (1 - width)
    centre_y = uniform(n, -1, 1, noise, x.device) * (1 - height)
    mirrored = torch.where(uniform(n, 0, 1, noise, x.device) < 0.5, -1.0, 1.0)
    theta = torch.zeros(n, 2, 3, device=x.device)
    theta[:, 0, 0], theta[:, 0, 2] = width * mirrored, centre_x
    theta[:, 1, 1], theta[:, 1, 2] = height, centre_y
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def jitter(x: torch.Tensor, strength: float, hue: float, noise: torch.Generator) -> torch.Tensor:
    """Brightness, contrast and saturation by up to 80 % x strength, hue by up to `hue` turns; on 80 % of the images.

    In this order for every image, where the usual recipe shuffles it; hue turns the colour plane of YIQ.
    """
    n, reach = len(x), 0.8 * strength
    factors = [uniform(n, max(0.0, 1 - reach), 1 + reach, noise, x.device).view(n, 1, 1, 1) for _ in range(3)]
    changed = (x * factors[0]).clamp(0, 1)
    mean_grey = grey(changed).mean((1, 2, 3), keepdim=True)
    changed = (mean_grey + (changed - mean_grey) * factors[1]).clamp(0, 1)
    tone = grey(changed)
    changed = (tone + (changed - tone) * factors[2]).clamp(0, 1)
    changed = _turned(changed, uniform(n, -hue, hue, noise, x.device) * 2 * math.pi).clamp(0, 1)
    chosen = uniform(n, 0, 1, noise, x.device) < 0.8
    return torch.where(chosen.view(n, 1, 1, 1), changed, x)


def some_grey(x: torch.Tensor, share: float, noise: torch.Generator) -> torch.Tensor:
    chosen = uniform(len(x), 0, 1, noise, x.device) < share
    return torch.where(chosen.view(-1, 1, 1, 1), grey(x).expand_as(x), x)


def some_blurred(x: torch.Tensor, share: float, noise: torch.Generator) -> torch.Tensor:
    """Gaussian blur with sigma in [0.1, 2], kernel a tenth of the side, odd; separable, one kernel per image."""
    n, channels, side = len(x), x.shape[1], x.shape[-1]
    half = max(1, side // 20)
    sigma = uniform(n, 0.1, 2.0, noise, x.device).view(n, 1)
    offsets = torch.arange(-half, half + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)  # (n c, k)
    flat = x.reshape(1, n * channels, *x.shape[2:])  # one group per image and channel
    flat = F.conv2d(
        F.pad(flat, (half, half, 0, 0), "reflect"), kernel.view(-1, 1, 1, 2 * half + 1), groups=n * channels
    )
    flat = F.conv2d(
        F.pad(flat, (0, 0, half, half), "reflect"), kernel.view(-1, 1, 2 * half + 1, 1), groups=n * channels
    )
    chosen = uniform(n, 0, 1, noise, x.device) < share
    return torch.where(chosen.view(n, 1, 1, 1), flat.view_as(x), x)


def grey(x: torch.Tensor) -> torch.Tensor:
    """Luma, (n, 1, height, width)."""
    weights = torch.tensor(RGB_TO_YIQ[0], device=x.device, dtype=x.dtype).view(1, 3, 1, 1)
    return (x * weights).sum(1, keepdim=True)


def _turned(x: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
    to_yiq = torch.tensor(RGB_TO_YIQ, device=x.device, dtype=x.dtype)
    turn = torch.zeros(len(x), 3, 3, device=x.device, dtype=x.dtype)
    turn[:, 0, 0] = 1
    turn[:, 1, 1] = turn[:, 2, 2] = angle.cos()
    turn[:, 1, 2], turn[:, 2, 1] = -angle.sin(), angle.sin()
    whole = torch.linalg.inv(to_yiq) @ turn @ to_yiq  # (n, 3, 3)
    return torch.einsum("nij,njhw->nihw", whole, x)
