"""Bytes that agents report, against those that a relay between them and the server saw; and docs/metering.md."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from common import pb
from tests.certificates import Authority
from tests.processes import federation, write_data
from tests.relay import relay
from tests.test_lan import RUN, reported, wait_for_agents

PAGE = (Path(__file__).parent.parent / "docs" / "metering.md").read_text()
AGENTS = "ab"
RUNS = {"344 bytes": (8, 20), "1.6 MB": (40_000, 3)}  # model: (width, rounds); so that all is over in a few seconds


@dataclass(frozen=True)
class Row:
    """Of one task, in bytes: what was reported, and what the relay saw of the whole run by number of tasks."""

    up: float
    down: float
    seen_up: float
    seen_down: float

    @property
    def added(self) -> tuple[float, float]:
        return self.seen_up / self.up - 1, self.seen_down / self.down - 1


def measured(folder: Path, server_flags: tuple[str, ...], agent_flags: dict[str, tuple[str, ...]]) -> dict[str, Row]:
    found = {}
    with federation(folder) as fleet:
        fleet.server(*server_flags)
        fleet.operations()
        with relay(fleet.port) as between:
            for seed, name in enumerate(AGENTS):
                data = write_data(folder / f"{name}.npz", 32, seed=seed)
                fleet.agent(name, data, *agent_flags.get(name, ()), via=between.port)
            wait_for_agents(fleet, len(AGENTS))
            for model, (hidden, rounds) in RUNS.items():
                before = between.bytes_up, between.bytes_down
                fleet.submit(RUN.format(rounds=rounds, hidden=hidden, agents=len(AGENTS)), f"width-{hidden}")
                reports = fleet.finished(f"width-{hidden}").rounds
                assert not any(agent.transfer_missing for report in reports for agent in report.agents)
                seen = between.bytes_up - before[0], between.bytes_down - before[1]
                tasks = rounds * len(AGENTS)
                found[model] = Row(*(n / tasks for n in (*reported(reports), *seen)))
    return found


@pytest.fixture(scope="module", params=["in the clear", "mutual TLS"])
def connection(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Row]]:
    folder = tmp_path_factory.mktemp("bytes")
    if request.param == "in the clear":
        return request.param, measured(folder, (), {})
    authority = Authority(folder)
    own, ca = authority.server(), str(authority.file)
    server_flags = ("--tls-cert", str(own.certificate), "--tls-key", str(own.key), "--client-ca", ca)
    agent_flags = {}
    for name in AGENTS:
        own = authority.host(name)
        agent_flags[name] = ("--tls-ca", ca, "--tls-cert", str(own.certificate), "--tls-key", str(own.key))
    return request.param, measured(folder, server_flags, agent_flags)


def stated(connection: str, model: str) -> Row:
    """The row of the page's table."""
    number = r" *([\d,]+) *"
    (row,) = re.findall(rf"^\| {connection} \| {model} \|{number}\|{number}\|{number}\|{number}\|", PAGE, re.MULTILINE)
    return Row(*(float(text.replace(",", "")) for text in row))


def percentages(connection: str, model: str) -> list[str]:
    """The last two columns of that row: what its first four say."""
    (row,) = re.findall(rf"^\| {connection} \| {model} \|(.*)\|$", PAGE, re.MULTILINE)
    return [text.strip() for text in row.split("|")[-2:]]


def shown(share: float) -> str:
    return f"{share:.0%}".replace("%", " %") if share > 0.1 else f"{share:.2%}".replace("%", " %")


@pytest.mark.slow
@pytest.mark.parametrize("model", RUNS)
def test_what_is_added_to_the_bytes_reported_is_what_the_page_says(
    connection: tuple[str, dict[str, Row]], model: str
) -> None:
    kind, rows = connection
    page, row = stated(kind, model), rows[model]
    # what is reported depends on the payloads, and on lengths of numbers in reports
    assert row.up == pytest.approx(page.up, rel=0.03)
    assert row.down == pytest.approx(page.down, rel=0.03)
    assert [shown(share) for share in page.added] == percentages(kind, model)
    # what is added depends on how bytes fall into frames and on how many window updates they need
    for got, said in zip(row.added, page.added, strict=True):
        assert 0.6 * said < got < 1.6 * said, row


@pytest.mark.parametrize("message", [pb.ResourceReport, pb.TransferReport, pb.Span])
def test_every_column_of_a_report_is_explained(message: type) -> None:
    (section,) = re.findall(rf"^## {message.DESCRIPTOR.name}$(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    explained = re.findall(r"^\| `(\w+)", section, re.MULTILINE)
    assert explained == [field.name for field in message.DESCRIPTOR.fields]
