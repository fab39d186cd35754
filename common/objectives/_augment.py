"""Random views of a batch of images, with parameters drawn per image and applied to all at once.

Images are (n, 3, height, width) with values in [0, 1]. Everything is drawn from the given generator, so that a run
can be repeated. Per-image transforms of an image library cost several times as much on small images.
"""

import math

import numpy as np
import torch
from torch.nn import functional as F

LUMA = (0.299, 0.587, 0.114)
RGB_TO_YIQ = np.array((LUMA, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112)), np.float32)
YIQ_TO_RGB = np.linalg.inv(RGB_TO_YIQ)


def uniform(n: int, low: float, high: float, noise: torch.Generator, device: torch.device) -> torch.Tensor:
    return torch.rand(n, generator=noise, device=device) * (high - low) + low


def crop_and_flip(x: torch.Tensor, smallest: float, noise: torch.Generator) -> torch.Tensor:
    """A crop of `smallest`..1 of the area, aspect 3/4..4/3 (log-uniform), back to full size; half of them mirrored.

    The result is contiguous, whatever the order of the images in memory.
    """
    n, _, rows, columns = x.shape
    area = uniform(n, smallest, 1.0, noise, x.device)
    ratio = torch.exp(uniform(n, math.log(3 / 4), math.log(4 / 3), noise, x.device))
    width, height = ((area * r).sqrt().clamp(max=1.0) for r in (ratio, 1 / ratio))
    centre_x = uniform(n, -1, 1, noise, x.device) * (1 - width)
    centre_y = uniform(n, -1, 1, noise, x.device) * (1 - height)
    mirrored = torch.where(uniform(n, 0, 1, noise, x.device) < 0.5, -1.0, 1.0)
    across = centre_x[:, None] + (width * mirrored)[:, None] * _pixel_centres(columns, x.device)  # (n, columns)
    down = centre_y[:, None] + height[:, None] * _pixel_centres(rows, x.device)  # (n, rows)
    grid = torch.stack([across[:, None, :].expand(n, rows, columns), down[:, :, None].expand(n, rows, columns)], 3)
    # No crop reaches outside; "border" is for the outer half of the pixels at the edge.
    return F.grid_sample(x.contiguous(), grid, mode="bilinear", padding_mode="border", align_corners=False)


def recoloured(x: torch.Tensor, strength: float, hue: float, grey_share: float, noise: torch.Generator) -> torch.Tensor:
    """Brightness, contrast and saturation by up to 80 % x strength, hue by up to `hue` turns; on 80 % of the images.

    In this order for every image, where the usual recipe shuffles it; then `grey_share` of all images lose their
    colour. Every step is affine in an image's pixels, and values are cut to [0, 1] at the end instead of after each
    step: so all of it is one product with a matrix per image. Hue turns the colour plane of YIQ.
    """
    n, reach = len(x), 0.8 * strength
    brightness, contrast, saturation = (
        uniform(n, max(0.0, 1 - reach), 1 + reach, noise, x.device).view(n, 1, 1) for _ in range(3)
    )
    turn = hue_turn(uniform(n, -hue, hue, noise, x.device) * 2 * math.pi)
    changed = (uniform(n, 0, 1, noise, x.device) < 0.8).view(n, 1, 1)
    greyed = (uniform(n, 0, 1, noise, x.device) < grey_share).view(n, 1, 1)
    same, to_grey = torch.eye(3, device=x.device), torch.tensor(LUMA, device=x.device).expand(3, 3)
    matrix = brightness * contrast * (turn @ (saturation * same + (1 - saturation) * to_grey))  # (n, 3, 3)
    # Contrast pulls to the image's mean grey; saturation and hue leave what is grey as it is.
    mean_grey = (x.mean((2, 3)) @ to_grey[0]).view(n, 1, 1)
    offset = (1 - contrast) * brightness * mean_grey  # (n, 1, 1)
    matrix, offset = torch.where(changed, matrix, same), torch.where(changed, offset, 0.0)
    matrix = torch.where(greyed, to_grey @ matrix, matrix)
    return torch.baddbmm(offset, matrix, x.reshape(n, 3, -1)).clamp_(0, 1).view_as(x)


def hue_turn(angle: torch.Tensor) -> torch.Tensor:
    """(n, 3, 3) matrices for RGB columns that turn the colour plane of YIQ by these angles (n,)."""
    turn = torch.zeros(len(angle), 3, 3, device=angle.device)
    turn[:, 0, 0] = 1
    turn[:, 1, 1] = turn[:, 2, 2] = angle.cos()
    turn[:, 1, 2], turn[:, 2, 1] = -angle.sin(), angle.sin()
    to_yiq, to_rgb = (torch.from_numpy(m).to(angle.device) for m in (RGB_TO_YIQ, YIQ_TO_RGB))
    return to_rgb @ turn @ to_yiq


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


def _pixel_centres(side: int, device: torch.device) -> torch.Tensor:
    """Of a row of pixels that fills -1..1."""
    return (2 * torch.arange(side, device=device) + 1) / side - 1
