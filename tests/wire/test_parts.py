"""Transfers: whole, cut anywhere, and gone on with; whatever the sizes of parts."""

from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import pb
from common.errors import LinkLost, LocalFault, RemoteFault
from common.payloads import Blob, Mask, Sparse, SparseEntries, Weights
from common.wire.limits import PEER
from common.wire.parts import Assembler, parts
from tests.wire.examples import PAYLOADS, canonical_bytes, ref_of

MIXED = Weights(
    {
        "empty": np.zeros((0, 4), "f4"),
        "long": np.arange(300, dtype="f4"),
        "scalar": np.array(2.5),
        "none": np.zeros(0),
        "even": np.arange(16, dtype="f4"),  # exactly 64 bytes: no padding after it
        "last": np.arange(7, dtype="i1"),
        "end": np.zeros((3, 0)),
    }
)
SPARSE = Sparse({"w": SparseEntries((1000,), np.arange(0, 1000, 3), np.ones(334, "f4"))})
MASK = Mask({"w": np.arange(1001) % 3 == 0})


def assembled(stream: Iterable[bytes], ref: pb.PayloadRef, held: bytes = b"") -> bytes:
    assembler = Assembler(ref, limits=PEER, held=held)
    data = held[: assembler.offset]
    for part in stream:
        data += assembler.feed(part)
        assert assembler.offset == len(data)
    assembler.finish()
    return data


@pytest.mark.parametrize("part_bytes", [1, 128, 200, 1000, 1 << 19])
@pytest.mark.parametrize("payload", [*PAYLOADS.values(), MIXED, SPARSE, MASK, Weights({}), Blob("x", b"")], ids=repr)
def test_a_transfer_gives_the_canonical_bytes_whatever_the_size_of_parts(payload: object, part_bytes: int) -> None:
    data = canonical_bytes(payload)
    assert assembled(parts(data, 0, part_bytes), ref_of(data)) == data


@pytest.mark.parametrize("payload", [MIXED, SPARSE, MASK], ids=["mixed", "sparse", "mask"])
def test_a_transfer_cut_after_any_byte_goes_on(payload: object) -> None:
    """Cut in the head, in arrays, in the zeros between them, before the end: all of them, as a crash leaves a file."""
    data, ref = canonical_bytes(payload), ref_of(canonical_bytes(payload))
    for cut in range(len(data) + 1):
        assembler = Assembler(ref, limits=PEER, held=data[:cut])
        assert cut - 64 <= assembler.offset <= cut or assembler.offset == 0
        assert assembled(parts(data, assembler.offset, 192), ref, data[:cut]) == data


def test_what_goes_on_sends_nothing_again_but_the_last_line_of_64_bytes() -> None:
    data = canonical_bytes(MIXED)
    offset = len(data) - 256
    sent = [pb.Part.FromString(part) for part in parts(data, offset)]
    assert sum(len(part.slice.data) for part in sent) <= 256
    assert not any(part.WhichOneof("kind") == "weights" for part in sent)


def test_held_bytes_that_are_of_no_use_are_not_used() -> None:
    data, other = canonical_bytes(MIXED), canonical_bytes(SPARSE)
    for held in (b"", bytes(500), other[:500], b"\xff" * 500, data[:63]):
        assert Assembler(ref_of(data), limits=PEER, held=held).offset == 0


def test_damage_in_bytes_of_an_earlier_transfer_is_no_fault_of_the_peer() -> None:
    data = canonical_bytes(MIXED)
    held = bytearray(data[:640])
    held[600] ^= 1
    with pytest.raises(
        LinkLost, match=r"digest of a payload: expected [0-9a-f]{64}, got .*; it is sent again from its"
    ):
        assembled(parts(data, 640), ref_of(data), bytes(held))


@pytest.mark.parametrize("offset", [1, 63, 64, 100, 1 << 40])
def test_an_offset_where_no_slice_starts_is_refused(offset: int) -> None:
    data = canonical_bytes(MIXED)
    expected = (
        f"offset at which a transfer goes on: expected 0, or a multiple of 64 from 192 to {len(data)}, got {offset}"
    )
    with pytest.raises(RemoteFault, match=f"^{expected}$"):
        list(parts(data, offset))


def test_a_damaged_file_is_not_blamed_on_the_peer() -> None:
    data = canonical_bytes(MIXED)
    for damaged in (b"", data[:-64], b"E" + data[1:]):
        with pytest.raises(LocalFault, match=r"^payload to send is damaged: "):
            list(parts(damaged, 0))


def test_no_part_but_the_structure_is_longer_than_agreed() -> None:
    data = canonical_bytes(Blob("x", bytes(100_000)))
    for part_bytes in (128, 200, 1000, 65536):
        first, *rest = parts(data, 0, part_bytes)
        assert pb.Part.FromString(first).WhichOneof("kind") == "blob"
        assert max(len(part) for part in rest) <= part_bytes
        assert len(rest) <= 2 + 100_000 / (part_bytes - 127)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 200), max_size=6), st.integers(1, 400), st.data())
def test_any_layout_can_be_cut_anywhere(sizes: list[int], part_bytes: int, data: st.DataObject) -> None:
    whole = canonical_bytes(Weights({str(i): np.arange(n, dtype="u1") for i, n in enumerate(sizes)}))
    held = whole[: data.draw(st.integers(0, len(whole)))]
    offset = Assembler(ref_of(whole), limits=PEER, held=held).offset
    assert assembled(parts(whole, offset, part_bytes), ref_of(whole), held) == whole


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200))
def test_noise_is_refused_and_nothing_else_happens(noise: bytes) -> None:
    data = canonical_bytes(MIXED)
    stream = list(parts(data, 0, 256))
    for n in (0, 1, 3):
        assembler = Assembler(ref_of(data), limits=PEER)
        for part in stream[:n]:
            assembler.feed(part)
        with pytest.raises((RemoteFault, LinkLost)):
            assembler.feed(noise)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_flipped_bit_never_passes(data: st.DataObject) -> None:
    whole = canonical_bytes(MIXED)
    stream = list(parts(whole, 0, 256))
    which = data.draw(st.integers(0, len(stream) - 1))
    bit = data.draw(st.integers(0, 8 * len(stream[which]) - 1))
    flipped = bytearray(stream[which])
    flipped[bit // 8] ^= 1 << bit % 8
    stream[which] = bytes(flipped)
    try:
        got = assembled(stream, ref_of(whole))
    except (RemoteFault, LinkLost):
        return
    assert got == whole  # a bit that says nothing, as in the wire type of a field that proto3 reads either way
