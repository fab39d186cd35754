"""The bytes of the format, written out: after a change here, neighbouring versions no longer understand each other."""

import hashlib
import struct
from dataclasses import dataclass

import pytest

from common import pb
from common.payloads import Encoding, Mask, Weights
from common.wire import records
from common.wire.parts import parts
from tests.wire.examples import MASK, PAYLOADS, WEIGHTS, canonical_bytes, ref_of


def written_out(structure: str, *arrays: str) -> bytes:
    """The canonical bytes as the format's description says, from the structure and the arrays in hexadecimal."""
    pieces = [b"edgefed\x01" + struct.pack("<Q", len(structure) // 2) + bytes.fromhex(structure)]
    pieces += [bytes.fromhex(array) for array in arrays]
    return b"".join(piece + bytes(-len(piece) % 64) for piece in pieces)


WEIGHTS_STRUCTURE = (
    "0a2e"  # Payload.weights
    "0a0d 0a0177 1208 0a020202 1001 1801"  # "w", (2, 2), FLOAT32 as FLOAT32
    "0a0b 0a016e 1204 1008 1808 1802"  # "n", (), INT64, COUNTER
    "0a10 0a046e6f6e65 1208 0a020003 1002 1802"  # "none", (0, 3), FLOAT64
).replace(" ", "")

GOLDEN = {
    "weights": written_out(WEIGHTS_STRUCTURE, "0000803f 000000c0 0000003f 00004040", "0700000000000000"),
    "prompt": written_out("120b0a090a0301020310011801", "00000000 0000803f 00000040 00004040 00008040 0000a040"),
    "prototypes": written_out("1a130a020104120303c8011a080a02020210011801", "0000803f 00000040 00004040 00008040"),
    "expert": written_out("22190a07616e696d616c73120e0a0c0a017712070a010110011801", "0000803f"),
    "mask": written_out("2a0f0a0d0a017712080a020303100a180a", "7500"),
    "sparse": written_out(
        "321b0a190a0177120202051a070a010210081807" + "22070a010210011801", "01000000 09000000", "0000803f 00000040"
    ),
    "blob": written_out("3a0e0a0a746578742f706c61696e1004", "65646765"),
}
DIGESTS = {
    "weights": "a70aee3c76584dd60e58e2700d07aac5bb10b9e1045d34ab321963c418c82872",
    "prompt": "03f5be0234a5542ab582cb377478afe66e78be2416024c23f32b0dc4c800cad8",
    "prototypes": "b17c826246151294e7b0ff0976e2c106a67f6be2911b9357a395956254fdc8fa",
    "expert": "974c05a132404598926c66338781c6fc3b55f777182c3c9fe5574450befa9407",
    "mask": "970c0b257ba9fbc7f173e664ca89192c385972dead3bbfba6f631be2a25473ce",
    "sparse": "aa367396f95cd25a1b5f7c655341df67bb9b0a27f14d713b0d0895f2fb03254a",
    "blob": "a2f40d3059e642dc5356f4a30a0a8208f38895995d160f48ef71521e6a02ea57",
}


@pytest.mark.parametrize("kind", PAYLOADS)
def test_canonical_bytes_of_each_payload_type(kind: str) -> None:
    data = canonical_bytes(PAYLOADS[kind])
    assert data == GOLDEN[kind]
    assert ref_of(data).sha256.hex() == DIGESTS[kind]


@pytest.mark.parametrize(
    ("encoding", "wire", "values"),
    [
        ("float32", "01", "0000803f000000c00000003f00004040"),
        ("float16", "03", "003c00c000380042"),
        ("bfloat16", "04", "803f00c0003f4040"),
    ],
)
def test_canonical_bytes_in_each_encoding(encoding: Encoding, wire: str, values: str) -> None:
    structure = WEIGHTS_STRUCTURE.replace("10011801", f"100118{wire}")
    assert canonical_bytes(WEIGHTS, encoding) == written_out(structure, values, "0700000000000000")


def test_stream_of_parts() -> None:
    assert [part.hex() for part in parts(canonical_bytes(WEIGHTS))] == [
        "122e" + WEIGHTS_STRUCTURE[4:],
        "4a17" + "1a10 0000803f000000c00000003f00004040".replace(" ", "") + "2508b0c8fc",
        "4a11" + "0801" + "1a080700000000000000" + "258eb77176",
        "52220a20" + DIGESTS["weights"],
    ]


@dataclass(frozen=True)
class Reply:
    weights: Weights
    mask: Mask | None
    n_samples: int
    loss: float
    names: tuple[str, ...]
    experts: dict[str, Weights]


def test_record() -> None:
    payloads = iter((ref_of(GOLDEN["weights"]), ref_of(GOLDEN["mask"]), ref_of(GOLDEN["expert"])))
    reply = Reply(WEIGHTS, MASK, -3, 0.5, ("a", "b"), {"animals": WEIGHTS})
    record = records.encode(reply, lambda payload: next(payloads))
    schema = "Reply(weights:Weights,mask:Mask|none,n_samples:int,loss:float,names:tuple[str,...],experts:experts)"
    assert record.schema == hashlib.sha256(schema.encode()).digest()
    assert record.fields.SerializeToString(deterministic=True).hex() == (
        "0a055265706c79"
        + "120d0a07776569676874731202" + "4800"
        + "120a0a046d61736b1202" + "4801"
        + "120f0a096e5f73616d706c65731202" + "1805"
        + "12110a046c6f73731209" + "21000000000000e03f"
        + "12150a056e616d6573120c" + "320a" + "0a032a0161" + "0a032a0162"
        + "12100a0765787065727473" + "1205" + "5203" + "0a0102"
    )  # fmt: skip
    assert [ref.sha256.hex() for ref in record.payloads] == [DIGESTS[k] for k in ("weights", "mask", "expert")]
    assert [ref.size for ref in record.payloads] == [192, 128, 128]
    assert pb.Record.FromString(record.SerializeToString()) == record
