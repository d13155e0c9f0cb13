"""Where and when: clock, host, user, randomness and environment, as one argument.

Nothing below the composition root reads them for itself, so that tests can say what they are.
"""

import os
import pwd
import socket
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from msgspec import Struct


def utc_now() -> datetime:
    """Return the time: aware, UTC."""
    return datetime.now(UTC)


class Place(Struct, frozen=True):
    """The surroundings of one process."""

    hostname: str
    username: str
    environ: Mapping[str, str]
    now: Callable[[], datetime] = utc_now
    random: Callable[[int], bytes] = os.urandom

    @classmethod
    def here(cls) -> "Place":
        """Return what this process really has around it."""
        return cls(socket.gethostname(), _username(), os.environ)


def _username() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # a container with a bare user id
        return str(os.geteuid())
