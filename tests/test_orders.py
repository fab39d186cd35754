import numpy as np
import pytest

from common import orders
from common.method import Training


def sizes(n: int, training: Training, *, has_batch_norm: bool = False) -> list[tuple[int, int]]:
    found = orders.batches(n, training, np.random.default_rng(0), has_batch_norm=has_batch_norm)
    return [(epoch, len(which)) for epoch, which in found]


def test_every_epoch_is_one_permutation_of_the_generator() -> None:
    rng = np.random.default_rng(3)
    expected = [rng.permutation(10) for _ in range(2)]
    after = rng.random()
    rng = np.random.default_rng(3)
    found = list(orders.batches(10, Training(batch=4, epochs=2), rng))
    assert [epoch for epoch, _ in found] == [0, 0, 0, 1, 1, 1]
    np.testing.assert_array_equal(np.concatenate([which for _, which in found]), np.concatenate(expected))
    assert rng.random() == after  # nothing else was drawn


@pytest.mark.parametrize(
    ("n", "batch", "batch_norm", "expected"),
    [
        (7, 3, False, [3, 3]),  # a lone last sample is left out
        (8, 3, False, [3, 3, 2]),
        (3, 1, False, [1, 1, 1]),  # with batch = 1 nothing is
        (1, 3, False, [1]),  # nor when it is all there is
        (1, 3, True, []),  # unless batch norm could not use it
        (0, 3, False, []),
    ],
)
def test_the_last_batch_is_kept_unless_it_is_one_sample(
    n: int, batch: int, batch_norm: bool, expected: list[int]
) -> None:
    assert [size for _, size in sizes(n, Training(batch=batch), has_batch_norm=batch_norm)] == expected


@pytest.mark.parametrize(("steps", "n_steps"), [(None, 9), (0, 0), (4, 4), (9, 9), (100, 9)])
def test_steps_end_training_before_epochs_do(steps: int | None, n_steps: int) -> None:
    assert len(sizes(9, Training(batch=3, epochs=3, steps=steps))) == n_steps
