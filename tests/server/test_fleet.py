"""Who is there, what is pushed to whom, and what each engine hears of it."""

import queue
import threading

import pytest

from common import pb
from common.errors import RemoteFault
from common.task_key import Key
from server.events import Gone, Joined, Prepared, Progressed, Refused, Replied, Took, Transferred
from server.fleet import Fleet


class Line:
    def __init__(self) -> None:
        self.sent: list[pb.ServerEvent] = []
        self.last: pb.ServerEvent | None = None

    def push(self, event: pb.ServerEvent) -> None:
        self.sent.append(event)

    def end(self, event: pb.ServerEvent) -> None:
        self.last = event


def hello(host: str, *agents: str, instance: str = "i1") -> pb.Hello:
    return pb.Hello(host=host, instance=instance, agents=[pb.AgentDescription(name=a) for a in agents or (host,)])


def offer(agent: str, step: int = 0, run: str = "r", payload: bytes = b"p" * 32) -> pb.Offer:
    task = pb.Record(payloads=[pb.PayloadRef(sha256=payload, size=1)])
    return pb.Offer(key=pb.TaskKey(run=run, step=step, agent=agent), run=pb.PayloadRef(sha256=b"run"), task=task)


def heard(events: "queue.SimpleQueue[object]") -> list[object]:
    return [events.get_nowait() for _ in range(events.qsize())]


def test_offer_goes_down_the_line_of_its_agents_host() -> None:
    fleet, a, b = Fleet(), Line(), Line()
    fleet.join(hello("a", "a/0", "a/1"), a)
    fleet.join(hello("b"), b)
    assert fleet.offer(offer("a/1"))
    assert [event.offer.key.agent for event in a.sent] == ["a/1"]
    assert b.sent == []


def test_offer_to_one_who_is_not_there_is_false() -> None:
    fleet, line = Fleet(), Line()
    fleet.join(hello("a"), line)
    fleet.left("a", line)
    assert not fleet.offer(offer("a"))
    assert not fleet.offer(offer("never-seen"))
    assert not fleet.may_fetch("a", b"p" * 32)


def test_an_agent_may_fetch_what_is_offered_until_the_offer_is_over() -> None:
    fleet = Fleet()
    fleet.join(hello("a", "a/0", "a/1"), Line())
    fleet.offer(offer("a/0"))
    assert fleet.may_fetch("a/0", b"p" * 32)
    assert fleet.may_fetch("a/0", b"run")
    assert not fleet.may_fetch("a/1", b"p" * 32)
    assert not fleet.may_fetch("a/0", b"q" * 32)
    fleet.tell(Replied(Key("r", 0, "a/0", pb.WORK)))
    assert not fleet.may_fetch("a/0", b"p" * 32)


def test_withdrawing_says_so_and_ends_the_right_to_fetch() -> None:
    fleet, line = Fleet(), Line()
    fleet.join(hello("a"), line)
    fleet.offer(offer("a"))
    fleet.withdraw(Key("r", 0, "a", pb.WORK), "the step is closed")
    assert line.sent[-1].withdrawn.reason == "the step is closed"
    assert not fleet.may_fetch("a", b"p" * 32)


def test_any_number_of_runs_may_have_an_offer_open_with_one_agent() -> None:
    fleet = Fleet()
    fleet.join(hello("a"), Line())
    payloads = {f"r{n}": bytes([n]) * 32 for n in range(100)}
    for run, payload in payloads.items():
        fleet.offer(offer("a", run=run, payload=payload))
    assert all(fleet.may_fetch("a", payload) for payload in payloads.values())


def test_open_offers_of_one_run_are_bounded() -> None:
    fleet = Fleet()
    fleet.join(hello("a"), Line())
    for step in range(100):
        fleet.offer(offer("a", step, payload=bytes([step]) * 32))
    assert [step for step in range(100) if fleet.may_fetch("a", bytes([step]) * 32)] == [99]
    fleet.withdraw(Key("r", 98, "a", pb.WORK), "the step is closed")
    assert fleet.may_fetch("a", bytes([99]) * 32)
    fleet.offer(offer("a", run="other", payload=b"o" * 32))
    fleet.forget("r")
    assert not fleet.may_fetch("a", bytes([99]) * 32)
    assert fleet.may_fetch("a", b"o" * 32)


def test_an_offer_goes_once_over_a_stream_and_again_over_the_next_or_after_an_answer() -> None:
    fleet, line, later = Fleet(), Line(), Line()
    task = offer("a", 1)
    assert not fleet.offer(task)
    fleet.join(hello("a"), line)
    assert fleet.offer(task)
    assert fleet.offer(task), "the engine hears that a has joined"
    assert len(line.sent) == 1
    fleet.heard("a", pb.AgentEvent(declined=pb.Declined(key=task.key, why=pb.OTHER_MEMORY)))
    fleet.offer(task)
    fleet.offer(offer("a", 1, payload=b"q" * 32))
    task = offer("a", 1, payload=b"q" * 32)
    task.memory_step = 7
    fleet.offer(task)
    task.deadline_s = 9
    fleet.offer(task)
    assert len(line.sent) == 4
    fleet.left("a", line)
    fleet.join(hello("a"), later)
    fleet.offer(offer("a", 1, payload=b"q" * 32))
    assert len(later.sent) == 1


def test_an_engine_hears_of_its_own_run_and_of_all_who_come_and_go() -> None:
    fleet, line = Fleet(), Line()
    mine, other = fleet.subscribe("r"), fleet.subscribe("other")
    fleet.join(hello("a", "a/1", "a/0"), line)
    key = pb.TaskKey(run="r", step=3, agent="a/0")
    report = pb.TransferReport(key=key, bytes_up=7)
    facts = pb.DataFacts(n_train=9)
    fleet.heard("a", pb.AgentEvent(accepted=pb.Accepted(key=key)))
    fleet.heard("a", pb.AgentEvent(progress=pb.Progress(key=key, phase="train", fraction=0.5)))
    fleet.heard("a", pb.AgentEvent(prepared=pb.Prepared(key=key, data=facts, classes=["x", "y"])))
    fleet.heard("a", pb.AgentEvent(transfer=report))
    declined = pb.Declined(key=key, why=pb.OTHER_MEMORY, reason="wiped", memory_step=-1)
    fleet.heard("a", pb.AgentEvent(declined=declined))
    fleet.left("a", line)
    of = Key.of(key)
    gone = Gone(("a/0", "a/1"))
    assert heard(mine) == [
        Joined(("a/0", "a/1")),
        Took(of),
        Progressed(of, "train", 0.5),
        Prepared(of, facts, ("x", "y")),
        Transferred(of, report),
        Refused(of, pb.OTHER_MEMORY, "wiped", -1),
        gone,
    ]
    assert heard(other) == [Joined(("a/0", "a/1")), gone]


def test_a_host_cannot_speak_for_another() -> None:
    fleet = Fleet()
    fleet.join(hello("a"), Line())
    fleet.join(hello("b"), Line())
    events = fleet.subscribe("r")
    for agent in ("b", "a/unknown", "ab"):
        with pytest.raises(RemoteFault, match="host"):
            fleet.heard("a", pb.AgentEvent(accepted=pb.Accepted(key=pb.TaskKey(run="r", agent=agent))))
    assert heard(events) == []


def test_same_instance_replaces_the_old_stream_and_its_end_changes_nothing() -> None:
    fleet, old, new = Fleet(), Line(), Line()
    fleet.join(hello("a", "a", "a/x"), old)
    events = fleet.subscribe("r")
    fleet.join(hello("a"), new)
    assert old.last is not None
    assert "newer" in old.last.refused.reason
    fleet.left("a", old)
    assert heard(events) == [Gone(("a/x",)), Joined(("a",))]
    assert fleet.offer(offer("a"))
    assert len(new.sent) == 1
    assert not fleet.offer(offer("a/x"))


def test_another_instance_is_refused_while_the_first_is_there() -> None:
    fleet, first = Fleet(), Line()
    fleet.join(hello("a"), first)
    with pytest.raises(RemoteFault, match=r"host a is already connected .* expected instance i1, got i2"):
        fleet.join(hello("a", instance="i2"), Line())
    assert first.last is None
    fleet.left("a", first)
    fleet.join(hello("a", instance="i2"), Line())
    assert [agent.online for agent in fleet.agents()] == [True]


def test_agents_are_listed_by_name_with_what_they_work_on() -> None:
    fleet, line = Fleet(), Line()
    fleet.restore([(hello("z"), 12.5)])
    fleet.join(hello("a", "a/1", "a/0"), line)
    key = Key("r", 0, "a/1", pb.WORK)
    fleet.tell(Took(key))
    seen = {agent.name: agent for agent in fleet.agents()}
    assert list(seen) == ["a/0", "a/1", "z"]
    assert (seen["z"].online, seen["z"].last_seen_at) == (False, 12.5)
    assert seen["a/1"].working_on == key
    fleet.left("a", line)
    assert all(agent.working_on is None for agent in fleet.agents())


def test_sending_away_ends_every_line_with_the_same_words() -> None:
    fleet, lines = Fleet(), [Line(), Line()]
    for n, line in enumerate(lines):
        fleet.join(hello(f"h{n}"), line)
    fleet.send_away(5.0, 2.0, "draining")
    ended = [line.last.come_back for line in lines if line.last is not None]
    assert [(c.after_s, c.jitter_s, c.reason) for c in ended] == [(5.0, 2.0, "draining")] * 2


def test_engines_and_hosts_in_many_threads_lose_no_event() -> None:
    fleet, n = Fleet(), 200
    events = [fleet.subscribe(f"r{i}") for i in range(4)]
    for i in range(4):
        fleet.join(hello(f"h{i}"), Line())

    def work(i: int) -> None:
        for step in range(n):
            fleet.offer(offer(f"h{i}", step, f"r{i}"))
            fleet.heard(
                f"h{i}", pb.AgentEvent(accepted=pb.Accepted(key=pb.TaskKey(run=f"r{i}", agent=f"h{i}", step=step)))
            )

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, queued in enumerate(events):
        took = [event for event in heard(queued) if isinstance(event, Took)]
        assert took == [Took(Key(f"r{i}", step, f"h{i}", pb.WORK)) for step in range(n)]
