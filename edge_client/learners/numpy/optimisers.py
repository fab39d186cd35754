"""SGD and AdamW over slices of one flat vector, in place. State lives as long as one training."""

from collections.abc import Callable

import numpy as np

from common.method import Training
from edge_client.learners.layout import Flat

Step = Callable[[Flat, Flat], None]  # (weights, gradients): moves the weights, may spoil the gradients
BETAS = (0.9, 0.999)
EPSILON = 1e-8


def optimiser(training: Training, runs: list[slice]) -> Step:
    return _adamw(training, runs) if training.optimiser == "adamw" else _sgd(training, runs)


def _sgd(training: Training, runs: list[slice]) -> Step:
    """Heavy ball: v <- momentum v + g, w <- w - lr v; no dampening. Weight decay is added to g, as in torch."""
    lr, momentum, decay = np.float32(training.lr), np.float32(training.momentum), np.float32(training.weight_decay)
    velocity = [np.zeros(run.stop - run.start, np.float32) for run in runs] if momentum else []

    def step(weights: Flat, gradients: Flat) -> None:
        for i, run in enumerate(runs):
            w, g = weights[run], gradients[run]
            if decay:
                g += decay * w
            if momentum:
                v = velocity[i]
                v *= momentum
                v += g
                w -= lr * (g + momentum * v) if training.nesterov else lr * v
            else:
                w -= lr * g

    return step


def _adamw(training: Training, runs: list[slice]) -> Step:
    """Source: Loshchilov and Hutter, ICLR 2019, algorithm 2; betas 0.9 and 0.999, epsilon 1e-8, as in torch."""
    first = [np.zeros(run.stop - run.start, np.float32) for run in runs]
    second = [np.zeros_like(m) for m in first]
    n_steps = 0

    def step(weights: Flat, gradients: Flat) -> None:
        nonlocal n_steps
        n_steps += 1
        scale = np.float32(training.lr / (1 - BETAS[0] ** n_steps))
        correction = np.float32(np.sqrt(1 - BETAS[1] ** n_steps))
        for run, m, v in zip(runs, first, second, strict=True):
            w, g = weights[run], gradients[run]
            w *= np.float32(1 - training.lr * training.weight_decay)
            m += np.float32(1 - BETAS[0]) * (g - m)
            v *= np.float32(BETAS[1])
            v += np.float32(1 - BETAS[1]) * g * g
            w -= scale * m / (np.sqrt(v) / correction + np.float32(EPSILON))

    return step
