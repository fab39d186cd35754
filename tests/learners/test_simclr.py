"""NT-Xent has closed forms: all vectors equal gives ln(2n - 1); perfect pairs orthogonal to the rest give
ln(1 + (2n - 2) exp(-1 / t))."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from common.errors import ConfigError  # noqa: E402 - torch first
from common.objectives import _augment, simclr  # noqa: E402 - torch first


def noise(seed=0):
    return torch.Generator().manual_seed(seed)


def images(n=6, size=16):
    return torch.rand(n, 3, size, size, generator=noise(9))


@pytest.mark.parametrize("n", [2, 3, 8])
@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_equal_vectors_give_the_log_of_all_candidates(n, temperature):
    z = torch.ones(n, 4)
    assert simclr.nt_xent(z, z, temperature).item() == pytest.approx(math.log(2 * n - 1), abs=1e-5)


@pytest.mark.parametrize("n", [2, 5])
@pytest.mark.parametrize("temperature", [0.2, 0.5])
def test_perfect_pairs_orthogonal_to_the_rest(n, temperature):
    z = torch.eye(n)
    expected = math.log(1 + (2 * n - 2) * math.exp(-1 / temperature))
    assert simclr.nt_xent(z, 3 * z, temperature).item() == pytest.approx(expected, abs=1e-5)


def slow_nt_xent(first, second, temperature):
    z = np.concatenate([first, second]).astype(np.float64)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    n, total = len(first), 0.0
    for i in range(2 * n):
        exps = [math.exp(z[i] @ z[j] / temperature) for j in range(2 * n) if j != i]
        total -= math.log(math.exp(z[i] @ z[(i + n) % (2 * n)] / temperature) / sum(exps))
    return total / (2 * n)


@pytest.mark.parametrize(("n", "dim"), [(2, 1), (2, 8), (7, 3)])
def test_loss_equals_the_sum_written_out_and_is_symmetric_and_free_of_scale(n, dim):
    first, second = torch.randn(n, dim, generator=noise(1)), torch.randn(n, dim, generator=noise(2))
    loss = simclr.nt_xent(first, second, 0.5).item()
    assert loss == pytest.approx(slow_nt_xent(first.numpy(), second.numpy(), 0.5), abs=1e-5)
    assert loss == pytest.approx(simclr.nt_xent(second, first, 0.5).item(), abs=1e-5)
    assert loss == pytest.approx(simclr.nt_xent(first * 7, second * 0.1, 0.5).item(), abs=1e-5)


def test_one_image_has_no_negatives():
    with pytest.raises(ValueError, match="at least two images"):
        simclr.nt_xent(torch.ones(1, 4), torch.ones(1, 4), 0.5)
    with pytest.raises(ConfigError, match="at least two images"):
        simclr.views(images(1), noise(), simclr.Options())


def test_the_two_views_differ_and_repeat_with_the_seed():
    first, second = simclr.views(images(), noise(3), simclr.Options(blur_share=0.5))
    assert not torch.equal(first, second)
    again, _ = simclr.views(images(), noise(3), simclr.Options(blur_share=0.5))
    assert torch.equal(first, again)
    assert first.shape == images().shape
    assert first.min() >= 0
    assert first.max() <= 1


def test_identical_views_are_an_error_not_a_fast_loss():
    flat = torch.full((4, 3, 8, 8), 0.5)
    with pytest.raises(ConfigError, match="both views are identical"):
        simclr.views(flat, noise(), simclr.Options(strength=0.0, hue=0.0))


def test_images_that_were_normalised_before_are_refused():
    with pytest.raises(ConfigError, match=r"values in \[0, 1\]"):
        simclr.views(images() - 0.5, noise(), simclr.Options())


def test_crops_show_parts_of_the_image_and_mirror_half_of_them():
    ramp = torch.linspace(0, 1, 32).expand(400, 3, 32, 32)  # grows to the right
    out = _augment.crop_and_flip(ramp, 0.2, noise())
    slope = out[:, 0, 16, -1] - out[:, 0, 16, 0]
    assert 150 < int((slope < 0).sum()) < 250
    assert slope.abs().min() > 0.2  # a crop of a fifth of the area spans at least 0.39 of the width


def test_crops_are_those_of_an_affine_map_whatever_the_order_in_memory():
    x, draws = images(8), noise(4)
    area, log_ratio = _augment.uniform(8, 0.3, 1.0, draws, x.device), math.log(4 / 3)
    ratio = torch.exp(_augment.uniform(8, -log_ratio, log_ratio, draws, x.device))
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    x0, y0 = (_augment.uniform(8, -1, 1, draws, x.device) * (1 - side) for side in (width, height))
    sign = torch.where(_augment.uniform(8, 0, 1, draws, x.device) < 0.5, -1.0, 1.0)
    zero = torch.zeros(8)
    theta = torch.stack([torch.stack([width * sign, zero, x0], 1), torch.stack([zero, height, y0], 1)], 1)
    grid = torch.nn.functional.affine_grid(theta, list(x.shape), align_corners=False)
    expected = torch.nn.functional.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
    out = _augment.crop_and_flip(x.contiguous(memory_format=torch.channels_last), 0.3, noise(4))
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=0)
    assert out.is_contiguous()


def test_no_strength_changes_no_colour():
    x = images()
    torch.testing.assert_close(_augment.recoloured(x, 0.0, 0.0, 0.0, noise()), x, atol=1e-5, rtol=0)


def test_grey_alone_is_the_luma_in_all_channels():
    x = images(400)
    out = _augment.recoloured(x, 0.0, 0.0, 0.3, noise())
    luma = (x * torch.tensor(_augment.LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True).expand_as(x)
    is_grey = (out - luma).abs().amax((1, 2, 3)) < 1e-5
    assert 80 < int(is_grey.sum()) < 160
    torch.testing.assert_close(out[~is_grey], x[~is_grey], atol=1e-5, rtol=0)


def stepwise(x, strength, hue, seed):
    """Brightness, contrast, saturation, then hue, one after the other, with the same draws."""
    draws, n, reach = noise(seed), len(x), 0.8 * strength
    brightness, contrast, saturation = (
        _augment.uniform(n, 1 - reach, 1 + reach, draws, x.device).view(n, 1, 1, 1) for _ in range(3)
    )
    angle = _augment.uniform(n, -hue, hue, draws, x.device) * 2 * math.pi
    changed = _augment.uniform(n, 0, 1, draws, x.device) < 0.8

    def luma(y):
        return (y * torch.tensor(_augment.LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)

    y = x * brightness
    mean = luma(y).mean((1, 2, 3), keepdim=True)
    y = mean + (y - mean) * contrast
    y = luma(y) + (y - luma(y)) * saturation
    y = torch.einsum("nij,njhw->nihw", _augment.hue_turn(angle), y)
    return torch.where(changed.view(n, 1, 1, 1), y, x)


def test_colour_in_one_step_equals_its_four_steps():
    x = images(20) * 0.2 + 0.4  # far from 0 and 1, so that nothing is cut
    out = _augment.recoloured(x, 0.3, 0.1, 0.0, noise(5))
    torch.testing.assert_close(out, stepwise(x, 0.3, 0.1, 5), atol=1e-5, rtol=0)
    assert (out - x).abs().max() > 0.05


def test_a_turn_of_hue_keeps_the_luma_and_what_is_grey():
    turn, luma = _augment.hue_turn(torch.tensor([1.3, -0.4])), torch.tensor(_augment.LUMA)
    torch.testing.assert_close(luma @ turn, luma.expand(2, 3), atol=1e-3, rtol=0)
    torch.testing.assert_close(turn @ torch.ones(3), torch.ones(2, 3), atol=1e-3, rtol=0)
    assert (turn - torch.eye(3)).abs().amax((1, 2)).min() > 0.1


def test_blur_keeps_a_flat_image_and_smooths_a_point():
    flat = torch.full((3, 3, 32, 32), 0.3)
    torch.testing.assert_close(_augment.some_blurred(flat, 1.0, noise()), flat)
    point = torch.zeros(3, 3, 32, 32)
    point[:, :, 16, 16] = 1
    assert _augment.some_blurred(point, 1.0, noise())[:, :, 16, 16].max() < 1
