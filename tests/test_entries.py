import numpy as np
import pytest

from common import entries
from common.errors import LocalFault, RemoteFault
from common.payloads import Mask, Sparse, SparseEntries, Weights

BASE = Weights({"a": np.zeros((2, 2), np.float32), "b": np.zeros(3, np.float32)})
OWN = Weights({"a": np.array([[1, 2], [3, 4]], np.float32), "b": np.array([5, 6, 7], np.float32)})
BITS = {"a": np.array([[False, True], [True, False]]), "b": np.zeros(3, bool)}


def test_both_forms_by_hand() -> None:
    given = entries.as_values(OWN, BITS)
    assert list(given.tensors) == ["a"]
    assert given.tensors["a"].indices.tolist() == [1, 2]
    assert given.tensors["a"].values.tolist() == [2, 3]
    assert list(entries.as_mask(BITS).bits) == ["a"]
    for form in (given, entries.as_mask(BITS)):
        start = entries.put_back(BASE, form, OWN)
        assert start["a"].tolist() == [[0, 2], [3, 0]]
        assert start["b"].tolist() == [0, 0, 0]
        assert (entries.bits_of(form)["a"] == BITS["a"]).all()
    assert BASE["a"].tolist() == [[0, 0], [0, 0]]


def test_the_bytes_of_both_forms() -> None:
    assert entries.mask_bytes(BITS) == 1  # tensor b has none
    assert entries.values_bytes(BITS, "float32") == 16
    assert entries.values_bytes(BITS, "float16") == 12


def test_nothing_chosen_is_the_base_itself() -> None:
    assert entries.put_back(BASE, None, OWN) is BASE
    assert entries.bits_of(None) == {}


def test_what_is_reported() -> None:
    report = dict(entries.report(entries.as_values(OWN, BITS), BITS, "float32"))
    assert report == {"personal": 2, "personal a": 2, "personal b": 0, "personal as values (bytes)": 16}
    assert dict(entries.report(entries.as_mask(BITS), BITS, "float32"))["personal as bits (bytes)"] == 1


def test_places_without_anything_held_are_refused() -> None:
    with pytest.raises(LocalFault, match="this agent holds no model to take them from"):
        entries.put_back(BASE, entries.as_mask(BITS), None)


@pytest.mark.parametrize(
    "given",
    [
        Mask({"a": np.ones(4, bool)}),
        Sparse({"a": SparseEntries((4,), np.array([0]), np.array([1], np.float32))}),
    ],
)
def test_entries_of_another_model_are_refused(given: Mask | Sparse) -> None:
    with pytest.raises(
        RemoteFault, match=r"tensor 'a': the entries chosen do not fit, expected shape \[4\], got \[2, 2\]"
    ):
        entries.put_back(BASE, given, OWN)


def test_a_scalar_tensor_has_one_entry() -> None:
    base, own = Weights({"s": np.array(0, np.float32)}), Weights({"s": np.array(3, np.float32)})
    bits = {"s": np.array(True)}
    assert entries.put_back(base, entries.as_values(own, bits), None)["s"] == 3
    assert entries.put_back(base, entries.as_mask(bits), own)["s"] == 3
