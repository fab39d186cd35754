"""NT-Xent has closed forms: all vectors equal gives ln(2n - 1); perfect pairs orthogonal to the rest give
ln(1 + (2n - 2) exp(-1 / t))."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

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
    with pytest.raises(ValueError, match="at least two images"):
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
    with pytest.raises(ValueError, match="both views are identical"):
        simclr.views(flat, noise(), simclr.Options(strength=0.0, hue=0.0))


def test_images_that_were_normalised_before_are_refused():
    with pytest.raises(ValueError, match=r"values in \[0, 1\]"):
        simclr.views(images() - 0.5, noise(), simclr.Options())


def test_crops_show_parts_of_the_image_and_mirror_half_of_them():
    ramp = torch.linspace(0, 1, 32).expand(400, 3, 32, 32)  # grows to the right
    out = _augment.crop_and_flip(ramp, 0.2, noise())
    slope = out[:, 0, 16, -1] - out[:, 0, 16, 0]
    assert 150 < int((slope < 0).sum()) < 250
    assert slope.abs().min() > 0.2  # a crop of a fifth of the area spans at least 0.39 of the width


def test_jitter_without_strength_changes_nothing():
    x = images()
    torch.testing.assert_close(_augment.jitter(x, 0.0, 0.0, noise()), x, atol=1e-5, rtol=0)


def test_a_full_turn_of_hue_keeps_the_luma():
    x = images() * 0.2 + 0.4  # far from the borders, where clamping would change it
    turned = _augment._turned(x, torch.full((len(x),), 1.3))
    torch.testing.assert_close(_augment.grey(turned), _augment.grey(x), atol=1e-3, rtol=0)
    assert not torch.allclose(turned, x, atol=1e-2)


def test_blur_keeps_a_flat_image_and_smooths_a_point():
    flat = torch.full((3, 3, 32, 32), 0.3)
    torch.testing.assert_close(_augment.some_blurred(flat, 1.0, noise()), flat)
    point = torch.zeros(3, 3, 32, 32)
    point[:, :, 16, 16] = 1
    assert _augment.some_blurred(point, 1.0, noise())[:, :, 16, 16].max() < 1
