"""The first State of a run, drawn in a child process: models may need torch, which the server never imports.

`python -m server.initial` reads one Request as JSON from standard input and writes the State's record to standard
output; its payloads are then in the folder that the request names. Exit code and one sentence on standard error say
what went wrong.
"""

import io
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from common import methods, models, pb, runfile, seeds
from common.blobs import Blobs
from common.errors import ConfigError, FederationError, LocalFault
from common.payloads import Blob, Payload, Weights
from common.wire import records

NPZ = "application/x-npz"
CHECK_S = 0.1
ENDED = (-signal.SIGHUP, -signal.SIGINT, -signal.SIGTERM)


@dataclass(frozen=True)
class Request:
    """`start`: payloads of an earlier run; `weights`: an .npz from [run] init, over the model's own draw."""

    run: pb.PayloadRef
    start: Mapping[str, pb.PayloadRef] = field(default_factory=dict)
    weights: pb.PayloadRef | None = None


def drawn(folder: Path, request: Request, check: Callable[[], None] = lambda: None) -> pb.Record:
    """The first State's record, made in a child process.

    `check` is called now and then meanwhile; what it raises ends the child.

    Raises:
        ConfigError: the run cannot begin as it is described.
        LocalFault: somebody has ended the child.
    """
    refs = {"run": request.run, "weights": request.weights}
    text = json.dumps(
        {name: _as_json(ref) for name, ref in refs.items() if ref is not None}
        | {"folder": str(folder), "start": {name: _as_json(ref) for name, ref in request.start.items()}}
    )
    child = subprocess.Popen(
        [sys.executable, "-m", "server.initial"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for the server, which ends its children in order
    )
    with child:
        try:
            record, complaint = _answered(child, text.encode(), check)
        except BaseException:
            child.kill()
            raise
    if child.returncode in ENDED:  # with all of the server's processes, which a service manager ends at once
        check()
        raise LocalFault(f"the process that draws the first state was ended by signal {-child.returncode}")
    if child.returncode:
        said = complaint.decode("utf-8", "replace").strip().splitlines() or [f"exit code {child.returncode}"]
        raise ConfigError(f"the first state could not be made: {said[-1]}")
    return pb.Record.FromString(record)


def _answered(child: "subprocess.Popen[bytes]", text: bytes, check: Callable[[], None]) -> tuple[bytes, bytes]:
    asked: bytes | None = text
    while True:
        try:
            return child.communicate(asked, CHECK_S)
        except subprocess.TimeoutExpired:
            asked = None  # it has that
            check()


def draw(blobs: Blobs, request: Request) -> pb.Record:
    """The first State of the run, as a record.

    Raises:
        ConfigError: payloads of the earlier run do not fit, or are of no use to the method.
    """
    run = runfile.from_blob(blobs.open(request.run))
    spec = run.at(1)
    method = methods.load(spec.method)
    model = models.load(
        spec.model,
        len(spec.classes or ()),
        objective=spec.training.objective,
        objective_options=spec.training.objective_options,
    )
    given = {name: blobs.open(ref) for name, ref in request.start.items()}
    if request.weights is not None:
        given["weights"] = _read_npz(blobs.open(request.weights), run.file.run.init)
    start = _Start(given)
    state = method.init(spec, model, start, seeds.generator(spec.seed, "init"))
    if unused := sorted(set(given) - start.read):
        raise ConfigError(
            f"method {spec.method} has no use for payload {unused[0]!r} of {run.file.run.init_from!r}; name those"
            f' that it needs in [run] init_map, for example {{weights = "weights"}}'
        )
    return records.encode(state, blobs.put)


def mapped(result: Mapping[str, pb.PayloadRef], init_map: Mapping[str, str], source: str) -> dict[str, pb.PayloadRef]:
    """The payloads of an earlier run's result under the names that the new run gives them."""
    if not init_map:
        return dict(result)
    missing = sorted(set(init_map.values()) - set(result))
    if missing:
        raise ConfigError(
            f"[run] init_map names a payload that run {source!r} does not have: {missing[0]!r}; it has"
            f" {', '.join(sorted(result)) or 'none'}"
        )
    return {name: result[theirs] for name, theirs in init_map.items()}


class _Start(Mapping[str, Payload]):
    """The payloads to start from; remembers which were read, for one that nobody reads is a mistake."""

    def __init__(self, payloads: Mapping[str, Payload]) -> None:
        self._payloads = payloads
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> Payload:
        payload = self._payloads[name]
        self.read.add(name)
        return payload

    def __iter__(self) -> Iterator[str]:
        return iter(self._payloads)

    def __len__(self) -> int:
        return len(self._payloads)


def _read_npz(blob: Blob, name: str) -> Weights:
    try:
        with np.load(io.BytesIO(blob.data), allow_pickle=False) as arrays:
            return Weights({key: arrays[key] for key in arrays.files})
    except (ValueError, OSError, EOFError) as error:
        raise ConfigError(f"[run] init: {name} is no .npz of arrays: {error}") from error


def _as_json(ref: pb.PayloadRef) -> list[str | int]:
    return [ref.sha256.hex(), ref.size]


def _ref(pair: list[str | int]) -> pb.PayloadRef:
    return pb.PayloadRef(sha256=bytes.fromhex(str(pair[0])), size=int(pair[1]))


def main() -> int:
    asked = json.load(sys.stdin)
    request = Request(
        run=_ref(asked["run"]),
        start={name: _ref(pair) for name, pair in asked["start"].items()},
        weights=_ref(asked["weights"]) if "weights" in asked else None,
    )
    try:
        record = draw(Blobs(Path(asked["folder"])), request)
    except FederationError as fault:
        sys.stderr.write(f"{fault}\n")
        return fault.exit_code
    sys.stdout.buffer.write(record.SerializeToString())
    return 0


if __name__ == "__main__":
    sys.exit(main())
