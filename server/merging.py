"""The replies of a closed step, one after the other, into the next State."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from common.errors import QuorumMissed, RemoteFault
from common.meter import trim_heap
from common.method import AgentInfo, Method, RunSpec, Step

log = logging.getLogger(__name__)


class Unusable(Exception):
    """`merge` found one agent's reply to be of no use."""

    def __init__(self, agent: str, reason: str) -> None:
        super().__init__(reason)
        self.agent = agent


class Replies:
    """In the order of agent names; each is decoded from its memory map when it is asked for."""

    def __init__(self, names: Sequence[str], infos: Mapping[str, AgentInfo], read: Callable[[str], Any]) -> None:
        self._names = names
        self._infos = infos
        self._read = read
        self.reading: str | None = None  # the agent whose reply `merge` has, None before the first and after the last

    def __iter__(self) -> Iterator[tuple[AgentInfo, Any]]:  # Any: of a type that only the method knows
        for name in self._names:
            self.reading = name
            yield self._infos[name], self._read(name)
        self.reading = None


def merged(method: Method, spec: RunSpec[Any], state: Any, replies: Replies, step: Step) -> Any:
    """The next State; None when the method says that there is nothing to merge.

    Raises:
        Unusable: the reply that was read last breaks the method's rules.
    """
    trim_heap()  # what the uploads left behind would lie under the sum: 20 MB after 32 uploads of 20 MB
    try:
        return method.merge(spec, state, iter(replies), step)
    except QuorumMissed as missed:
        log.warning("nothing_merged run=%s round=%d reason=%s", spec.name, step.round, missed)
        return None
    except RemoteFault as fault:
        if replies.reading is None:
            raise
        raise Unusable(replies.reading, str(fault)) from fault
