"""`[[alerts]]`: whom to tell, how, and of what. Addresses, tokens and commands are secrets here.

They are `Secret`, because the address of a webhook or a topic is all that is needed to use it.
"""

import shlex
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Literal
from urllib.parse import urlsplit

from msgspec import Meta
from msgspec.structs import force_setattr

from mcp_backup.secret import Secret
from mcp_backup.settings_table import NameOrNone, Refused, Section

Kind = Literal["webhook", "ntfy", "healthchecks", "command"]


class Event(StrEnum):
    """What can be told."""

    START = "start"  # a scheduled backup began
    SUCCESS = "success"  # a scheduled backup is complete
    FAILURE = "failure"  # a run, or a source in it, failed
    OVERDUE = "overdue"  # a source has no backup as young as its objective wants
    SUSPECT = "suspect"  # a backup is stored, but looks damaged or shrunken
    RECOVERY = "recovery"  # what was told before is over
    TEST = "test"  # somebody wants to see one arrive; told to all


_OCCASIONS = (Event.FAILURE, Event.OVERDUE, Event.SUSPECT, Event.RECOVERY)
_PINGS = (Event.START, Event.SUCCESS, Event.FAILURE, Event.SUSPECT)
_DEFAULTS: Mapping[Kind, tuple[Event, ...]] = {
    "webhook": _OCCASIONS,
    "ntfy": _OCCASIONS,
    "healthchecks": _PINGS,
    "command": _OCCASIONS,
}


class AlertSettings(Section, frozen=True, kw_only=True):
    """One receiver of alerts. `name` is what status and log call it; without one, its kind."""

    kind: Kind
    name: NameOrNone = ""
    url: Secret | None = None
    token: Secret | None = None
    command: Secret | None = None
    on: Annotated[tuple[Event, ...], Meta(min_length=1)] = ()  # those of its kind

    def __post_init__(self) -> None:
        """Refuse what its kind cannot do, and fill in what it is usually told."""
        if self.kind not in _DEFAULTS:  # which only a program can say
            raise Refused(f"must be one of {', '.join(_DEFAULTS)}", "kind")
        for name, refuse in _SECRETS.items():
            value: Secret | str | None = getattr(self, name)
            if value is not None:
                secret = Secret(value) if isinstance(value, str) else value  # built by hand
                force_setattr(self, name, secret)
                refuse(secret.reveal())
        if not self.on:
            force_setattr(self, "on", _DEFAULTS[self.kind])
        self._refuse_other_kinds()

    def _refuse_other_kinds(self) -> None:
        if self.kind == "command":
            if self.command is None or self.url is not None or self.token is not None:
                raise Refused("must have `command`, and neither `url` nor `token`")
        elif self.url is None or self.command is not None:
            raise Refused("must have `url`, and no `command`")
        if Event.TEST in self.on:
            raise Refused("must not have `test` in `on`; everybody gets those")
        if self.kind == "healthchecks" and self.token is not None:
            raise Refused("must have no `token`; the address is the secret")
        if self.kind == "healthchecks" and not set(self.on) <= set(_PINGS):
            raise Refused(f"must have in `on` only what a ping can say: {', '.join(_PINGS)}")

    @property
    def label(self) -> str:
        """What status and log call it."""
        return self.name or self.kind


def _refuse_address(text: str) -> None:
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not text.isascii() or not text.isprintable() or " " in text:
        raise Refused("must be an http:// or https:// address", "url")


def _refuse_token(text: str) -> None:
    if not text or not text.isascii() or not text.isprintable():
        raise Refused("must be printable ASCII", "token")  # it becomes a line of a request


def _refuse_command(text: str) -> None:
    try:
        words = shlex.split(text)
    except ValueError:
        words = []
    if not words or "\0" in text:
        raise Refused("must be a program and its arguments, with quotes that pair", "command")


_SECRETS = {"url": _refuse_address, "token": _refuse_token, "command": _refuse_command}


def refuse_label_twice(alerts: tuple[AlertSettings, ...]) -> None:
    """Refuse two receivers of one name, which could not be told apart."""
    seen: set[str] = set()
    for alert in alerts:
        if alert.label in seen:
            raise Refused(f"{alert.label!r} is used twice; give each its own `name`", "alerts")
        seen.add(alert.label)
