"""Votes by hand: cosines 1 and 0 to two neighbours at temperature 1 weigh 1 and 1/e."""

import numpy as np
import pytest

from common import knn

BANK = np.array([[1, 0], [0, 2], [-1, 0]], np.float32)
LABELS = np.array([0, 1, 2])


def test_votes_by_hand():
    found = knn.scores(np.array([[5.0, 0]]), BANK, LABELS, 4, k=2, temperature=1.0)
    e = np.exp(-1)
    assert found[0] == pytest.approx([1 / (1 + e), e / (1 + e), 0, 0], abs=1e-6)


def test_more_neighbours_than_there_are():
    found = knn.scores(np.array([[1.0, 0]]), BANK, LABELS, 3, k=200, temperature=1.0)
    assert found.argmax() == 0
    assert found.sum() == pytest.approx(1)


def test_an_empty_bank_says_nothing():
    assert not knn.scores(np.ones((2, 2)), BANK[:0], LABELS[:0], 3).any()


def test_many_queries_go_in_parts_and_scale_plays_no_role():
    queries = np.random.default_rng(0).standard_normal((1100, 2))
    found = knn.scores(queries, BANK, LABELS, 3, k=1)
    assert np.array_equal(found, knn.scores(queries * 7, BANK * 0.1, LABELS, 3, k=1))
    unit = BANK / np.linalg.norm(BANK, axis=1, keepdims=True)
    assert np.array_equal(found.argmax(1), (queries @ unit.T).argmax(1))
