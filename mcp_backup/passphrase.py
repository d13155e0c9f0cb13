"""The approval passphrase: what a person knows, and an agent that has a shell does not.

    <state_dir>/approval.json           mode 0600: a scrypt hash, its salt and its cost
    <state_dir>/approval-attempts.json  mode 0600: how often it was wrong, and the last attempts

It is set in a terminal, asked for in a terminal, and in no setting, variable or argument.
Wrong ones are counted before they are looked at, for all processes together, and after the third
each next one has to wait longer, up to an hour: killing the process does not help to guess.
"""

import hmac
import json
from collections.abc import Callable
from datetime import datetime, timedelta
from hashlib import scrypt
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock
from msgspec import Struct, field

from mcp_backup.durable import make_directory_durably, remove_durably, write_durably
from mcp_backup.errors import ApprovalRefused, UsageError
from mcp_backup.record import asdict

SHORTEST = 8  # characters
_COST = {"n": 1 << 15, "r": 8, "p": 1}  # a tenth of a second and 32 MiB for each guess
_MOST_MEMORY = 1 << 26
_FREE = 3  # wrong ones before the first wait
_FIRST_WAIT = timedelta(seconds=5)
_LONGEST_WAIT = timedelta(hours=1)
_REMEMBERED = 100  # attempts
_STRANGE = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)


class Attempt(Struct, frozen=True):
    """One attempt: when, by whose account, to do what. "refused" stays if it was not finished."""

    at: str
    by: str
    subject: str
    outcome: Literal["accepted", "refused", "too soon"]


class _Attempts(Struct):
    wrong: int = 0  # in a row
    last_wrong: str = ""
    log: list[dict[str, str]] = field(default_factory=list)

    def wait(self, now: datetime) -> timedelta:
        """Return how long the next attempt has to wait still."""
        if self.wrong < _FREE or not self.last_wrong:
            return timedelta(0)
        pause = min(_FIRST_WAIT * (1 << min(self.wrong - _FREE, 20)), _LONGEST_WAIT)
        return max(datetime.fromisoformat(self.last_wrong) + pause - now, timedelta(0))


class Passphrase:
    """The passphrase of one state directory. Blocks; several processes may use it at once."""

    def __init__(self, state_dir: Path, now: Callable[[], datetime]) -> None:
        """Keep it in `state_dir`."""
        self._file = state_dir / "approval.json"
        self._attempts = state_dir / "approval-attempts.json"
        self._now = now

    @property
    def is_set(self) -> bool:
        """Whether there is one. Without, whoever has a terminal may approve."""
        return self._file.exists()

    def set(self, text: str, random: Callable[[int], bytes]) -> None:
        """Make this the passphrase from now on.

        Raises:
            UsageError: it is too short.
        """
        if len(text) < SHORTEST:
            raise UsageError(
                f"the passphrase is shorter than {SHORTEST} characters",
                hint="Choose a longer one, such as four words. Nothing was changed.",
            )
        salt = random(16)
        kept = {"scrypt": _COST, "salt": salt.hex(), "hash": _hash(text, salt, _COST).hex()}
        make_directory_durably(self._file.parent)
        write_durably(self._file, json.dumps(kept).encode())

    def remove(self) -> None:
        """Have no passphrase any more."""
        remove_durably(self._file)

    def check(self, text: str, by: str, subject: str) -> None:
        """Return if this is the passphrase; the attempt is put on record either way.

        Raises:
            ApprovalRefused: it is not, or the last wrong one was too short a while ago.
        """
        with FileLock(self._attempts.with_suffix(".lock"), mode=0o600):
            attempts = self._read_attempts()
            now = self._now()
            attempt = Attempt(now.isoformat(), by, subject, "refused")
            if wait := attempts.wait(now):
                self._note(attempts, attempt, "too soon")
                raise ApprovalRefused(
                    f"the approval passphrase was wrong {attempts.wrong} times in a row",
                    hint=f"Try again in {round(wait.total_seconds()) + 1} seconds. "
                    "Nothing was touched.",
                )
            attempts.wrong += 1
            attempts.last_wrong = now.isoformat()
            self._note(attempts, attempt, "refused")
            if not self._is_right(text):
                raise ApprovalRefused(
                    "that is not the approval passphrase",
                    hint="Try again; `mcp-backup passphrase status` lists the attempts. "
                    "Nothing was touched.",
                )
            attempts.wrong, attempts.last_wrong = 0, ""
            attempts.log.pop()
            self._note(attempts, attempt, "accepted")

    def attempts(self) -> list[Attempt]:
        """Return the last attempts, newest first."""
        return [Attempt(**each) for each in reversed(self._read_attempts().log)]  # type: ignore[arg-type]

    def _is_right(self, text: str) -> bool:
        try:
            kept: dict[str, Any] = json.loads(self._file.read_bytes())
            wanted, salt = bytes.fromhex(kept["hash"]), bytes.fromhex(kept["salt"])
            return hmac.compare_digest(_hash(text, salt, kept["scrypt"]), wanted)
        except (OSError, *_STRANGE) as error:
            raise ApprovalRefused(
                f"{self._file} cannot be read ({type(error).__name__}), so no passphrase is right",
                hint="If you did not damage it, find out who did. Then remove it, and run "
                "`mcp-backup passphrase set`. Nothing was touched.",
            ) from error

    def _read_attempts(self) -> _Attempts:
        try:
            return _attempts_of(json.loads(self._attempts.read_bytes()))
        except FileNotFoundError:
            return _Attempts()
        except _STRANGE:  # somebody wrote into it: let it cost time, not access
            return _Attempts(wrong=_FREE, last_wrong=self._now().isoformat())

    def _note(
        self,
        attempts: _Attempts,
        attempt: Attempt,
        outcome: Literal["accepted", "refused", "too soon"],
    ) -> None:
        attempts.log.append(asdict(attempt) | {"outcome": outcome})
        del attempts.log[:-_REMEMBERED]
        write_durably(self._attempts, json.dumps(asdict(attempts), indent=1).encode())


def _attempts_of(document: dict[str, Any]) -> _Attempts:
    """Return what is on record of attempts.

    Raises:
        ValueError, KeyError, TypeError, AttributeError, OverflowError: it is not ours.
    """
    found = _Attempts(int(document["wrong"]), document["last_wrong"], document["log"])
    if found.last_wrong:
        until = datetime.fromisoformat(found.last_wrong) + _LONGEST_WAIT
        if until.tzinfo is None:
            raise ValueError("a time without a zone")
    for each in found.log:
        Attempt(**each)  # type: ignore[arg-type]
    return found


def _hash(text: str, salt: bytes, cost: dict[str, int]) -> bytes:
    return scrypt(text.encode(), salt=salt, maxmem=_MOST_MEMORY, dklen=32, **cost)
