"""What a server keeps of each agent's last accepted upload, to score it against the common model."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from common import entries, saliency
from common.errors import LocalFault, RemoteFault
from common.method import Site
from common.payloads import Encoding, Mask, Sparse, Weights
from common.store import AgentStore

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Earlier:
    """An upload, the step it was of, and the score that ran up to it."""

    weights: Weights
    step: int
    score: Weights | None


Found = tuple[Earlier, saliency.Chosen]


def choose(
    rule: saliency.Rule,
    store: AgentStore[Earlier],
    agent: str,
    base: Weights,
    names: Iterable[str],
    *,
    else_from: Weights | None,
) -> Found | None:
    """The agent's upload and which of its entries stay; without one, `else_from` stands for it.

    None where there is neither, or the upload is lost, damaged or of another model: the agent starts from the common
    model alone, and the log says why.
    """
    try:
        earlier = store.get(agent)
        if earlier is None and else_from is not None:
            earlier = Earlier(else_from, -1, None)
        if earlier is None:
            return None
        return earlier, saliency.choose(rule, earlier.weights, base, names, earlier.score)
    except (LocalFault, RemoteFault) as fault:
        log.warning('earlier_upload_unusable agent=%s starts_from=common reason="%s"', agent, fault)
        return None


def upload(weights: Weights, step: int, scored: Callable[[str], Found | None] | None, agent: str) -> Earlier:
    """What is kept of a reply; with the running score that the agent's start was chosen by, where there is one."""
    found = scored(agent) if scored else None
    return Earlier(weights, step, Weights(found[1].running) if found else None)


def choose_on_agent(
    rule: saliency.Rule, own: Weights, base: Weights, only: Iterable[str], site: Site[Any], before: Weights | None
) -> saliency.Chosen:
    """As `choose`, on the device: nothing stays of a model that cannot be scored, and the log says why."""
    try:
        return saliency.choose_on_agent(rule, own, base, only, site, before)
    except RemoteFault as fault:
        log.warning('own_model_unusable starts_from=common reason="%s"', fault)
        return saliency.Chosen({}, {})


def sent(
    earlier: Earlier, chosen: saliency.Chosen, form: entries.Form, memory_step: int, encoding: Encoding
) -> Mask | Sparse | None:
    """What goes down of the chosen entries; as values where the device does not hold the upload that was scored."""
    if not entries.count(chosen.bits):
        return None
    holds_it = 0 <= earlier.step == memory_step
    return entries.in_form(form if holds_it else "values", earlier.weights, chosen.bits, encoding)
