"""Entropic optimal transport between few points, in the log domain, over any batch of problems at once."""

import math

import torch


def plan(cost: torch.Tensor, mass: float, smoothing: float, iterations: int) -> torch.Tensor:
    """The plan T of min <T, C> + smoothing * sum T log T, with T 1 <= 1/M and T^T 1 = mass/N, after so many scalings.

    Source: Li et al., FedOTP, CVPR 2024, eq. 5 and algorithm 2 (the scalings of Chizat et al., 2018, for one relaxed
        marginal): u = min(a / (K v), 1), v = b / (K^T u), T = diag(u) K diag(v), K = exp(-C / smoothing).
    Deviation: a fixed number of iterations where the paper's code stops at a threshold, so that every device does the
        same; logarithms, because K underflows in half precision at smoothing 0.01.

    Args:
        cost: (..., M, N), M places of an image against N prompts; taken as a constant.
        mass: in (0, 1]; the prompts' whole mass.
        smoothing: above 0.
        iterations: at least 1.
    """
    log_k = (-cost.detach().float() / smoothing).movedim(-1, 0)  # (N, ..., M): sums over M run over the last axis
    n_prompts, n_places = log_k.shape[0], log_k.shape[-1]
    log_a, log_b = -math.log(n_places), math.log(mass / n_prompts)
    log_v = torch.zeros_like(log_k[..., :1])
    for _ in range(iterations):
        log_u = (log_a - (log_k + log_v).logsumexp(0)).clamp(max=0)  # (..., M)
        log_v = log_b - (log_k + log_u).logsumexp(-1, keepdim=True)
    return (log_u + log_k + log_v).exp().movedim(0, -1)
