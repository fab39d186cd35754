"""What a hostile or broken peer can put into a record, and the sentence that it gets for it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import pb
from common.errors import RemoteFault
from common.payloads import Mask, Weights
from common.store import AgentStore
from common.wire import records
from common.wire.limits import Limits
from common.wire.refusal import parse
from tests.wire.examples import MASK, WEIGHTS, canonical_bytes, ref_of

WHERE = "run demo, round 3, agent pi"
UNKNOWN_FIELD = bytes([15 << 3, 1])


@dataclass(frozen=True)
class Part:
    n: int


@dataclass(frozen=True)
class Reply:
    weights: Weights
    mask: Mask | None
    n: int
    loss: float
    done: bool
    label: Literal["a", "b"]
    parts: tuple[Part, ...]
    pair: tuple[int, int]
    named: dict[str, int]
    experts: dict[str, Weights]
    note: str
    maybe: int | None

    def __post_init__(self) -> None:
        if self.n < 0:
            raise ValueError(f"n is below zero: {self.n}")


@dataclass(frozen=True)
class Tree:
    children: "tuple[Tree, ...]"


CONTENT: dict[bytes, Any] = {}


def put(payload: Any) -> pb.PayloadRef:
    ref = ref_of(canonical_bytes(payload))
    CONTENT[ref.sha256] = payload
    return ref


def get(ref: pb.PayloadRef, of: Any) -> Any:
    return CONTENT[ref.sha256]


def good() -> pb.Record:
    other = Weights({"z": WEIGHTS["n"]})
    experts = {"a": WEIGHTS, "b": other, "c": WEIGHTS}
    reply = Reply(WEIGHTS, MASK, 3, 0.5, True, "a", (Part(1), Part(2)), (1, 2), {"k": 1, "l": 2}, experts, "", None)
    return records.encode(reply, put)


def decoded(record: pb.Record, limits: Limits, cls: Any = Reply) -> Any:
    return records.decode(cls, record, get, where=WHERE, limits=limits)


FIELDS = list(Reply.__dataclass_fields__)
ALL = "the fields " + ", ".join(FIELDS)


def value(record: pb.Record, name: str) -> Any:
    return record.fields.fields[FIELDS.index(name)].value


def setting(name: str, **kind: Any) -> Callable[[pb.Record], None]:
    def change(record: pb.Record) -> None:
        value(record, name).CopyFrom(pb.Value(**kind))

    return change


def more(**ref: Any) -> Callable[[pb.Record], None]:
    return lambda record: record.payloads.add(**{"sha256": bytes(32), "size": 64, **ref})


def field_of_its_own(record: pb.Record) -> None:
    record.fields.fields.add(name="extra", value=pb.Value(integer=1))


def unknown_in(message: Callable[[pb.Record], Any]) -> Callable[[pb.Record], None]:
    return lambda record: message(record).MergeFromString(UNKNOWN_FIELD)


def reorder(items: Any) -> None:
    first = type(items[0])()
    first.CopyFrom(items[0])
    items[0].CopyFrom(items[1])
    items[1].CopyFrom(first)


TOTAL = sum(ref.size for ref in good().payloads)
VERSION_ONLY = "message Record: expected fields of this version only, got "
ROWS: dict[str, tuple[Callable[[pb.Record], Any], str]] = {
    # ------------------------------------------------------------ of the message
    "unknown_protobuf_field": (unknown_in(lambda r: r), VERSION_ONLY + "unknown field number 15"),
    "unknown_protobuf_field_in_a_value": (
        unknown_in(lambda r: value(r, "parts").list.values[1].fields.fields[0].value),
        VERSION_ONLY + "an unknown field inside one of them",
    ),
    "unknown_protobuf_field_in_a_ref": (
        unknown_in(lambda r: r.payloads[0]),
        VERSION_ONLY + "an unknown field inside one of them",
    ),
    "another_schema": (
        lambda r: setattr(r, "schema", bytes(32)),
        f"schema of Reply (the other side has another version): expected {records.schema_id(Reply).hex()[:16]},"
        " got 0000000000000000",
    ),
    "no_schema": (
        lambda r: r.ClearField("schema"),
        f"schema of Reply (the other side has another version): expected {records.schema_id(Reply).hex()[:16]},"
        " got none",
    ),
    "another_class": (lambda r: setattr(r.fields, "type", "Memory"), "record: expected Reply, got 'Memory'"),
    # ------------------------------------------------------------ of the fields
    "unknown_field": (field_of_its_own, f"field Reply: expected {ALL}, got unknown field 'extra'"),
    "missing_field": (lambda r: r.fields.fields.pop(2), f"field Reply: expected {ALL}, got no field 'n'"),
    "no_fields_inside": (
        lambda r: value(r, "parts").list.values[0].fields.ClearField("fields"),
        "field Reply.parts[0]: expected the fields n, got no field 'n'",
    ),
    "repeated_field": (
        lambda r: r.fields.fields.append(r.fields.fields[2]),
        f"field Reply: expected {ALL}, got field 'n' 2 times",
    ),
    "reordered_fields": (lambda r: reorder(r.fields.fields), f"field Reply: expected {ALL}, got them in another order"),
    "field_without_value": (setting("n"), "field Reply.n: expected int, got nothing"),
    "none_where_there_must_be_something": (setting("n", none=True), "field Reply.n: expected int, got None"),
    "none_that_is_false": (
        setting("maybe", none=False),
        "field Reply.maybe: expected None to be marked by true, got false",
    ),
    "real_for_whole": (setting("n", real=1.0), "field Reply.n: expected int, got 1.0"),
    "whole_for_real": (setting("loss", integer=1), "field Reply.loss: expected float, got 1"),
    "whole_for_boolean": (setting("done", integer=1), "field Reply.done: expected bool, got 1"),
    "boolean_for_whole": (setting("n", boolean=True), "field Reply.n: expected int, got True"),
    "text_for_whole": (setting("n", text="1"), "field Reply.n: expected int, got '1'"),
    "long_text_for_whole": (setting("n", text="1" * 99), "field Reply.n: expected int, got a str"),
    "text_that_is_no_choice": (setting("label", text="c"), "field Reply.label: expected 'a' or 'b', got 'c'"),
    "value_that_its_class_refuses": (
        setting("n", integer=-1),
        "record Reply: expected values that its class takes, got n is below zero: -1",
    ),
    "nan": (
        setting("loss", real=float("nan")),
        "field Reply.loss: expected a finite number (the run's wire.non_finite), got nan",
    ),
    "infinity": (
        setting("loss", real=float("inf")),
        "field Reply.loss: expected a finite number (the run's wire.non_finite), got inf",
    ),
    "too_much_text": (
        setting("note", text="é" * 600),
        "field Reply.note: expected at most 1000 bytes of text, got 1200",
    ),
    "other_class_inside": (
        lambda r: setattr(value(r, "parts").list.values[1].fields, "type", "Reply"),
        "field Reply.parts[1]: expected Part, got a Reply",
    ),
    "list_of_other_length": (
        setting("pair", list=pb.List(values=[pb.Value(integer=1)])),
        "field Reply.pair: expected 2 values, got 1",
    ),
    "list_too_long": (
        setting("parts", list=pb.List(values=[pb.Value(integer=1)] * 1001)),
        "field Reply.parts: expected at most 1000 values, got 1001",
    ),
    "map_too_long": (
        setting("named", map=pb.Map(entries=[pb.Entry(key=f"{i:04}") for i in range(1001)])),
        "field Reply.named: expected at most 1000 values, got 1001",
    ),
    "key_too_long": (
        setting("named", map=pb.Map(entries=[pb.Entry(key="k" * 1001, value=pb.Value(integer=1))])),
        "field Reply.named: expected at most 1000 bytes of text, got 1001",
    ),
    "keys_out_of_order": (
        lambda r: reorder(value(r, "named").map.entries),
        "field Reply.named: expected ascending keys, each once, got 'k' after 'l'",
    ),
    "duplicate_keys": (
        lambda r: value(r, "named").map.entries.append(value(r, "named").map.entries[1]),
        "field Reply.named: expected ascending keys, each once, got 'l' after 'l'",
    ),
    "experts_for_a_map": (
        setting("named", experts=pb.Experts()),
        "field Reply.named: expected dict, got a value of kind experts",
    ),
    # ------------------------------------------------------------ of the payloads
    "payload_that_is_not_listed": (
        setting("mask", payload=9),
        "field Reply.mask: expected one of the record's 5 payloads, got number 9",
    ),
    "payload_that_no_field_has": (
        more(),
        "payloads of a record: expected a field for each, got number 5 that no field has",
    ),
    "payload_twice": (
        lambda r: r.payloads.append(r.payloads[0]),
        "payloads of a record: expected each once, got one of them again",
    ),
    "payload_of_another_type": (
        setting("mask", payload=0),
        "field Reply.mask: expected Mask, got Weights",
    ),
    "payload_of_a_terabyte": (
        more(size=10**12),
        "size of a payload: expected at most 4294967296 bytes, got 1000000000000",
    ),
    "payloads_of_too_many_bytes": (
        more(size=2**32),
        f"payloads of a record: expected at most {2**32} bytes, got {2**32 + TOTAL}",
    ),
    "payload_digest_of_another_kind": (more(sha256=b"abc"), "digest of a payload: expected 32 bytes, got 3"),
    "too_many_payloads": (
        lambda r: [r.payloads.add(sha256=bytes(32), size=64) for _ in range(96)],
        "record: expected at most 100 payloads, got 101",
    ),
    "experts_out_of_order": (
        lambda r: value(r, "experts").experts.payloads.reverse(),
        "field Reply.experts: expected experts by ascending node, each once, got 'b' after 'c'",
    ),
    "expert_twice": (
        lambda r: value(r, "experts").experts.payloads.append(value(r, "experts").experts.payloads[-1]),
        "field Reply.experts: expected experts by ascending node, each once, got 'c' after 'c'",
    ),
    "weights_for_an_expert": (
        lambda r: value(r, "experts").experts.payloads.insert(0, 0),
        "field Reply.experts: expected Expert, got Weights",
    ),
}
NEEDS_PAYLOADS = {
    "experts_out_of_order",
    "expert_twice",
    "weights_for_an_expert",
    "payload_of_another_type",
    "value_that_its_class_refuses",
}
LIMITS = Limits(n_payloads=100, n_items=1000, text_bytes=1000, record_bytes=2**32)


def test_what_the_rows_start_from_is_good() -> None:
    assert decoded(good(), LIMITS).n == 3
    records.check(Reply, good(), where=WHERE, limits=LIMITS)


@pytest.mark.parametrize("name", ROWS)
def test_a_record_is_refused_with_its_sentence(name: str) -> None:
    change, sentence = ROWS[name]
    record = good()
    change(record)
    with pytest.raises(RemoteFault) as refusal:
        decoded(record, LIMITS)
    assert str(refusal.value) == f"{WHERE}: {sentence}"


@pytest.mark.parametrize("name", sorted(set(ROWS) - NEEDS_PAYLOADS))
def test_it_is_refused_before_any_payload_is_here(name: str) -> None:
    change, sentence = ROWS[name]
    record = good()
    change(record)
    with pytest.raises(RemoteFault) as refusal:
        records.check(Reply, record, where=WHERE, limits=LIMITS)
    assert str(refusal.value) == f"{WHERE}: {sentence}"


def test_numbers_that_are_not_finite_pass_where_the_run_allows_them() -> None:
    record = good()
    setting("loss", real=float("inf"))(record)
    assert decoded(record, Limits(allow_non_finite=True)).loss == float("inf")


def test_a_member_that_a_union_lacks_is_refused() -> None:
    with pytest.raises(RemoteFault, match=rf"^{WHERE}: record: expected Part or Tree, got 'Reply'$"):
        decoded(good(), LIMITS, Part | Tree)


def nested(depth: int) -> pb.Value:
    made = pb.Value(fields=pb.Fields(type="Tree", fields=[pb.Field(name="children", value=pb.Value(list=pb.List()))]))
    for _ in range(depth):
        around = pb.Value(fields=pb.Fields(type="Tree"))
        around.fields.fields.add(name="children").value.list.values.append(made)
        made = around
    return made


def test_nesting_has_an_end() -> None:
    record = pb.Record(schema=records.schema_id(Tree), fields=nested(12).fields)
    with pytest.raises(RemoteFault, match=r"expected at most 16 nested values, got more$"):
        decoded(record, LIMITS, Tree)


def test_nesting_that_would_exhaust_the_stack_is_no_message() -> None:
    data = b""
    for _ in range(5000):  # Value.list.values, again and again
        data = b"\x0a" + varint(len(data)) + data
        data = b"\x32" + varint(len(data)) + data
    with pytest.raises(RemoteFault, match=rf"^{WHERE}: message Value: expected a protobuf message, got \d+ bytes"):
        parse(pb.Value, data, where=WHERE)


def varint(n: int) -> bytes:
    made = bytearray()
    while n > 127:
        made.append(n & 0x7F | 0x80)
        n >>= 7
    return bytes([*made, n])


def test_a_store_is_held_to_its_type_when_it_is_read() -> None:
    @dataclass(frozen=True)
    class Kept:
        store: AgentStore[Part]

    record = records.encode(Kept(AgentStore[Part]().kept("pi", Part(1))), put)
    record.fields.fields[0].value.map.entries[0].value.CopyFrom(pb.Value(integer=1))
    got = records.decode(Kept, record, get, where=WHERE)
    with pytest.raises(RemoteFault, match=rf"^{WHERE}: field Kept.store\['pi'\]: expected Part, got 1$"):
        got.store.get("pi")
    with pytest.raises(RemoteFault, match=rf"^{WHERE}: field Kept.store\['pi'\]: expected Part, got 1$"):
        records.check(Kept, record, where=WHERE, limits=LIMITS)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_flipped_bit_is_refused_or_read_as_what_the_class_allows(data: st.DataObject) -> None:
    serialised = bytearray(good().SerializeToString())
    bit = data.draw(st.integers(0, 8 * len(serialised) - 1))
    serialised[bit // 8] ^= 1 << bit % 8
    said = f"{WHERE}: nothing"
    try:
        record = parse(pb.Record, bytes(serialised), where=WHERE)
        records.check(Reply, record, where=WHERE, limits=LIMITS)
    except RemoteFault as fault:
        said = str(fault)
    assert said.startswith(f"{WHERE}: ")
