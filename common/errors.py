"""Everything that can go wrong, and who must act.

FederationError
├─ ConfigError     the person starting the program must act
├─ LocalFault      this program's own bug or disk; never blamed on the peer
├─ RemoteFault     the peer broke the contract: bad bytes, wrong schema, refused identity
├─ LinkLost        transient; retried with jitter inside the link only
├─ QuorumMissed    the step is abandoned, state unchanged
└─ UnknownName     a method, model, objective … this build does not have; names what it has

Texts say what happened, where, expected and got, and what to do; lower case, no full stop, values last.
"""

from collections.abc import Iterable
from difflib import get_close_matches

EXIT_USAGE = 2  # argparse's own
EXIT_CONFIG = 10
EXIT_ADDRESS = 11  # cannot listen, or no such host
EXIT_IDENTITY = 12  # certificates and keys
EXIT_STATE = 13  # state folder locked, full, or of a newer version
EXIT_DATA = 14  # data missing, unreadable or of other classes
EXIT_REFUSED = 15  # the server answered, and said no
EXIT_LOCAL = 20
EXIT_LINK = 30  # the server cannot be reached (commands for people; an agent never exits for this)
EXIT_RUN = 40  # a run ended as failed or stopped
EXIT_INTERRUPTED = 130  # from the keyboard, as shells count it


class FederationError(Exception):
    """Root of all errors that this project raises on purpose; `exit_code` is what a program ends with."""

    exit_code = EXIT_LOCAL


class ConfigError(FederationError):
    """The person starting the program must act."""

    def __init__(self, message: str, *, exit_code: int = EXIT_CONFIG) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class LocalFault(FederationError):
    """This program's own bug or disk."""


class RemoteFault(FederationError):
    """The peer broke the contract."""

    exit_code = EXIT_REFUSED


class LinkLost(FederationError):
    """The connection failed; trying again may help."""

    exit_code = EXIT_LINK


class QuorumMissed(FederationError):
    """Too few replies; the step is abandoned and the state unchanged."""

    exit_code = EXIT_RUN


class UnknownName(FederationError):
    """A name that this build does not have."""

    exit_code = EXIT_CONFIG

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        known = sorted(known)
        near = get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        super().__init__(f"unknown {kind} {name!r}{hint} (this build has: {', '.join(known)})")
