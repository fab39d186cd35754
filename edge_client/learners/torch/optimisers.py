"""SGD and AdamW over slices of one flat vector, in place; the same arithmetic as torch.optim's, in fewer calls."""

from collections.abc import Callable

import torch

from common.method import Training
from edge_client.learners.numpy.optimisers import BETAS, EPSILON

Step = Callable[[torch.Tensor, torch.Tensor], None]  # (weights, gradients): moves the weights, may spoil the gradients


def optimiser(training: Training, runs: list[slice]) -> Step:
    return _adamw(training, runs) if training.optimiser == "adamw" else _sgd(training, runs)


def _sgd(training: Training, runs: list[slice]) -> Step:
    """Heavy ball: v <- momentum v + g, w <- w - lr v; no dampening. Weight decay is added to g."""
    velocity: list[torch.Tensor] = []

    def step(weights: torch.Tensor, gradients: torch.Tensor) -> None:
        if training.momentum and not velocity:
            velocity.extend(torch.zeros_like(weights[run]) for run in runs)
        for i, run in enumerate(runs):
            w, g = weights[run], gradients[run]
            if training.weight_decay:
                g.add_(w, alpha=training.weight_decay)
            if training.momentum:
                v = velocity[i].mul_(training.momentum).add_(g)
                g = g.add_(v, alpha=training.momentum) if training.nesterov else v
            w.add_(g, alpha=-training.lr)

    return step


def _adamw(training: Training, runs: list[slice]) -> Step:
    """Source: Loshchilov and Hutter, ICLR 2019, algorithm 2; betas 0.9 and 0.999, epsilon 1e-8."""
    moments: list[tuple[torch.Tensor, torch.Tensor]] = []
    n_steps = 0

    def step(weights: torch.Tensor, gradients: torch.Tensor) -> None:
        nonlocal n_steps
        n_steps += 1
        if not moments:
            moments.extend((torch.zeros_like(weights[run]), torch.zeros_like(weights[run])) for run in runs)
        scale, correction = training.lr / (1 - BETAS[0] ** n_steps), (1 - BETAS[1] ** n_steps) ** 0.5
        for run, (m, v) in zip(runs, moments, strict=True):
            w, g = weights[run], gradients[run]
            w.mul_(1 - training.lr * training.weight_decay)
            m.lerp_(g, 1 - BETAS[0])
            v.mul_(BETAS[1]).addcmul_(g, g, value=1 - BETAS[1])
            w.addcdiv_(m, v.sqrt().div_(correction).add_(EPSILON), value=-scale)

    return step
