"""How much is self-supervision, how much is federation: sentences from the figures, whatever they turn out to be."""

from collections.abc import Iterator

from benchmarks.pages._parts import NOT_RUN, Kept
from benchmarks.pages._ssl_figures import FEDERATED, LOCAL, RANDOM, SCRATCH, TASKS, Arm, Gap, gap, told

PAPER = {"flowers102_all": "+24.05", "intel_scenes_all": "+4.93"}
STAGES = (("probe", "a head alone"), ("last", "head and last stage"), ("full", "all"))
TEN = "2 x 5 agents, {}"
AGAINST = (
    *((f"two agents, {tuned} trained", Arm(FEDERATED, stage), Arm(LOCAL, stage)) for stage, tuned in STAGES),
    *(
        (f"five agents a task, averaged {how}, {tuned} trained", Arm(TEN.format(f"federated {how}"), stage),
         Arm(TEN.format(LOCAL), stage))
        for how in ("by task", "over all")
        for stage, tuned in (STAGES[0], STAGES[2])
    ),
    *(
        (f"third task with {k} labels a class, frozen, beside the flowers' own backbone", Arm(FEDERATED, f"join-{k}"),
         Arm(LOCAL, f"join-{k}"))
        for k in (1, 5, 10)
    ),
)  # fmt: skip


def paragraphs(found: Kept) -> Iterator[str]:
    yield "How much is self-supervision, how much is federation? Gaps in points, paired by seed.\n"
    for task, (word, _) in TASKS.items():
        yield _of_task(found, task, word)
    yield from _where(found)


def _of_task(found: Kept, task: str, word: str) -> str:
    whole = gap(found, Arm(FEDERATED, "full"), Arm(SCRATCH, "full"), task)
    ssl = gap(found, Arm(LOCAL, "full"), Arm(SCRATCH, "full"), task)
    federation = gap(found, Arm(FEDERATED, "full"), Arm(LOCAL, "full"), task)
    probed = gap(found, Arm(LOCAL, "probe"), Arm(RANDOM, "probe"), task)
    together = gap(found, Arm(FEDERATED, "probe"), Arm(LOCAL, "probe"), task)
    text = (
        f"- {word.capitalize()}: over training from scratch the federated backbone gains {told(whole)} with all tuned"
        f" (the paper {PAPER[task]}). Self-supervision alone, each agent by itself, gains {told(ssl)};"
        f" federation adds {told(federation)} to it. Under a head alone: self-supervision {told(probed)} over a random"
        f" backbone, federation {told(together)} to that."
    )
    return f"{text}{_credit(ssl, federation)}\n"


def _credit(ssl: Gap | None, federation: Gap | None) -> str:
    if ssl is None or federation is None:
        return ""
    if not federation.is_clear:
        return " So with all tuned none of it can be credited to federation."
    if federation.points < 0:
        return " So with all tuned federation takes away from what self-supervision gives."
    whole = ssl.points + federation.points
    if whole <= 0:
        return " So with all tuned federation makes up for a part of what self-supervision loses."
    return f" So with all tuned {100 * min(1.0, federation.points / whole):.0f} % of the gain is federation's."


def _where(found: Kept) -> Iterator[str]:
    """Comparisons with pre-training alone, by how they end."""
    better: list[str] = []
    worse: list[str] = []
    even: list[str] = []
    missing = 0
    for what, arm, alone in AGAINST:
        for task, (word, _) in {"": ("", 0)}.items() if arm.stage.startswith("join") else TASKS.items():
            value = gap(found, arm, alone, task)
            if value is None:
                missing += 1
                continue
            said = f"{what}{f', {word}' if word else ''} ({value})"
            (even if not value.is_clear else better if value.points > 0 else worse).append(said)
    yield (
        "The same comparison, federated against each agent alone, wherever it was made; clear is a gap beyond its"
        " deviation over seeds, or beyond a point with one seed.\n"
    )
    nothing = "nowhere" if better or worse or even else NOT_RUN
    for title, some in (("Federation wins", better), ("It loses", worse), ("No clear difference", even)):
        yield f"- {title}: {'; '.join(some) or nothing}."
    yield f"- Comparisons that were {NOT_RUN}: {missing}.\n" if missing else ""
