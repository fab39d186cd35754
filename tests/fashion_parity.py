"""A fixed federated run on Fashion-MNIST (Dirichlet 0.1, 100 agents) with known results, from the folder EDGEFED_DATA.

Given are the split, the first weights, the participants, and the batch orders of two rounds; the results are those of
another implementation: correct predictions of the participants, and how far each tensor has moved.
"""

import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from common.method import Training
from common.payloads import Array, Weights
from common.samples import ArraySource, Samples, view

TRAINING = Training(lr=0.01, momentum=0.7, batch=32, epochs=5)
N_ROUNDS = 2


class GivenOrders(np.random.Generator):
    """Stands where the generator stands: a learner asks it for one permutation an epoch, and for nothing else.

    With `backwards` each batch has its images in the opposite order: the same sums, rounded differently.
    """

    def __init__(self, orders: Iterator[Array], *, backwards: bool = False) -> None:
        super().__init__(np.random.PCG64(0))
        self._orders = orders
        self.backwards = backwards

    def permutation(self, n: int) -> Array:  # type: ignore[override]
        order = next(self._orders).astype(np.int64)
        assert len(order) == n
        if self.backwards:
            return np.concatenate([order[i : i + TRAINING.batch][::-1] for i in range(0, n, TRAINING.batch)])
        return order


class Given:
    """What is given."""

    def __init__(self, root: Path) -> None:
        folder = root / "parity/fedobp"
        self.participants: list[list[int]] = json.loads((folder / "sampling.json").read_text())
        self._split = np.load(folder / "partition_fashion_mnist_dir0.1_100.npz")
        self._orders = np.load(folder / "orders_rounds_1_2.npz")
        with np.load(folder / "init_fedavgcnn.npz") as stored:
            self.first = Weights({name: stored[name] for name in stored.files})
        raw = root / "FashionMNIST" / "raw"
        x = [_idx(raw / f"{part}-images-idx3-ubyte", 16).reshape(-1, 28, 28, 1) for part in ("train", "t10k")]
        y = [_idx(raw / f"{part}-labels-idx1-ubyte", 8) for part in ("train", "t10k")]
        source = ArraySource(np.concatenate(x), np.concatenate(y).astype(np.int64), mean=(0.286,), std=(0.3205,))
        self._pooled = view(source, 10)

    def train(self, agent: int) -> Samples:
        return self._pooled.take(self._split[f"train_{agent}"])

    def test(self, agent: int) -> Samples:
        return self._pooled.take(self._split[f"test_{agent}"])

    def orders(self, round_number: int, agent: int, *, backwards: bool = False) -> GivenOrders:
        names = (f"r{round_number}_c{agent}_e{epoch}" for epoch in range(TRAINING.epochs))
        return GivenOrders((self._orders[name] for name in names), backwards=backwards)


def moved(weights: Weights, first: Weights) -> list[float]:
    """||weights - first|| of each tensor."""
    return [float(np.linalg.norm(np.subtract(weights[name], first[name], dtype=np.float64))) for name in first]


def opened() -> Given:
    """The folder's content; the test is skipped where there is none."""
    root = os.environ.get("EDGEFED_DATA")
    if root is None:
        pytest.skip("EDGEFED_DATA is not set")
    for needed in ("parity/fedobp/orders_rounds_1_2.npz", "FashionMNIST/raw"):
        if not (Path(root) / needed).exists():
            pytest.skip(f"{needed} is not in EDGEFED_DATA ({root})")
    return Given(Path(root))


def _idx(path: Path, header: int) -> Array:
    packed = path.with_suffix(path.suffix + ".gz")
    raw = gzip.decompress(packed.read_bytes()) if packed.exists() else path.read_bytes()
    return np.frombuffer(raw, np.uint8, offset=header)
