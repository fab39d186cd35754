"""Class means by hand."""

from typing import Any

import numpy as np
import pytest

from common import prototypes
from common.errors import ConfigError, RemoteFault
from common.method import ModelSpec, RunSpec, Training
from common.payloads import Prototypes
from common.prototypes import Known, Merging, Privacy, blended, class_means, nearest

RNG = np.random.default_rng(0)


def sent(ids: list[int], counts: list[int], *vectors: tuple[float, float]) -> Prototypes:
    return Prototypes(np.array(ids), np.array(counts), np.array(vectors, np.float32))


def test_means_by_hand_and_an_absent_class_is_absent() -> None:
    z = np.array([[1, 0], [3, 0], [0, 4]], np.float32)
    found = class_means(z, np.array([0, 0, 2]), Privacy(), RNG)
    assert found is not None
    assert found.class_ids.tolist() == [0, 2]
    assert found.counts.tolist() == [2, 1]
    np.testing.assert_array_equal(found.vectors, [[2, 0], [0, 4]])


def test_too_few_samples_are_held_back_and_nothing_left_is_none() -> None:
    z, y = np.ones((3, 2), np.float32), np.array([0, 0, 1])
    found = class_means(z, y, Privacy(min_count=2), RNG)
    assert found is not None
    assert found.class_ids.tolist() == [0]
    assert class_means(z, y, Privacy(min_count=3), RNG) is None


def test_clip_bounds_the_norm_and_noise_has_its_size() -> None:
    z, y = np.full((4, 2000), 3.0, np.float32), np.zeros(4, int)
    clipped = class_means(z, y, Privacy(clip=0.5), RNG)
    assert clipped is not None
    assert np.linalg.norm(clipped.vectors) == pytest.approx(0.5, rel=1e-5)
    noisy = class_means(z, y, Privacy(noise=0.1), np.random.default_rng(1))
    assert noisy is not None
    assert (noisy.vectors - 3).std() == pytest.approx(0.1, rel=0.1)


def test_weighted_and_uniform_means_by_hand() -> None:
    for weighting, expected in (("weighted", 5.0), ("uniform", 4.0)):
        merging = Merging(2, 4, weighting)  # type: ignore[arg-type]
        merging.add("a", sent([1], [1], (2, 0)))
        merging.add("b", sent([1], [3], (6, 0)))
        merging.add("c", None)
        known = merging.merged(Known()).prototypes
        assert known is not None
        assert known.vectors.tolist() == [[expected, 0.0]]
        assert known.counts.tolist() == [4]


def test_counts_that_add_up_to_more_than_a_number_holds() -> None:
    merging = Merging(2, 4)
    merging.add("a", sent([1], [2**63 - 1], (2, 0)))
    merging.add("b", sent([1], [2**63 - 1], (6, 0)))
    known = merging.merged(Known()).prototypes
    assert known is not None
    assert known.counts.tolist() == [2**63 - 1]
    assert known.vectors.tolist() == [[4.0, 0.0]]


def test_vectors_of_another_type_would_overflow_and_are_refused() -> None:
    with pytest.raises(RemoteFault, match="agent a: prototypes must be of float32, got float64"):
        Merging(1, 4).add("a", Prototypes(np.array([0]), np.array([1]), np.array([[1e300]])))


@pytest.mark.parametrize(
    ("head", "options", "text"),
    [
        ("agent", {}, "compares classes across agents"),
        ("run", {"features": "dense"}, "features = 'global', not 'dense'"),
    ],
)
def test_runs_whose_means_would_not_be_alike(head: Any, options: dict[str, str], text: str) -> None:
    run = RunSpec("r", "fedproto", None, ModelSpec("prompted", options), Training(), 1, 1, head=head)
    with pytest.raises(ConfigError, match=text):
        prototypes.check_run(run)


def test_unit_means_have_length_one() -> None:
    merging = Merging(2, None)
    merging.add("a", sent([0], [1], (1, 0)))
    merging.add("b", sent([0], [1], (0, 1)))
    known = merging.merged(Known(), unit=True).prototypes
    assert known is not None
    np.testing.assert_allclose(known.vectors, [[0.5**0.5, 0.5**0.5]], rtol=1e-6)


def test_the_nearest_mean_by_hand() -> None:
    known = sent([0, 2], [1, 1], (1, 0), (0, 1))
    scores = nearest(np.array([[1, 0], [0, 1]], np.float32), known, 3, scale=10)
    np.testing.assert_allclose(scores[:, [0, 2]], [[10, 0], [0, 10]], atol=1e-6)
    assert (scores[:, 1] == scores[:, [0, 2]].min(1) - 10).all()
    assert not nearest(np.ones((2, 2), np.float32), None, 3).any()


def test_a_blend_by_hand() -> None:
    known = sent([0], [1], (1, 0))
    mixed = blended(np.array([[1.0, 2.0]]), np.array([[3.0, -9.0]]), known, 0.25)
    assert mixed.tolist() == [[1.5, 2.0]]
