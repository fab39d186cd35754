"""Few labels: counts of the paper, stratified draws, what overlaps and what must not."""

import numpy as np
import pytest

from common import seeds
from common.label_split import few_labelled
from common.partition import parts
from common.run_sections import DataSection


def split(n, labels=None, **data):
    labels = np.arange(n) % 3 if labels is None else labels
    return few_labelled(DataSection(**data), labels, np.arange(n), seeds.generator(1))


@pytest.mark.parametrize(("n", "n_unlabelled", "n_labelled"), [(8189, 6142, 2047), (17_034, 12_776, 4258)])
@pytest.mark.parametrize("stratified", [True, False])
def test_counts_are_the_papers(n, n_unlabelled, n_labelled, stratified):
    train, test, unlabelled = split(n, split="transductive", stratified=stratified)
    assert (len(unlabelled), len(train)) == (n_unlabelled, n_labelled)
    assert np.array_equal(test, unlabelled)
    assert np.array_equal(np.sort(np.concatenate([train, unlabelled])), np.arange(n))


def test_inductive_parts_are_three_and_disjoint():
    train, test, unlabelled = split(100, split="inductive", labelled=0.25, test_fraction=0.15)
    assert (len(train), len(test), len(unlabelled)) == (25, 15, 60)
    assert len(np.unique(np.concatenate([train, test, unlabelled]))) == 100


def test_every_class_gives_its_share():
    labels = np.repeat([0, 1, 2], [40, 8, 5])  # a quarter of each: 10, 2, 1.25
    train, _, _ = split(53, labels, split="transductive")
    assert np.bincount(labels[train]).tolist() == [10, 2, 1]


def test_a_class_of_one_image_goes_to_one_side_only():
    train, test, _ = split(5, np.array([0, 1, 2, 3, 4]), split="transductive")
    assert len(train) + len(test) == 5


def test_agents_of_one_data_set_share_it_without_overlap():
    data = DataSection(split="transductive")
    found = parts(data, np.arange(60) % 3, 60, 2)
    assert [len(p.train) for p in found] == [8, 8]  # 30 each: round(22.5) is 22, without labels
    every = np.concatenate([np.concatenate([p.train, p.test]) for p in found])
    assert np.array_equal(np.sort(every), np.arange(60))
    assert all(np.array_equal(p.test, p.unlabelled) for p in found)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"labelled": 1.0}, r"labelled must be in \(0, 1\), got 1.0"),
        ({"split": "transductive", "shots": 5}, "shots go with split = 'supervised'"),
        ({"split": "inductive", "labelled": 0.5, "test_fraction": 0.5}, "leave samples without labels"),
    ],
)
def test_what_cannot_be_is_said(data, said):
    with pytest.raises(ValueError, match=said):
        DataSection(**data)
