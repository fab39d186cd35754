"""A small run as a server would tell of it."""

from benchmarks import results
from benchmarks.results import Results, RunRow
from common import pb


def evaluation(moment: str, n: int, correct: float, reading: str = "model") -> pb.Evaluation:
    sums = {"accuracy": correct, "loss": 0.5 * n}
    return pb.Evaluation(moment=moment, reading=reading, label_space="all", split="test", n=n, sums=sums, seconds=0.1)


def detail() -> pb.RunDetail:
    """Two rounds of agents a (10 test samples) and b (30), evaluated after each."""
    rounds, evaluations = [], []
    for r, right in ((1, (5, 6)), (2, (8, 12))):
        report = pb.ResourceReport(cpu_s=0.2, rss_peak_delta_bytes=1_000_000, n_samples=40, loss=1.5, wall_s=0.3)
        report.seconds["train"] = 0.25
        transfer = pb.TransferReport(bytes_up=1000, bytes_down=500)
        a = pb.AgentReport(agent="a", outcome="merged", report=report, transfer=transfer, task="digits")
        b = pb.AgentReport(agent="b", outcome="merged", report=report, transfer_missing=True, task="digits")
        rounds.append(pb.RoundReport(round=r, seconds=0.5, agents=[a, b]))
        answers = [
            pb.AgentReport(agent=name, task="digits", evaluations=[evaluation("merged", n, k)])
            for name, n, k in zip("ab", (10, 30), right, strict=True)
        ]
        evaluations.append(pb.EvaluationReport(round=r, moment="merged", agents=answers, missing=["c"]))
    summary = pb.RunSummary(method="fedavg", status="done", created_at=100.0, finished_at=103.0, state_sha256="ab")
    return pb.RunDetail(summary=summary, rounds=rounds, evaluations=evaluations)


def row(message: pb.RunDetail | None = None) -> RunRow:
    return results.from_detail(
        detail() if message is None else message, label="FedAvg", seed=1, stage="", config={"run": {"rounds": 2}}
    )


def experiment(*runs: RunRow) -> Results:
    return Results("quickstart", "abc", {"python": "3.11"}, {"cores": 2}, runs, ({"label": "FedAvg"},))
