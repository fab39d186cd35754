"""What a method's State keeps for each agent, without holding it in memory."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from common import pb

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Deferred(Generic[T]):
    """A value that is still on the disk: its description, and how to read it."""

    value: Any  # pb.Value
    payloads: Sequence[pb.PayloadRef]
    decode: Callable[[], T]


@dataclass(frozen=True, eq=False)
class Made(Generic[T]):
    """A value that is computed when it is asked for."""

    make: Callable[[], T]


class AgentStore(Generic[T]):
    """agent -> value, immutable. A value from a checkpoint is decoded each time it is asked for, so memory stays flat.

    Values are what a field of a State may be. Keeping a payload that arrived, or was read from here, writes nothing.
    """

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, T | Deferred[T] | Made[T]] | None = None) -> None:
        self._values: dict[str, T | Deferred[T] | Made[T]] = dict(values or {})

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, agent: object) -> bool:
        return agent in self._values

    def __iter__(self) -> Iterator[str]:
        """The agents that something is kept for, by name."""
        return iter(sorted(self._values))

    def __repr__(self) -> str:
        return f"AgentStore({len(self)} agents)"

    def get(self, agent: str) -> T | None:
        value = self._values.get(agent)
        if isinstance(value, Made):
            return value.make()
        return value.decode() if isinstance(value, Deferred) else value

    def kept(self, agent: str, value: T) -> "AgentStore[T]":
        """This store with one agent's value put in or replaced."""
        return AgentStore({**self._values, agent: value})

    def made(self, agent: str, make: Callable[[], T]) -> "AgentStore[T]":
        """Likewise with a value that takes memory: it is computed when the checkpoint is written, one at a time."""
        return AgentStore({**self._values, agent: Made(make)})

    def items_as_kept(self) -> Iterator[tuple[str, T | Deferred[T]]]:
        """By agent name, nothing decoded; for those who write checkpoints."""
        for agent in self:
            value = self._values[agent]
            yield agent, value.make() if isinstance(value, Made) else value
