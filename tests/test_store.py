"""An immutable map from agent to value, decoded when asked."""

import pytest

from common import pb
from common.store import AgentStore, Deferred


def test_keeping_gives_a_new_store_and_leaves_the_old_one() -> None:
    empty = AgentStore[int]()
    one = empty.kept("pi", 1)
    two = one.kept("pi", 2).kept("jetson", 3)
    assert [empty.get("pi"), one.get("pi"), two.get("pi")] == [None, 1, 2]
    assert list(two) == ["jetson", "pi"]
    assert len(two) == 2
    assert "pi" in two
    assert "pi" not in empty


def test_nothing_can_be_written_into_it() -> None:
    values = {"pi": 1}
    store = AgentStore[int](values)
    values["pi"] = 2
    assert store.get("pi") == 1
    with pytest.raises(TypeError):
        store["pi"] = 2


def test_a_deferred_value_is_decoded_at_each_get_and_not_before() -> None:
    calls: list[int] = []
    deferred = Deferred(pb.Value(integer=7), [], lambda: calls.append(1) or 7)
    store = AgentStore[int]({"pi": deferred}).kept("jetson", 8)
    assert [value for _, value in store.items_as_kept()] == [8, deferred]
    assert repr(store) == "AgentStore(2 agents)"
    assert calls == []
    assert [store.get("pi"), store.get("pi")] == [7, 7]
    assert calls == [1, 1]


def test_a_made_value_is_computed_when_it_is_asked_for_or_written() -> None:
    calls: list[int] = []
    store = AgentStore[int]().made("pi", lambda: calls.append(1) or 7)
    assert ("pi" in store, calls) == (True, [])
    assert store.get("pi") == 7
    assert list(store.items_as_kept()) == [("pi", 7)]
    assert calls == [1, 1]
