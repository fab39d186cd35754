"""What a hostile or broken peer can send, a row for each rule of the format, and the sentence that it gets for it.

In the manner of the attacks that the safetensors project keeps beside its format. Records have their own table in
test_records_abuse.py.
"""

import resource
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import google_crc32c
import numpy as np
import pytest

from common import pb
from common.errors import LinkLost, RemoteFault
from common.payloads import Blob, Mask, Prompt, Sparse, SparseEntries, Weights
from common.wire import canonical
from common.wire.canonical import MAGIC
from common.wire.limits import PEER, Limits
from common.wire.parts import Assembler, parts
from tests.wire.examples import canonical_bytes, ref_of

WHERE = "run demo, round 3, agent pi, field Reply.weights"
TERABYTE = 10**12
WEIGHTS = Weights({"a": np.arange(48, dtype="f4"), "b": np.arange(20, dtype="f4")})
FLOAT = {"dtype": pb.FLOAT32, "wire": pb.FLOAT32}


@dataclass
class Attack:
    """Parts that are fed in order; the last one, or the end of the stream, is refused with the sentence."""

    stream: list[bytes]
    ref: pb.PayloadRef
    sentence: str
    limits: Limits = PEER
    fault: type[Exception] = RemoteFault

    def run(self) -> None:
        assembler = Assembler(self.ref, limits=self.limits, where=WHERE)
        for part in self.stream:
            assembler.feed(part)
        assembler.finish()


ATTACKS: dict[str, Callable[[], Attack]] = {}


def attack(make: Callable[[], Attack]) -> Callable[[], Attack]:
    ATTACKS[make.__name__] = make
    return make


def rows(made: dict[str, Attack]) -> None:
    for name, row in made.items():
        ATTACKS[name] = lambda row=row: row


def stream_of(payload: Any = WEIGHTS, part_bytes: int = 128) -> tuple[list[bytes], pb.PayloadRef]:
    """Parts of 64 bytes of data each: structure, a in three slices, b in two, end."""
    data = canonical_bytes(payload)
    return list(parts(data, 0, part_bytes)), ref_of(data)


def slice_of(array: int, offset: int, data: bytes, **changed: Any) -> bytes:
    fields = {"array": array, "offset": offset, "data": data, "crc32c": google_crc32c.value(data), **changed}
    return bytes(pb.Part(slice=pb.ArraySlice(**fields)).SerializeToString())


def described(kind: str, message: Any, sentence: str, limits: Limits = PEER) -> Attack:
    """A structure alone, of a payload that says that it has 1024 bytes."""
    part = pb.Part(**{kind: message}).SerializeToString()
    return Attack([part], pb.PayloadRef(sha256=bytes(32), size=1024), sentence, limits)


def weights(*arrays: dict[str, Any]) -> Any:
    """`name`, `shape`, `dtype`, `wire`, `kind` of each array."""
    made = []
    for given in arrays:
        item = {"name": "w", "shape": [4], "kind": pb.PARAM, **FLOAT, **given}
        array = pb.Array(shape=item["shape"], dtype=item["dtype"], wire=item["wire"])
        made.append(pb.NamedArray(name=item["name"], kind=item["kind"], array=array))
    return pb.Weights(arrays=made)


def one(sentence: str, limits: Limits = PEER, **given: Any) -> Attack:
    return described("weights", weights(given), sentence, limits)


def wrapped(field: int, data: bytes) -> bytes:
    """A field as it is serialised, made without protobuf, which would take the memory that is to be measured."""
    length = len(data)
    varint = bytes([length & 0x7F | 0x80, length >> 7 & 0x7F | 0x80, length >> 14])
    return bytes([field << 3 | 2]) + varint + data


# ---------------------------------------------------------------- the stream


@attack
def promised_a_terabyte() -> Attack:
    ref = pb.PayloadRef(sha256=bytes(32), size=TERABYTE)
    return Attack([], ref, "size of a payload: expected at most 4294967296 bytes, got 1000000000000")


@attack
def size_that_no_payload_has() -> Attack:
    ref = pb.PayloadRef(sha256=bytes(32), size=1000)
    return Attack([], ref, "size of a payload: expected a multiple of 64, at least 64, got 1000")


@attack
def size_of_nothing() -> Attack:
    ref = pb.PayloadRef(sha256=bytes(32))
    return Attack([], ref, "size of a payload: expected a multiple of 64, at least 64, got 0")


@attack
def digest_of_another_kind() -> Attack:
    ref = pb.PayloadRef(sha256=bytes(20), size=1024)
    return Attack([], ref, "digest of a payload: expected 32 bytes, got 20")


@attack
def truncated_before_anything() -> Attack:
    _, ref = stream_of()
    return Attack([], ref, "payload: expected 384 bytes and their end, got 0 bytes")


@attack
def truncated_in_an_array() -> Attack:
    stream, ref = stream_of()
    return Attack(stream[:3], ref, "payload: expected 384 bytes and their end, got 192 bytes")


@attack
def truncated_before_the_end() -> Attack:
    stream, ref = stream_of()
    return Attack(stream[:-1], ref, "payload: expected 384 bytes and their end, got 384 bytes")


@attack
def ended_too_early() -> Attack:
    stream, ref = stream_of()
    return Attack([*stream[:3], stream[-1]], ref, "payload: expected 384 bytes before its end, got 192 bytes")


@attack
def ended_before_it_began() -> Attack:
    stream, ref = stream_of()
    return Attack(stream[-1:], ref, "payload: expected 384 bytes before its end, got 0 bytes")


@attack
def truncated_part() -> Attack:
    stream, ref = stream_of()
    return Attack([stream[0], stream[1][:-1]], ref, "message Part: expected a protobuf message, got 72 bytes (…)")


@attack
def repeated_slice() -> Attack:
    stream, ref = stream_of()
    sentence = "slice of array 'a': expected the bytes from 128 on, got those that are here already, from 64 on"
    return Attack([stream[0], stream[1], stream[1]], ref, sentence)


@attack
def reordered_slices() -> Attack:
    stream, ref = stream_of()
    sentence = "slice of array 'a': expected the bytes from 64 on, got those after a gap, from 128 on"
    return Attack([stream[0], stream[2]], ref, sentence)


@attack
def reordered_arrays() -> Attack:
    stream, ref = stream_of()
    sentence = "slice of array 'b': expected the bytes from 64 on, got those after a gap, from 256 on"
    return Attack([stream[0], stream[4]], ref, sentence)


@attack
def overlapping_slices() -> Attack:
    stream, ref = stream_of()
    overlapping = slice_of(0, 32, bytes(64))
    sentence = "slice of array 'a': expected the bytes from 128 on, got those that are here already, from 96 on"
    return Attack([*stream[:2], overlapping], ref, sentence)


@attack
def slice_beyond_its_array() -> Attack:
    stream, ref = stream_of()
    sentence = "slice of array 'a': expected at most 192 bytes in all, got 256"
    return Attack([stream[0], slice_of(0, 0, bytes(256))], ref, sentence)


@attack
def slice_at_an_offset_that_overflows() -> Attack:
    stream, ref = stream_of()
    at = 2**64 - 64
    sentence = f"slice of array 'a': expected the bytes from 64 on, got those after a gap, from {at + 64} on"
    return Attack([stream[0], slice_of(0, at, bytes(64))], ref, sentence)


@attack
def slice_of_half_an_element() -> Attack:
    stream, ref = stream_of()
    sentence = "slice of array 'a': expected a multiple of 64 bytes, or all the rest, got 66 bytes"
    return Attack([stream[0], slice_of(0, 0, bytes(66))], ref, sentence)


@attack
def slices_of_nothing_for_ever() -> Attack:
    stream, ref = stream_of()
    sentence = "slice of array 'a': expected a multiple of 64 bytes, or all the rest, got 0 bytes"
    return Attack([stream[0], slice_of(0, 0, b"")], ref, sentence)


@attack
def slice_of_an_array_that_is_not_there() -> Attack:
    stream, ref = stream_of()
    return Attack([stream[0], slice_of(2, 0, bytes(64))], ref, "array of a slice: expected below 2, got 2")


@attack
def slice_before_the_structure() -> Attack:
    stream, ref = stream_of()
    return Attack(stream[1:2], ref, "payload: expected its structure first, got a slice")


@attack
def structure_twice() -> Attack:
    stream, ref = stream_of()
    return Attack([stream[0], stream[0]], ref, "payload: expected its structure once, got a second structure")


@attack
def something_after_the_end() -> Attack:
    stream, ref = stream_of()
    return Attack([*stream, stream[-1]], ref, "payload: expected nothing after its end, got another part")


@attack
def header_in_the_middle() -> Attack:
    stream, ref = stream_of()
    header = pb.Part(header=pb.RecordHeader(key=pb.TaskKey(run="demo"))).SerializeToString()
    return Attack([stream[0], header], ref, "part: expected structure, slice or end of a payload, got header")


@attack
def empty_part() -> Attack:
    _, ref = stream_of()
    return Attack([b""], ref, "part: expected structure, slice or end of a payload, got an empty message")


@attack
def oversized_part() -> Attack:
    stream, ref = stream_of(Blob("x", bytes(2**20)), 2**21)
    return Attack(stream, ref, f"part: expected at most 1048576 bytes, got {len(stream[1])}")


@attack
def part_larger_than_agreed() -> Attack:
    stream, ref = stream_of(Blob("x", bytes(1000)), 1024)
    return Attack(stream, ref, f"part: expected at most 512 bytes, got {len(stream[1])}", Limits(part_bytes=512))


@attack
def damaged_on_its_way() -> Attack:
    stream, ref = stream_of()
    sentence = "slice of array 'a' at 0: expected its checksum, got another"
    return Attack([stream[0], slice_of(0, 0, bytes(64), crc32c=1)], ref, sentence, fault=LinkLost)


@attack
def another_digest_at_the_end() -> Attack:
    stream, ref = stream_of()
    end = pb.Part(end=pb.RecordEnd(sha256=bytes(32))).SerializeToString()
    sentence = f"digest at the end: expected {ref.sha256.hex()}, got {'00' * 32}"
    return Attack([*stream[:-1], end], ref, sentence)


@attack
def other_bytes_than_promised() -> Attack:
    stream, true = stream_of()
    ref = pb.PayloadRef(sha256=bytes(32), size=true.size)
    end = pb.Part(end=pb.RecordEnd(sha256=bytes(32))).SerializeToString()
    return Attack([*stream[:-1], end], ref, f"digest of a payload: expected {'00' * 32}, got {true.sha256.hex()}")


@attack
def other_size_than_promised() -> Attack:
    stream, ref = stream_of()
    ref = pb.PayloadRef(sha256=ref.sha256, size=512)
    return Attack(stream, ref, "size of the payload by its structure: expected 512, got 384")


@attack
def unknown_field_in_a_slice() -> Attack:
    stream, ref = stream_of()
    piece = pb.Part.FromString(stream[1])
    inner = piece.slice.SerializeToString() + bytes([15 << 3, 1])
    part = bytes([9 << 3 | 2, len(inner)]) + inner
    sentence = "message ArraySlice: expected fields of this version only, got unknown field number 15"
    return Attack([stream[0], part], ref, sentence)


@attack
def unknown_field_beside_a_slice() -> Attack:
    stream, ref = stream_of()
    sentence = "message Part: expected fields of this version only, got unknown field number 15"
    return Attack([stream[0], stream[1] + bytes([15 << 3, 1])], ref, sentence)


@attack
def unknown_field_deep_in_the_structure() -> Attack:
    _, ref = stream_of()
    array = pb.Array(shape=[4], **FLOAT).SerializeToString() + bytes([15 << 3, 1])
    item = bytes([1 << 3 | 2, 1]) + b"w" + bytes([2 << 3 | 2, len(array)]) + array
    body = bytes([1 << 3 | 2, len(item)]) + item
    sentence = "message Part: expected fields of this version only, got an unknown field inside one of them"
    return Attack([bytes([2 << 3 | 2, len(body)]) + body], ref, sentence)


@attack
def too_many_arrays() -> Attack:
    ref = pb.PayloadRef(sha256=bytes(32), size=1024)
    return Attack([wrapped(2, b"\x0a\x00" * 300_000)], ref, "arrays: expected at most 16384, got 300000")


# ---------------------------------------------------------------- shapes, element types, names

LIMIT = 4294967296
rows(
    {
        "negative_dimension": one(
            shape=[2**64 - 1],
            sentence=f"shape of array 'w': expected at most {LIMIT} bytes of it,"
            f" got ({2**64 - 1},), {4 * (2**64 - 1)} bytes",
        ),
        "shape_that_overflows_64_bits": one(
            shape=[2**32, 2**32],
            sentence=f"shape of array 'w': expected at most {LIMIT} bytes of it, got ({2**32}, {2**32}), {2**66} bytes",
        ),
        "overflow_hidden_by_a_zero": one(
            shape=[0, 2**63],
            sentence=f"shape of array 'w': expected at most {LIMIT} bytes of it, got (0, {2**63}), {2**65} bytes",
        ),
        "structure_of_a_terabyte": one(
            shape=[TERABYTE],
            sentence=f"shape of array 'w': expected at most {LIMIT} bytes of it,"
            f" got ({TERABYTE},), {4 * TERABYTE} bytes",
        ),
        "many_arrays_of_a_terabyte_together": described(
            "weights",
            weights(*({"name": str(i), "shape": [2**30]} for i in range(3))),
            f"weights payload: expected at most {LIMIT} bytes, got {3 * 2**32}",
        ),
        "more_dimensions_than_numpy_has": one(
            shape=[1] * 65, sentence="shape of array 'w': expected at most 8 dimensions, got 65"
        ),
        "dtype_not_given": one(dtype=0, sentence="dtype of array 'w': expected an element type, got DTYPE_UNSPECIFIED"),
        "dtype_of_the_future": one(
            dtype=99, sentence="dtype of array 'w': expected an element type, got unknown number 99"
        ),
        "dtype_that_numpy_lacks": one(
            dtype=pb.BFLOAT16, wire=pb.BFLOAT16, sentence="dtype of array 'w': expected an element type, got BFLOAT16"
        ),
        "wire_of_the_future": one(
            wire=99,
            sentence="dtype of array 'w': expected FLOAT32 as FLOAT32 or FLOAT32 as FLOAT16 or FLOAT32 as BFLOAT16,"
            " got FLOAT32 as unknown number 99",
        ),
        "counter_in_half_precision": one(
            dtype=pb.INT64,
            wire=pb.FLOAT16,
            sentence="dtype of array 'w': expected INT64 as INT64, got INT64 as FLOAT16",
        ),
        "short_integers_outside_sparse": one(
            dtype=pb.INT64, wire=pb.INT32, sentence="dtype of array 'w': expected INT64 as INT64, got INT64 as INT32"
        ),
        "counter_of_real_numbers": one(
            kind=pb.COUNTER, sentence="dtype of counter 'w': expected an integer type, got FLOAT32"
        ),
        "kind_of_the_future": one(kind=7, sentence="kind of array 'w': expected PARAM, BUFFER or COUNTER, got 7"),
        "array_not_described": described(
            "weights",
            pb.Weights(arrays=[pb.NamedArray(name="w")]),
            "dtype of array 'w': expected an element type, got DTYPE_UNSPECIFIED",
        ),
        "duplicate_names": described("weights", weights({}, {}), "array 'w': expected each name once, got it again"),
        "name_of_nothing": one(name="", sentence="array name: expected 1 to 512 bytes, got 0 bytes"),
        "name_without_end": one(name="é" * 300, sentence="array name: expected 1 to 512 bytes, got 600 bytes"),
        # ------------------------------------------------------------ what each type of payload adds
        "mask_of_numbers": described(
            "mask",
            pb.ParameterMask(bits=weights({}).arrays),
            "dtype of mask 'w': expected BOOL, got FLOAT32",
        ),
        "mask_with_a_kind": described(
            "mask",
            pb.ParameterMask(bits=weights({"dtype": pb.BOOL, "wire": pb.BOOL, "kind": pb.BUFFER}).arrays),
            "kind of mask 'w': expected none, got 1",
        ),
        "mask_that_unpacks_to_eight_times_the_limit": described(
            "mask",
            pb.ParameterMask(bits=weights({"dtype": pb.BOOL, "wire": pb.BOOL, "shape": [LIMIT + 1]}).arrays),
            f"shape of mask 'w': expected at most {LIMIT} bytes of it, got ({LIMIT + 1},), {LIMIT + 1} bytes",
        ),
        "duplicate_masks": described(
            "mask",
            pb.ParameterMask(bits=weights(*[{"dtype": pb.BOOL, "wire": pb.BOOL}] * 2).arrays),
            "mask 'w': expected each name once, got it again",
        ),
        "prompt_of_two_dimensions": described(
            "prompt",
            pb.Prompt(context=pb.Array(shape=[2, 3], **FLOAT)),
            "shape of prompt context: expected 3 dimensions, got 2",
        ),
        "prompt_of_integers": described(
            "prompt",
            pb.Prompt(context=pb.Array(shape=[1, 2, 3], dtype=pb.INT8, wire=pb.INT8)),
            "dtype of prompt context: expected a float type, got INT8",
        ),
        "expert_of_an_unknown_node": described(
            "expert",
            pb.ExpertWeights(node="cars", weights=weights({})),
            "expert: expected a node of the run's taxonomy, got 'cars'",
            Limits(nodes=frozenset({"animals"})),
        ),
        "expert_of_no_node": described(
            "expert",
            pb.ExpertWeights(weights=weights({})),
            "node of an expert: expected 1 to 512 bytes, got 0 bytes",
        ),
        "blob_of_no_type": described(
            "blob", pb.Blob(size=10), "media type of a blob: expected 1 to 512 bytes, got 0 bytes"
        ),
        "blob_of_a_terabyte": described(
            "blob",
            pb.Blob(media_type="x", size=TERABYTE),
            f"size of a blob: expected at most {LIMIT} bytes, got {TERABYTE}",
        ),
    }
)


def prototypes(ids: list[int], counts: list[int], shape: list[int], sentence: str, limits: Limits = PEER) -> Attack:
    message = pb.Prototypes(class_id=ids, count=counts, vectors=pb.Array(shape=shape, **FLOAT))
    return described("prototypes", message, sentence, limits)


def sparse(
    sentence: str, *, shape: list[int], n: int = 2, n_values: int = 2, wire: int = pb.INT32, **given: Any
) -> Attack:
    indices = pb.Array(shape=given.get("indices", [n]), dtype=pb.INT64, wire=wire)
    values = pb.Array(shape=[n_values], **FLOAT)
    tensor = pb.SparseTensor(name="w", shape=shape, indices=indices, values=values)
    return described("sparse", pb.SparseWeights(tensors=[tensor] * given.get("times", 1)), sentence)


rows(
    {
        "prototype_of_a_class_that_does_not_exist": prototypes(
            [1, 10], [1, 1], [2, 4], "class id of a prototype: expected below 10, got 10", Limits(n_classes=10)
        ),
        "prototypes_out_of_order": prototypes(
            [4, 1], [1, 1], [2, 4], "class ids of prototypes: expected ascending, got 1 after 4"
        ),
        "prototype_twice": prototypes(
            [4, 4], [1, 1], [2, 4], "class ids of prototypes: expected ascending, got 4 after 4"
        ),
        "prototype_of_no_samples": prototypes(
            [1, 4], [1, 0], [2, 4], "count of a prototype: expected 1 to 2**63 - 1, got 0"
        ),
        "prototype_of_more_samples_than_there_are_numbers": prototypes(
            [1, 4], [1, 2**63], [2, 4], f"count of a prototype: expected 1 to 2**63 - 1, got {2**63}"
        ),
        "prototypes_without_vectors": prototypes(
            [1, 4],
            [1],
            [3, 4],
            "prototypes: expected an id and a count for each vector, got 2 ids, 1 counts, 3 vectors",
        ),
        "prototypes_of_one_dimension": prototypes(
            [1], [1], [4], "shape of prototype vectors: expected 2 dimensions, got 1"
        ),
        "sparse_indices_without_values": sparse(
            shape=[10],
            n_values=3,
            sentence="entries of sparse tensor 'w': expected a value for each index, got 2 indices, 3 values",
        ),
        "sparse_with_more_entries_than_places": sparse(
            shape=[1], sentence="entries of sparse tensor 'w': expected at most 1, got 2"
        ),
        "sparse_indices_of_two_dimensions": sparse(
            shape=[10],
            indices=[2, 1],
            sentence="shape of indices of sparse tensor 'w': expected 1 dimension, got 2",
        ),
        "sparse_indices_longer_than_needed": sparse(
            shape=[10],
            wire=pb.INT64,
            sentence="dtype of indices of sparse tensor 'w': expected INT64 as INT32, got INT64 as INT64",
        ),
        "sparse_tensor_of_a_terabyte": sparse(
            shape=[TERABYTE],
            wire=pb.INT64,
            sentence=f"shape of sparse tensor 'w': expected at most {LIMIT} bytes of it,"
            f" got ({TERABYTE},), {4 * TERABYTE} bytes",
        ),
        "duplicate_sparse_tensors": sparse(
            shape=[10], times=2, sentence="sparse tensor 'w': expected each name once, got it again"
        ),
    }
)

# ---------------------------------------------------------------- values


def valued(payload: Any, sentence: str, *, encoding: Any = "exact", part_bytes: int = 128) -> Attack:
    """A payload that our own encoder writes, with values that it does not look at."""
    data = canonical_bytes(payload, encoding)
    return Attack(list(parts(data, 0, part_bytes)), ref_of(data), sentence)


def with_one(value: float, at: int, dtype: str = "f4") -> Any:
    array = np.zeros(100, dtype)
    array[at] = value
    return Weights({"w": array})


def not_finite(at: int) -> str:
    return f"array 'w': expected finite numbers (the run's wire.non_finite), got NaN or Inf at element {at}"


def sparse_of(*indices: int) -> Sparse:
    return Sparse({"w": SparseEntries((50,), np.array(indices), np.zeros(len(indices), "f4"))})


def with_indices(*indices: int, sentence: str) -> Attack:
    """Good bytes with other indices put in, which our own encoder would not write."""
    n = len(indices)
    data = bytearray(canonical_bytes(sparse_of(*range(n))))
    data[64 : 64 + 4 * n] = np.array(indices, "<i4").tobytes()
    sentence = f"indices of sparse tensor 'w': expected {sentence}"
    return Attack(list(parts(bytes(data), 0, 128)), ref_of(bytes(data)), sentence)


UNSORTED = "ascending indices, each once, got one that is not above the last"
rows(
    {
        "nan": valued(with_one(np.nan, 3), not_finite(3)),
        "infinity_in_a_later_slice": valued(with_one(-np.inf, 99), not_finite(99)),
        "nan_in_double_precision": valued(with_one(np.nan, 40, "f8"), not_finite(40)),
        "nan_in_half_precision": valued(with_one(np.nan, 40, "f2"), not_finite(40)),
        "nan_as_float16": valued(with_one(np.nan, 60), not_finite(60), encoding="float16"),
        "overflow_of_float16": valued(with_one(1e6, 60), not_finite(60), encoding="float16"),
        "infinity_as_bfloat16": valued(with_one(np.inf, 60), not_finite(60), encoding="bfloat16"),
        "nan_in_a_prompt": valued(
            Prompt(np.full((1, 1, 1), np.nan)),
            "prompt context: expected finite numbers (the run's wire.non_finite), got NaN or Inf at element 0",
        ),
        "nan_in_sparse_values": valued(
            Sparse({"w": SparseEntries((3,), np.array([1]), np.array([np.nan]))}),
            "values of sparse tensor 'w': expected finite numbers (the run's wire.non_finite),"
            " got NaN or Inf at element 0",
        ),
        "sparse_index_out_of_range": with_indices(1, 50, sentence="indices from 0 to 49, got 50"),
        "sparse_index_below_zero": with_indices(-1, 4, sentence="indices from 0 to 49, got -1"),
        "sparse_indices_unsorted": with_indices(4, 1, sentence=UNSORTED),
        "sparse_index_twice": with_indices(4, 4, sentence=UNSORTED),
        "sparse_indices_unsorted_across_slices": with_indices(*range(16), 15, sentence=UNSORTED),
    }
)


@attack
def mask_bits_beyond_the_length() -> Attack:
    stream, ref = stream_of(Mask({"w": np.ones((3, 3), "?")}))
    sentence = "mask 'w': expected 9 bits and zeros after them, got a bit beyond the end"
    return Attack([stream[0], slice_of(0, 0, b"\xff\x03")], ref, sentence)


@attack
def mask_bits_beyond_the_length_in_a_later_slice() -> Attack:
    stream, ref = stream_of(Mask({"w": np.ones(1001, "?")}))
    sentence = "mask 'w': expected 1001 bits and zeros after them, got a bit beyond the end"
    return Attack([*stream[:2], slice_of(0, 64, bytes(61) + b"\x02")], ref, sentence)


# ---------------------------------------------------------------- the table


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_refused_with_its_sentence_and_in_little_memory(name: str) -> None:
    made = ATTACKS[name]()
    tracemalloc.start()
    try:
        with pytest.raises(made.fault) as refusal:
            made.run()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    start, _, end = f"{WHERE}: {made.sentence}".partition("…")
    assert str(refusal.value).startswith(start)
    assert str(refusal.value).endswith(end)
    assert end or str(refusal.value) == start
    assert peak < 4 << 20


def test_every_attack_but_its_own_fault_would_pass() -> None:
    """The streams that the attacks are made from are good ones."""
    for payload in (
        WEIGHTS,
        sparse_of(1, 2),
        Mask({"w": np.ones((3, 3), "?")}),
        with_one(1, 3),
        Blob("x", bytes(1000)),
    ):
        stream, ref = stream_of(payload)
        Attack(stream, ref, "").run()


def test_what_is_not_finite_passes_where_the_run_allows_it() -> None:
    for name, make in ATTACKS.items():
        made = make()
        if "finite numbers" in made.sentence:
            made.limits = Limits(allow_non_finite=True)
            made.run(), name


def feed_structures_that_unfold() -> None:
    """Run in a process of its own: structures of 1 MiB that protobuf makes much of, and a payload that never ends."""
    ref = pb.PayloadRef(sha256=bytes(32), size=1 << 30)
    streams = [
        wrapped(2, b"\x0a\x00" * 500_000),  # Weights of arrays that say nothing
        wrapped(7, b"\x0a\x00" * 500_000),  # SparseWeights
        wrapped(4, wrapped(1, b"\x01" * 1_000_000)),  # Prototypes of the same class
        wrapped(3, wrapped(1, wrapped(1, b"\x01" * 1_000_000))),  # a Prompt of a million dimensions
    ]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for part in streams * 3:
        try:
            Assembler(ref, limits=PEER, where=WHERE).feed(part)
        except RemoteFault:
            continue
        raise AssertionError("accepted")
    sys.stdout.write(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has another unit elsewhere")
def test_a_small_structure_that_unfolds_into_much_stays_bounded() -> None:
    """tracemalloc does not see what protobuf holds, so this looks at the process's high-water mark."""
    command = [sys.executable, "-c", "from tests.wire.test_abuse import *; feed_structures_that_unfold()"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stdout) < 64 * 1024  # KiB; usually half of that, one structure as protobuf holds it


# ---------------------------------------------------------------- canonical bytes from elsewhere

STRUCTURE = pb.Payload(weights=weights({})).SerializeToString(deterministic=True)


def file_of(structure: bytes, *, magic: bytes = MAGIC, length: int | None = None, array: bytes = bytes(64)) -> bytes:
    head = magic + (len(structure) if length is None else length).to_bytes(8, "little") + structure
    return head + bytes(-len(head) % 64) + array


UNKNOWN_FIELD = bytes([15 << 3, 1])
TWO_VARINT_BYTES = bytes([0x8A, 0x00])  # the first tag, written longer than it needs to be
FILES = {
    "nothing": (b"", "payload: expected at least 16 bytes, got 0"),
    "another_format": (
        file_of(STRUCTURE, magic=b"PK\x03\x04abcd"),
        f"first bytes of a payload: expected {MAGIC!r}, got b'PK\\x03\\x04abcd'",
    ),
    "structure_of_a_terabyte": (
        file_of(STRUCTURE, length=TERABYTE),
        f"structure of a payload: expected at most 1048512 bytes, got {TERABYTE}",
    ),
    "structure_cut_off": (file_of(STRUCTURE, length=2000), "structure of a payload: expected 2000 bytes, got 112"),
    "no_structure": (file_of(b""), "payload: expected one of the payload types, got an empty message"),
    "half_a_structure": (file_of(STRUCTURE[:-1]), "message Payload: expected a protobuf message, got 15 bytes (…)"),
    "arrays_cut_off": (file_of(STRUCTURE, array=b""), "payload: expected 128 bytes as its structure says, got 64"),
    "too_long": (
        file_of(STRUCTURE, array=bytes(128)),
        "payload: expected 128 bytes as its structure says, got 192",
    ),
    "unknown_field": (
        file_of(STRUCTURE + UNKNOWN_FIELD),
        "message Payload: expected fields of this version only, got unknown field number 15",
    ),
    "structure_in_two_pieces": (
        file_of(STRUCTURE + STRUCTURE),
        "structure of a payload: expected its one canonical form, got another serialisation of it",
    ),
    "structure_written_longer": (
        file_of(TWO_VARINT_BYTES + STRUCTURE[1:]),
        "structure of a payload: expected its one canonical form, got another serialisation of it",
    ),
    "something_behind_the_structure": (
        file_of(STRUCTURE)[:60] + b"\x01" * 4 + bytes(64),
        "bytes after the structure: expected zeros, got other bytes",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_no_payload_is_refused(name: str) -> None:
    data, sentence = FILES[name]
    with pytest.raises(RemoteFault) as refusal:
        canonical.decode(data, limits=PEER, where=WHERE)
    start, _, end = f"{WHERE}: {sentence}".partition("…")
    assert str(refusal.value).startswith(start)
    assert str(refusal.value).endswith(end)


TWO = canonical_bytes(Weights({"a": np.zeros(4, "f4"), "b": np.zeros(4, "f4")}))


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (file_of(STRUCTURE, array=b"\x01" * 64), "bytes after the last array: expected zeros, got other bytes"),
        (TWO[:100] + b"\x01" + TWO[101:], "bytes before array 'b': expected zeros, got other bytes"),
        (file_of(STRUCTURE, array=b"\x00\x00\x80\x7f" + bytes(60)), not_finite(0)),
    ],
)
def test_verify_looks_at_every_byte(data: bytes, sentence: str) -> None:
    canonical.decode(data)
    with pytest.raises(RemoteFault) as refusal:
        canonical.verify(data, limits=PEER, where=WHERE)
    assert str(refusal.value) == f"{WHERE}: {sentence}"
