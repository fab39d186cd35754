"""Optimal transport between places and prompts: marginals, the linear programme's cost, what underflow would break."""

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from common.nets import _transport
from common.nets._transport import plan


def cost(*shape: int) -> "torch.Tensor":
    return torch.from_numpy(np.random.default_rng(3).uniform(0.2, 1.2, shape).astype(np.float32))


@pytest.mark.parametrize("mass", [0.5, 0.8])
def test_marginals(mass: float) -> None:
    found = plan(cost(3, 4, 49, 2), mass, 0.1, 100)
    torch.testing.assert_close(found.sum(-2), torch.full((3, 4, 2), mass / 2), atol=1e-6, rtol=0)
    assert float(found.sum(-1).max()) <= 1 / 49 + 1e-5
    torch.testing.assert_close(found.sum((-1, -2)), torch.full((3, 4), mass), atol=1e-6, rtol=0)


def test_with_little_smoothing_the_cost_is_that_of_the_linear_programme() -> None:
    optimize = pytest.importorskip("scipy.optimize")
    c, mass = cost(12, 2), 0.8
    places = np.kron(np.eye(12), np.ones((1, 2)))
    prompts = np.kron(np.ones((1, 12)), np.eye(2))
    best = optimize.linprog(
        c.numpy().ravel(), A_ub=places, b_ub=np.full(12, 1 / 12), A_eq=prompts, b_eq=np.full(2, mass / 2)
    ).fun
    found = float((plan(c, mass, 0.005, 3000) * c).sum())
    assert best - 1e-5 <= found <= best + 0.01


def test_costs_that_underflow_as_exponentials_do_not_here() -> None:
    c = cost(49, 2) + 2  # exp(-2.2 / 0.01) is nought in float32
    found = plan(c, 0.8, 0.01, 100)
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found.sum(0), torch.full((2,), 0.4), atol=1e-5, rtol=0)


def test_a_constant_added_to_all_costs_changes_nothing() -> None:
    torch.testing.assert_close(
        plan(cost(49, 2) + 1, 0.8, 0.1, 100), plan(cost(49, 2), 0.8, 0.1, 100), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("iterations", [1, 7, 100])
def test_scalings_and_logarithms_give_the_same(iterations: int, monkeypatch: pytest.MonkeyPatch) -> None:
    c = 2 * cost(3, 4, 49, 2)
    by_scalings = plan(c, 0.8, 0.07, iterations)
    monkeypatch.setattr(_transport, "HELD", 0.0)
    torch.testing.assert_close(by_scalings, plan(c, 0.8, 0.07, iterations), atol=1e-6, rtol=1e-4)


def test_the_largest_cost_that_scalings_hold_keeps_its_marginals() -> None:
    """One place costs nothing and all others as much as is held: the extremes of K."""
    c = torch.full((49, 2), _transport.HELD * 0.05)
    c[0] = 0
    found = plan(c, 0.8, 0.05, 100)
    torch.testing.assert_close(found.sum(0), torch.full((2,), 0.4), atol=1e-6, rtol=0)


def test_problems_of_a_batch_do_not_see_each_other() -> None:
    c = cost(5, 3, 9, 2)
    torch.testing.assert_close(plan(c, 0.8, 0.1, 20)[4, 2], plan(c[4, 2], 0.8, 0.1, 20), atol=1e-7, rtol=0)


def test_the_plan_is_a_constant() -> None:
    c = cost(9, 2).requires_grad_(True)
    assert not plan(c, 0.8, 0.1, 5).requires_grad
