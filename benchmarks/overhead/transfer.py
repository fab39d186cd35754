"""Upload and download of a large model, beside bare streams: how much of the link is left to the federation."""

import statistics
from dataclasses import dataclass
from pathlib import Path

from benchmarks import fleet
from benchmarks.overhead import bare
from benchmarks.overhead.bare import Streams
from benchmarks.overhead.empty_round import watch_to_end
from common import pb

PART_BYTES = 512 << 10  # what server and agents agree on
RUN = """
[run]
method = "fedavg"
rounds = {rounds}
[model]
name = "mlp"
input = "8x8x1"
hidden = {hidden}
[optimiser]
steps = 1
[data]
name = "digits"
n_agents = 2
[agents]
min = 1
fraction = 0.5
[evaluation]
every = 0
"""


@dataclass(frozen=True)
class Transfer:
    """Seconds for one model each way, medians over rounds, from the agent's own report: request to receipt."""

    model_bytes: int
    up_s: float
    down_s: float
    bare: Streams

    @property
    def up_ratio(self) -> float:
        """Our throughput by that of a bare stream which also hashes, writes and calls fsync."""
        return self.bare.up_durable_s / self.up_s

    @property
    def down_ratio(self) -> float:
        return self.bare.down_durable_s / self.down_s


def measure(folder: Path, *, model_bytes: int, rounds: int) -> Transfer:
    """Two agent processes, one of them drawn each round to train one step; so each model that goes up is new.

    A download counts where the agent had to make one: not when it trained the round before, because then the mean of
    one reply is what it still has.
    """
    folder.mkdir(parents=True, exist_ok=True)
    hidden = model_bytes // 4 // (64 + 1 + 10)
    with fleet.server(folder) as federation, fleet.agents(federation, folder, 2, n_processes=2):
        list(watch_to_end(federation, "transfer", RUN.format(rounds=rounds, hidden=hidden)))
        detail = federation.operations.ShowRun(pb.ShowRunRequest(run="transfer"))
    reports = [agent for r in detail.rounds[1:] for agent in r.agents if not agent.transfer_missing]
    up_s = statistics.median(agent.transfer.submit_s for agent in reports)
    fetched = [agent for agent in reports if agent.transfer.bytes_down > model_bytes / 2]
    down_s = statistics.median(agent.report.seconds["fetch"] for agent in fetched)
    sent = int(statistics.median(agent.transfer.bytes_up for agent in reports))
    with bare.served(folder) as channel:
        streams = bare.streams(channel, folder, part_bytes=PART_BYTES, total_bytes=sent)
    return Transfer(sent, up_s, down_s, streams)
