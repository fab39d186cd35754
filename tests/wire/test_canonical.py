"""Round trips: every element type, shape and encoding; views instead of copies; nothing read that is not asked for."""

import mmap
import struct
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from common import pb
from common.encoding import as_received
from common.errors import LocalFault
from common.payloads import Blob, Encoding, Mask, Prompt, Prototypes, Sparse, SparseEntries, Weights
from common.wire import canonical
from tests.wire.examples import PAYLOADS, arrays_of, assert_same, canonical_bytes, ref_of

DTYPES = ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "?"]
SHAPES = [(), (0,), (1,), (3, 0, 2), (7,), (3, 5), (2, 3, 4, 1)]


def returned(payload: canonical.Sendable, encoding: Encoding = "exact") -> canonical.Sendable:
    return canonical.decode(canonical_bytes(payload, encoding))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_and_shape_comes_back_bit_for_bit(dtype: str, shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(1).integers(0, 2 if dtype == "?" else 100, shape)
    weights = Weights({"w": np.asarray(values, dtype)})
    assert_same(returned(weights), weights)


@pytest.mark.parametrize("encoding", ["exact", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("kind", PAYLOADS)
def test_a_payload_comes_back_as_the_encoding_says(kind: str, encoding: Encoding) -> None:
    payload = PAYLOADS[kind]
    if isinstance(payload, canonical.Expert):
        expected: canonical.Sendable = canonical.Expert(payload.node, as_received(payload.weights, encoding))
    else:
        expected = as_received(payload, encoding)
    assert_same(returned(payload, encoding), expected)


def test_bfloat16_rounds_to_nearest_even_and_keeps_the_special_values() -> None:
    bits = np.array([0x3F808000, 0x3F818000, 0x3F808001, 0x7F800000, 0xFF800000, 0x80000000], np.uint32)
    got = returned(Weights({"w": np.append(bits.view("f4"), np.float32("nan"))}), "bfloat16")
    assert isinstance(got, Weights)
    expected = [0x3F800000, 0x3F820000, 0x3F810000, 0x7F800000, 0xFF800000, 0x80000000]
    assert got["w"][:6].copy().view("u4").tolist() == expected
    assert np.isnan(got["w"][6])


def test_only_float32_is_narrowed() -> None:
    got = returned(Weights({"d": np.array([1 / 3]), "h": np.array([1 / 3], "f2"), "i": np.array([70000])}), "float16")
    assert isinstance(got, Weights)
    assert got["d"] == 1 / 3
    assert got["i"] == 70000


def test_what_was_narrowed_and_sent_again_has_the_same_bytes() -> None:
    weights = Weights({"w": np.random.default_rng(1).normal(size=100).astype("f4")})
    for encoding in ("float16", "bfloat16"):
        sent = canonical_bytes(weights, encoding)
        assert canonical_bytes(canonical.decode(sent), encoding) == sent


def test_a_payload_remembers_where_it_came_from() -> None:
    for payload in PAYLOADS.values():
        data = canonical_bytes(payload)
        got = canonical.decode(data)
        origin = got.weights.origin if isinstance(got, canonical.Expert) else got.origin
        assert origin is not None
        assert (origin.sha256, origin.size, origin.encoding) == (ref_of(data).sha256, len(data), "exact")
        assert origin.node == (got.node if isinstance(got, canonical.Expert) else None)


def test_the_encoding_of_the_bytes_is_remembered() -> None:
    weights = Weights({"w": np.ones(3, "f4"), "d": np.ones(3)})
    for encoding in ("float16", "bfloat16"):
        got = returned(weights, encoding)
        assert isinstance(got, Weights)
        assert got.origin is not None
        assert got.origin.encoding == encoding


def test_arrays_are_read_only_views_of_the_buffer_at_multiples_of_64() -> None:
    data = canonical_bytes(Weights({"a": np.arange(5, dtype="f4"), "b": np.arange(9.0)}))
    whole = np.frombuffer(data, np.uint8)
    got = canonical.decode(data)
    for array in arrays_of(got):
        assert np.shares_memory(array, whole)
        assert (array.ctypes.data - whole.ctypes.data) % 64 == 0
    for payload in PAYLOADS.values():
        for encoding in ("exact", "bfloat16"):
            assert not any(array.flags.writeable for array in arrays_of(returned(payload, encoding)))


def test_encoding_copies_nothing_that_lies_as_it_travels() -> None:
    array = np.arange(1000, dtype="f4")
    pieces = [np.frombuffer(piece, np.uint8) for piece in canonical.encode(Weights({"w": array}))]
    assert any(np.shares_memory(piece, array) for piece in pieces)


def test_arrays_in_another_order_of_memory_or_bytes_are_the_same_payload() -> None:
    array = np.arange(12, dtype="f4").reshape(3, 4)
    expected = canonical_bytes(Weights({"w": array}))
    for other in (np.asfortranarray(array), array.astype(">f4"), np.tile(array, (2, 2))[:3, :4], array[::-1][::-1]):
        assert canonical_bytes(Weights({"w": other})) == expected


def test_decoding_a_mapped_file_reads_nothing_but_its_structure(tmp_path: Path) -> None:
    """8 GB that were never written: reading them would take seconds, and as much memory."""
    n = 1_000_000_000
    described = pb.Array(shape=[n], dtype=pb.FLOAT64, wire=pb.FLOAT64)
    structure = pb.Payload(weights=pb.Weights(arrays=[pb.NamedArray(name="w", array=described)])).SerializeToString()
    head = canonical.MAGIC + struct.pack("<Q", len(structure)) + structure
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.write(head + bytes(-len(head) % 64))
        file.truncate(64 + 8 * n)
    before, started = psutil.Process().memory_info().rss, time.perf_counter()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        got = canonical.decode(mapped, sha256=bytes(32))
        assert isinstance(got, Weights)
        assert got["w"].shape == (n,)
        assert got["w"][n - 1] == 0
        del got
    assert time.perf_counter() - started < 10
    assert psutil.Process().memory_info().rss - before < 32 << 20


def test_indices_travel_short_when_every_one_fits() -> None:
    small = Sparse({"w": SparseEntries((2**31,), np.array([2**31 - 1]), np.array([1], "i1"))})
    large = Sparse({"w": SparseEntries((2**31 + 1,), np.array([2**31]), np.array([1], "i1"))})
    assert canonical_bytes(small)[64:72] == struct.pack("<iI", 2**31 - 1, 0)
    assert canonical_bytes(large)[64:72] == struct.pack("<q", 2**31)
    for payload in (small, large):
        assert_same(returned(payload), payload)


@pytest.mark.parametrize(
    "array", [np.array(["text"]), np.array([1j]), np.array([1], "u4"), np.array([None])], ids=lambda a: str(a.dtype)
)
def test_an_element_type_that_cannot_travel_is_named(array: np.ndarray) -> None:
    with pytest.raises(LocalFault, match=r"array 'w' cannot be sent: expected a dtype of bool, .*got "):
        canonical_bytes(Weights({"w": array}))


def test_a_structure_that_fits_in_no_part_is_refused_before_it_is_sent() -> None:
    many = Weights({f"{i:0100}": np.zeros((), "f4") for i in range(10_000)})
    with pytest.raises(LocalFault, match="structure, which must fit in one part: expected at most 1048512"):
        canonical_bytes(many)


@pytest.mark.parametrize(
    ("payload", "sentence"),
    [
        (
            Prompt(np.zeros((2, 3), "f4")),
            "Prompt cannot be sent: shape of prompt context: expected 3 dimensions, got 2",
        ),
        (
            Prototypes(np.array([4, 1]), np.array([1, 1]), np.zeros((2, 3))),
            "Prototypes cannot be sent: class ids of prototypes: expected ascending, got 1 after 4",
        ),
        (
            Prototypes(np.array([4]), np.array([0]), np.zeros((1, 3))),
            "Prototypes cannot be sent: count of a prototype: expected 1 to 2**63 - 1, got 0",
        ),
        (Prototypes(np.array([-1]), np.array([1]), np.zeros((1, 3))), "Prototypes cannot be sent: …"),
        (Mask({"w": np.ones(3)}), "Mask cannot be sent: dtype of mask 'w': expected BOOL, got FLOAT64"),
        (
            Weights({"w": np.ones(3)}, {"w": "counter"}),
            "Weights cannot be sent: dtype of counter 'w': expected an integer type, got FLOAT64",
        ),
        (
            Sparse({"w": SparseEntries((9,), np.array([3, 3]), np.ones(2))}),
            "Sparse cannot be sent: indices of sparse tensor 'w': expected ascending indices, each once,"
            " got one that is not above the last",
        ),
        (Blob("", b""), "Blob cannot be sent: media type of a blob: expected 1 to 512 bytes, got 0 bytes"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_payload_that_the_other_side_would_refuse_is_our_own_fault(payload: object, sentence: str) -> None:
    with pytest.raises(LocalFault) as fault:
        canonical_bytes(payload)
    assert str(fault.value).startswith(sentence.rstrip("…"))


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
floats = hnp.arrays(
    st.sampled_from([np.dtype(d) for d in DTYPES]), hnp.array_shapes(min_dims=0, min_side=0, max_side=5)
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(names, floats, max_size=5))
def test_any_weights_come_back(arrays: dict[str, np.ndarray]) -> None:
    kinds = {n: "counter" for n, a in arrays.items() if a.dtype.kind in "iu"}
    assert_same(returned(Weights(arrays, kinds)), Weights(arrays, kinds))


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(names, hnp.arrays("?", hnp.array_shapes(min_dims=0, min_side=0, max_side=9)), max_size=4))
def test_any_mask_comes_back(bits: dict[str, np.ndarray]) -> None:
    assert_same(returned(Mask(bits)), Mask(bits))


@settings(max_examples=40, deadline=None)
@given(hnp.array_shapes(max_dims=3, max_side=6), st.data())
def test_any_sparse_tensor_comes_back(shape: tuple[int, ...], data: st.DataObject) -> None:
    size = int(np.prod(shape))
    chosen = sorted(data.draw(st.sets(st.integers(0, size - 1))))
    values = data.draw(hnp.arrays("f8", len(chosen)))
    sparse = Sparse({"w": SparseEntries(shape, np.array(chosen, "i8"), values)})
    assert_same(returned(sparse), sparse)


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=300), names)
def test_any_blob_comes_back(data: bytes, media_type: str) -> None:
    assert_same(returned(Blob(media_type, data)), Blob(media_type, data))


@settings(max_examples=40, deadline=None)
@given(hnp.arrays("f4", hnp.array_shapes(min_dims=3, max_dims=3, min_side=0)), st.sampled_from(["float16", "bfloat16"]))
def test_any_prompt_comes_back_as_received(context: np.ndarray, encoding: Encoding) -> None:
    assert_same(returned(Prompt(context), encoding), as_received(Prompt(context), encoding))
