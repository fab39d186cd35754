"""What an agent holds: its views and class names, brought under a run's class list by name."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from common import pb
from common.errors import EXIT_DATA, ConfigError
from common.samples import Samples


@dataclass(frozen=True)
class AgentData:
    """Views in label order `classes`. `extra` are images that came without labels."""

    name: str
    classes: tuple[str, ...]
    train: Samples
    test: Samples
    extra: Samples | None = None

    @property
    def unlabelled(self) -> Samples:
        """Images without labels: those that came so, else the training images."""
        return self.train.unlabelled() if self.extra is None else self.extra


def under(data: AgentData, classes: Sequence[str] | None) -> AgentData:
    """The data with their labels turned into those of the class list; None: as they are.

    Raises:
        ConfigError: the data have a class that the list does not.
    """
    if classes is None or tuple(classes) == data.classes:
        return data
    places = {name: label for label, name in enumerate(classes)}
    unknown = [name for name in data.classes if name not in places]
    if unknown:
        raise ConfigError(
            f"data {data.name!r} have {len(unknown)} of {len(data.classes)} classes that the run does not know; "
            f"rename or remove them: expected some of {shown(classes)}, got {shown(unknown)}",
            exit_code=EXIT_DATA,
        )
    table = np.array([places[name] for name in data.classes], np.int64)
    return replace(
        data,
        classes=tuple(classes),
        train=data.train.relabel(table, len(classes)),
        test=data.test.relabel(table, len(classes)),
    )


def facts(data: AgentData, *, share_counts: bool) -> pb.DataFacts:
    """What the agent tells the server; class counts only when its owner shares them."""
    return pb.DataFacts(
        name=data.name,
        n_classes=len(data.classes),
        classes_sha256=hashlib.sha256("\x00".join(data.classes).encode()).digest(),
        n_train=len(data.train),
        n_test=len(data.test),
        n_unlabelled=len(data.extra) if data.extra is not None else 0,
        counts=data.train.counts().tolist() if share_counts else (),
        has_counts=share_counts,
    )


def shown(names: Sequence[str], at_most: int = 8) -> str:
    """Names for a person, not too many."""
    rest = f" and {len(names) - at_most} more" if len(names) > at_most else ""
    return ", ".join(repr(name) for name in names[:at_most]) + rest
