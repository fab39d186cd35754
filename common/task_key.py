"""Which task of whom: the name under which server and agent speak of one."""

from typing import NamedTuple

from common import pb


class Key(NamedTuple):
    """`pb.TaskKey` as a value that can be compared and hashed."""

    run: str
    step: int
    agent: str
    kind: "pb.TaskKind"

    @classmethod
    def of(cls, message: pb.TaskKey) -> "Key":
        return cls(message.run, message.step, message.agent, message.kind)

    def message(self) -> pb.TaskKey:
        return pb.TaskKey(run=self.run, step=self.step, agent=self.agent, kind=self.kind)

    def __str__(self) -> str:
        return f"run {self.run} step {self.step} agent {self.agent} ({self._what})"

    @property
    def logged(self) -> str:
        """For lines of a log, which are made of key=value."""
        return f"run={self.run} step={self.step} agent={self.agent} kind={self._what}"

    @property
    def _what(self) -> str:
        return pb.TaskKind.Name(self.kind).lower()
