"""Entropic optimal transport between few points in float32, over any batch of problems at once."""

import math

import torch

HELD = 40.0  # costs up to so many times the smoothing: products of two scalings and exp(-40) are within float32


def plan(cost: torch.Tensor, mass: float, smoothing: float, iterations: int) -> torch.Tensor:
    """The plan T of min <T, C> + smoothing * sum T log T, with T 1 <= 1/M and T^T 1 = mass/N, after so many scalings.

    Source: Li et al., FedOTP, CVPR 2024, eq. 5 and algorithm 2 (the scalings of Chizat et al., 2018, for one relaxed
        marginal): u = min(a / (K v), 1), v = b / (K^T u), T = diag(u) K diag(v), K = exp(-C / smoothing).
    Deviation: a fixed number of iterations where the paper's code stops at a threshold, so that every device does the
        same. Logarithms where float32 does not hold K and the scalings (at smoothing 0.01, say); elsewhere they give
        the same to 1e-6 and take ten times as long.

    Args:
        cost: (..., M, N), M places of an image against N prompts; taken as a constant.
        mass: in (0, 1]; the prompts' whole mass.
        smoothing: above 0.
        iterations: at least 1.
    """
    log_k = (-cost.detach().float() / smoothing).movedim(-1, 0).contiguous()  # (N, ..., M)
    n_prompts, n_places = log_k.shape[0], log_k.shape[-1]
    a, b = 1 / n_places, mass / n_prompts
    if float(log_k.min()) >= -HELD:
        return _by_scalings(log_k.exp(), a, b, iterations).movedim(0, -1)
    return _by_logarithms(log_k, math.log(a), math.log(b), iterations).movedim(0, -1)


def _by_scalings(k: torch.Tensor, a: float, b: float, iterations: int) -> torch.Tensor:
    v, product = torch.ones_like(k[..., :1]), torch.empty_like(k)
    for _ in range(iterations):
        u = torch.mul(k, v, out=product).sum(0).reciprocal_().mul_(a).clamp_(max=1)  # (..., M)
        v = b / torch.mul(k, u, out=product).sum(-1, keepdim=True)
    return u * k * v


def _by_logarithms(log_k: torch.Tensor, log_a: float, log_b: float, iterations: int) -> torch.Tensor:
    log_v = torch.zeros_like(log_k[..., :1])
    for _ in range(iterations):
        log_u = (log_a - (log_k + log_v).logsumexp(0)).clamp(max=0)
        log_v = log_b - (log_k + log_u).logsumexp(-1, keepdim=True)
    return (log_u + log_k + log_v).exp()
