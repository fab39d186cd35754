"""What a task loads: only what it asks for, each sample once, counted exactly."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray

from common.samples import ArraySource, Samples
from edge_client.data.agent_data import AgentData
from edge_client.data.loaded import LoadedSource, loaded

X = np.arange(40, dtype=np.uint8).reshape(10, 2, 2)


@dataclass(frozen=True, eq=False)
class CountingSource(ArraySource):
    """Notes which positions were read from it."""

    asked: list[int] = field(default_factory=list)

    def read(self, positions: NDArray[np.int64]) -> NDArray[np.generic]:
        self.asked.extend(positions.tolist())
        return super().read(positions)


@pytest.fixture
def source() -> CountingSource:
    return CountingSource(X, np.zeros(10, np.int64), "digest", (0.5,), (0.25,))


def test_each_sample_is_read_once_and_only_when_asked_for(source: CountingSource) -> None:
    found = LoadedSource(source, np.array([9, 2, 5, 4]))
    assert np.array_equal(found.read(np.array([5, 9])), X[[5, 9]])
    assert np.array_equal(found.read(np.array([9, 4, 5])), X[[9, 4, 5]])
    assert np.array_equal(found.read(np.array([5, 5])), X[[5, 5]])
    assert source.asked == [5, 9, 4]
    assert (found.digest, found.mean, found.std) == ("digest", (0.5,), (0.25,))


def test_samples_in_their_usual_order_are_not_copied_again(source: CountingSource) -> None:
    positions = np.array([9, 2, 5, 4])
    found = LoadedSource(source, positions)
    assert np.shares_memory(found.read(positions), found.read(positions[1:3]))
    with pytest.raises(ValueError, match="read-only"):
        found.read(positions)[0] = 1


def test_stretches_count_what_they_used_even_if_it_was_there_already(source: CountingSource) -> None:
    found = LoadedSource(source, np.arange(10))
    with found.touched() as whole:
        with found.touched() as first:
            found.read(np.array([0, 1]))
        with found.touched() as second:
            found.read(np.array([1, 2, 3]))
    assert (first.n, second.n, whole.n) == (2, 3, 4)
    assert (first.n_bytes, second.n_bytes, whole.n_bytes) == (8, 12, 16)


def test_an_agents_views_are_over_one_loaded_source(source: CountingSource) -> None:
    def view(*positions: int) -> Samples:
        return Samples(source, np.array(positions), np.zeros(len(positions), np.int64), 1)

    data, remembered = loaded(AgentData("d", ("x",), view(3, 4), view(7), view(8, 9).unlabelled()))
    assert {id(view.source) for view in (data.train, data.test, data.unlabelled)} == {id(remembered)}
    assert np.array_equal(data.unlabelled.read(), X[[8, 9]])
    assert np.array_equal(data.train.read(), X[[3, 4]])
    assert source.asked == [8, 9, 3, 4]
