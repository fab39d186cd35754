"""What a method asks of its sites: the learners, and what it gives to their training."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from common.method import Fitted, Learner, Term, Training
from common.payloads import Weights
from common.samples import Samples
from tests.methods.loopback import Site


@dataclass(frozen=True)
class Fit:
    """One call of `fit`."""

    start: Weights
    training: Training
    terms: tuple[Term, ...]
    fitted: Fitted


@dataclass(frozen=True)
class Asked:
    """In the order of the calls, over all agents: of `work`, and of `predict` where a fleet evaluates."""

    learners: list[dict[str, Any]] = field(default_factory=list)  # arguments of `site.learner`
    fits: list[Fit] = field(default_factory=list)

    @property
    def every_learner(self) -> dict[str, Any]:
        """What all of them were asked with."""
        first, *others = self.learners
        assert all(asked == first for asked in others), "learners were asked with different arguments"
        return first


def of_sites(monkeypatch: pytest.MonkeyPatch) -> Asked:
    asked, make = Asked(), Site.learner

    def learner(self: Site, **arguments: Any) -> Learner:
        asked.learners.append(arguments)
        made = make(self, **arguments)
        fit = made.fit

        def noted(weights: Weights, samples: Samples, training: Training, **others: Any) -> Fitted:
            fitted = fit(weights, samples, training, **others)
            asked.fits.append(Fit(weights, training, others.get("terms", ()), fitted))
            return fitted

        made.fit = noted  # type: ignore[method-assign]
        return made

    monkeypatch.setattr(Site, "learner", learner)
    return asked
