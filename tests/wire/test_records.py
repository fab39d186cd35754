"""Records: what a dataclass may hold, what comes back, and which types two builds must agree on."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import pb
from common.blobs import Blobs
from common.errors import LocalFault
from common.method import ModelSpec, Training
from common.payloads import Mask, Payload, Prompt, Prototypes, Sparse, SparseEntries, Weights
from common.store import AgentStore
from common.wire import records, schema
from common.wire.canonical import Expert
from tests.wire.examples import MASK, PROMPT, PROTOTYPES, SPARSE, WEIGHTS, assert_same


@dataclass(frozen=True)
class Inner:
    size: int
    shares: tuple[float, ...]


@dataclass(frozen=True)
class Other:
    text: str


@dataclass(frozen=True)
class Everything:
    yes: bool
    n: int
    x: float
    text: str
    choice: Literal["a", "b", 3]
    maybe: int | None
    number: int | float
    any_scalar: bool | int | float | str
    several: list[int]
    pair: tuple[int, str]
    named: dict[str, float]
    options: Mapping[str, bool | int | float | str]
    inner: Inner
    one_of: Inner | Other | None
    weights: Weights
    maybe_mask: Mask | None
    either: Prompt | Prototypes
    any_payload: Payload
    prompts: tuple[Prompt, ...]
    experts: dict[str, Weights]
    nested: dict[str, tuple[Inner, ...]]
    kept: AgentStore[Inner] = field(default_factory=AgentStore)


@dataclass(frozen=True)
class Nothing:
    pass


EVERYTHING = Everything(
    yes=True,
    n=-(2**63),
    x=float("-inf"),
    text="é\n",
    choice=3,
    maybe=None,
    number=2,
    any_scalar=False,
    several=[3, 1],
    pair=(1, ""),
    named={"b": 0.1, "a": 1},
    options={"k": 1, "l": 1.0, "m": "1", "n": True},
    inner=Inner(2, (1.0, 0.5)),
    one_of=Other("o"),
    weights=WEIGHTS,
    maybe_mask=MASK,
    either=PROTOTYPES,
    any_payload=SPARSE,
    prompts=(PROMPT, PROMPT),
    experts={"root": WEIGHTS, "leaf": Weights({"z": np.zeros(2)})},
    nested={"k": (Inner(1, ()),)},
    kept=AgentStore({"pi": Inner(7, (0.25,))}),
)


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(tmp_path)


def returned(obj: Any, blobs: Blobs, cls: Any = None) -> Any:
    record = pb.Record.FromString(records.encode(obj, blobs.put).SerializeToString())
    return records.decode(cls or type(obj), record, lambda ref, _: blobs.open(ref))


def assert_equal(got: Any, expected: Any) -> None:
    """By type too: 1, 1.0 and True are different values here."""
    match expected:
        case Weights() | Prompt() | Prototypes() | Mask() | Sparse():
            assert_same(got, expected)
        case AgentStore():
            assert list(got) == list(expected)
            for agent in expected:
                assert_equal(got.get(agent), expected.get(agent))
        case Mapping():
            assert sorted(got) == sorted(expected)
            for key in expected:
                assert_equal(got[key], expected[key])
        case list() | tuple():
            assert type(got) is type(expected)
            for a, b in zip(got, expected, strict=True):
                assert_equal(a, b)
        case _ if hasattr(expected, "__dataclass_fields__"):
            assert type(got) is type(expected)
            for f in fields(expected):
                assert_equal(getattr(got, f.name), getattr(expected, f.name))
        case _:
            assert (type(got), got) == (type(expected), expected)


def test_everything_that_a_record_may_hold_comes_back(blobs: Blobs) -> None:
    expected = Everything(**{**vars(EVERYTHING), "named": {"b": 0.1, "a": 1.0}})  # whole numbers do for real ones
    assert_equal(returned(EVERYTHING, blobs), expected)


def test_the_contract_s_own_dataclasses_come_back(blobs: Blobs) -> None:
    for obj in (Nothing(), Training(lr=0.5, steps=3), ModelSpec("mlp", {"width": 8, "bias": True})):
        assert returned(obj, blobs) == obj


def test_numbers_of_numpy_are_numbers(blobs: Blobs) -> None:
    got = returned(Inner(np.int64(3), (np.float32(0.5), np.float64(2))), blobs)
    assert_equal(got, Inner(3, (0.5, 2.0)))


def test_a_record_of_a_union_is_of_its_member(blobs: Blobs) -> None:
    assert returned(Other("x"), blobs, Inner | Other) == Other("x")


def test_a_payload_stands_in_a_record_once(blobs: Blobs) -> None:
    record = records.encode(Everything(**{**vars(EVERYTHING), "any_payload": WEIGHTS}), blobs.put)
    assert len({ref.sha256 for ref in record.payloads}) == len(record.payloads) == 6
    assert records.payload_fields(record) == (
        "Everything.weights",
        "Everything.maybe_mask",
        "Everything.either",
        "Everything.prompts[0]",
        "Everything.experts",
        "Everything.experts",
    )


def test_the_same_dataclass_has_the_same_digest(blobs: Blobs) -> None:
    record = records.encode(EVERYTHING, blobs.put)
    again = records.encode(returned(EVERYTHING, blobs), blobs.put)
    assert records.digest(record) == records.digest(again)
    other = Everything(**{**vars(EVERYTHING), "n": 1})
    assert records.digest(records.encode(other, blobs.put)) != records.digest(record)


def test_experts_come_one_by_one_and_by_node(blobs: Blobs) -> None:
    asked: list[type] = []
    record = records.encode(EVERYTHING, blobs.put)

    def get(ref: pb.PayloadRef, of: Any) -> Any:
        asked.append(of)
        return blobs.open(ref)

    got = records.decode(Everything, record, get)
    assert list(got.experts) == ["leaf", "root"]
    assert asked.count(Expert) == 2
    assert (Prompt, Prototypes) in asked


SCHEMA = "Inner(size:int,shares:tuple[float,...])"


def test_a_schema_is_names_and_types_at_any_depth() -> None:
    assert schema.text(Inner) == SCHEMA
    assert f"one_of:{SCHEMA}|Other(text:str)|none," in schema.text(Everything)
    assert "experts:experts," in schema.text(Everything)
    assert f"kept:store[{SCHEMA}])" in schema.text(Everything)
    assert "choice:Literal['a','b',3]," in schema.text(Everything)


def test_a_schema_id_changes_with_any_name_or_type_at_any_depth() -> None:
    def made(inner: type = int, name: str = "size", outer: str = "Outer") -> bytes:
        part = dataclass(frozen=True)(type("Part", (), {"__annotations__": {name: inner}}))
        whole = type(outer, (), {"__annotations__": {"parts": tuple[part, ...]}})
        return records.schema_id(dataclass(frozen=True)(whole))

    ids = {made(), made(inner=float), made(name="length"), made(outer="Else")}
    assert made() == made()
    assert len(ids) == 4
    assert records.schema_id(Inner, Other) != records.schema_id(Other, Inner)


def test_optional_says_the_same_however_it_is_written() -> None:
    assert schema.text(int | None) == schema.text(None | int) == "int|none"
    assert schema.text(Mapping[str, Weights]) == schema.text(dict[str, Weights]) == "experts"


@dataclass(frozen=True)
class Tree:
    children: "tuple[Tree, ...]"


def test_a_dataclass_may_hold_its_own_kind(blobs: Blobs) -> None:
    tree = Tree((Tree(()), Tree((Tree(()),))))
    assert returned(tree, blobs) == tree


def wrong(**changed: Any) -> Everything:
    return Everything(**{**vars(EVERYTHING), **changed})


@pytest.mark.parametrize(
    ("obj", "sentence"),
    [
        (wrong(n=1.5), "field Everything.n cannot be sent: expected int, got 1.5"),
        (wrong(n=True), "field Everything.n cannot be sent: expected int, got True"),
        (wrong(n=2**63), f"field Everything.n cannot be sent: expected a number of 64 bits, got {2**63}"),
        (wrong(yes=1), "field Everything.yes cannot be sent: expected bool, got 1"),
        (wrong(x="1"), "field Everything.x cannot be sent: expected float, got '1'"),
        (wrong(choice="c"), "field Everything.choice cannot be sent: expected 'a' or 'b' or 3, got 'c'"),
        (wrong(weights={"w": np.ones(1)}), "field Everything.weights cannot be sent: expected Weights, got a dict"),
        (wrong(maybe_mask=WEIGHTS), "field Everything.maybe_mask cannot be sent: expected Mask or None, got a Weights"),
        (wrong(pair=(1, "", 2)), "field Everything.pair cannot be sent: expected 2 values, got 3"),
        (wrong(several=[1, None]), "field Everything.several[1] cannot be sent: expected int, got None"),
        (wrong(inner=Other("")), "field Everything.inner cannot be sent: expected Inner, got a Other"),
        (wrong(nested={"k": (1,)}), "field Everything.nested['k'][0] cannot be sent: expected Inner, got 1"),
        (wrong(named={3: 1.0}), "field Everything.named cannot be sent: expected text as keys, got 3"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_value_that_does_not_fit_its_field_is_named(obj: Everything, sentence: str, blobs: Blobs) -> None:
    with pytest.raises(LocalFault) as fault:
        records.encode(obj, blobs.put)
    assert str(fault.value) == sentence


@pytest.mark.parametrize(
    "of", [np.ndarray, bytes, dict[int, str], set[int], tuple, int | bool | Inner | list[int] | list[str], Any]
)
def test_a_type_that_cannot_travel_is_named(of: Any) -> None:
    with pytest.raises(LocalFault, match="cannot be part of a record: "):
        schema.text(of)


def test_nesting_has_an_end(blobs: Blobs) -> None:
    tree = Tree(())
    for _ in range(20):
        tree = Tree((tree,))
    with pytest.raises(LocalFault, match="expected at most 16 nested values, got more"):
        records.encode(tree, blobs.put)


scalars = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text()


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.text(), scalars, max_size=5))
def test_any_options_come_back(options: dict[str, Any]) -> None:
    record = records.encode(ModelSpec("m", options), no_payload)
    assert_equal(records.decode(ModelSpec, record, no_payload), ModelSpec("m", options))


def no_payload(*_: Any) -> Iterator[None]:
    raise AssertionError("there is no payload here")


@dataclass(frozen=True)
class State:
    scores: AgentStore[Inner]
    uploads: AgentStore[Weights]
    maps: AgentStore[dict[str, Weights]]


def test_what_is_kept_for_agents_is_decoded_only_when_it_is_asked_for(blobs: Blobs) -> None:
    state = State(
        AgentStore[Inner]().kept("pi", Inner(1, ())).kept("jetson", Inner(2, ())),
        AgentStore[Weights]().kept("pi", WEIGHTS),
        AgentStore[dict[str, Weights]]().kept("pi", {"root": WEIGHTS}),
    )
    record = records.encode(state, blobs.put)
    opened: list[bytes] = []

    def get(ref: pb.PayloadRef, of: Any) -> Any:
        opened.append(ref.sha256)
        return blobs.open(ref)

    got = records.decode(State, record, get)
    assert opened == []
    assert records.encode(got, blobs.put) == record  # carried over as it is
    assert opened == []
    upload = got.uploads.get("pi")
    assert upload is not None
    assert_same(upload, WEIGHTS)
    assert got.uploads.get("jetson") is None
    assert got.scores.get("jetson") == Inner(2, ())
    assert len(opened) == 1


def test_keeping_an_upload_writes_nothing(blobs: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    upload = blobs.open(blobs.put(Weights({"w": np.ones(5, "f4")}), "float16"))
    first = records.encode(State(AgentStore(), AgentStore[Weights]().kept("pi", upload), AgentStore()), blobs.put)
    got = records.decode(State, first, lambda ref, _: blobs.open(ref))
    moved = State(AgentStore(), AgentStore[Weights]().kept("pi", got.uploads.get("pi")), AgentStore())
    monkeypatch.setattr("common.wire.canonical.encode", None)
    assert records.encode(moved, blobs.put) == first
    assert blobs.digests() == {upload.origin.sha256}


def test_payloads_of_a_store_are_numbered_anew_in_another_record(blobs: Blobs) -> None:
    one = Weights({"w": np.ones(1)})
    two = Weights({"w": np.ones(2)})
    stores = AgentStore[Weights]().kept("a", one).kept("b", two)
    experts = AgentStore[dict[str, Weights]]().kept("c", {"n": one, "m": two})
    got = records.decode(
        State, records.encode(State(AgentStore(), stores, experts), blobs.put), lambda ref, _: blobs.open(ref)
    )
    shifted = State(AgentStore(), got.uploads.kept("0", Weights({"w": np.ones(3)})), got.maps)
    again = records.decode(State, records.encode(shifted, blobs.put), lambda ref, _: blobs.open(ref))
    assert [len(again.uploads.get(agent)["w"]) for agent in again.uploads] == [3, 1, 2]
    assert {node: len(w["w"]) for node, w in again.maps.get("c").items()} == {"m": 2, "n": 1}


def test_sparse_entries_are_no_payload_of_their_own() -> None:
    with pytest.raises(LocalFault, match="cannot be part of a record"):
        schema.text(tuple[SparseEntries, ...])
