"""What is accepted from a peer: every size, count and depth has a cap, checked before anything is allocated."""

from dataclasses import dataclass

MIB = 1 << 20
PART_BYTES = 512 * 1024  # agreed at hello; 256 KiB to 1 MiB is where throughput is flat, measured on loopback


@dataclass(frozen=True)
class Limits:
    """Caps for one payload or record; those of a run also say which classes and taxonomy nodes exist."""

    part_bytes: int = MIB  # one serialised Part
    structure_bytes: int = MIB - 64  # structure of one payload: it travels in one Part
    payload_bytes: int = 1 << 32  # one payload, as it travels and as it is decoded
    record_bytes: int = 1 << 33  # all payloads of one record together
    n_payloads: int = 4096  # of one record
    n_arrays: int = 16384  # of one payload
    rank: int = 8
    name_bytes: int = 512  # names of arrays, taxonomy nodes, media types
    text_bytes: int = MIB  # one text in a record
    n_items: int = 1 << 20  # of one list or map in a record
    depth: int = 16  # of nested values in a record
    n_classes: int | None = None  # None: class ids are not checked
    nodes: frozenset[str] | None = None  # None: taxonomy nodes are not checked
    allow_non_finite: bool = False  # NaN and Inf: the run's [wire] non_finite


PEER = Limits()
# For what this program wrote itself: a State may keep a payload for each of very many agents.
OWN = Limits(payload_bytes=1 << 40, record_bytes=1 << 50, n_payloads=1 << 24, n_items=1 << 24, allow_non_finite=True)
