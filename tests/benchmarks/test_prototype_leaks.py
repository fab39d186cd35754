import numpy as np

from benchmarks.prototype_leaks import measured


def test_means_of_single_images_give_them_away_until_noise_drowns_them() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 64)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    parts = [(x[i : i + 1], np.zeros(1, np.int64)) for i in range(40)]
    clear, drowned = measured(parts, (0.0, 30.0))
    assert (clear.found, clear.n_means) == (1.0, 40)
    assert clear.chance == 1 / 40
    assert drowned.found < 0.3
