"""`[[alerts]]`: whom to tell, how, and of what. Addresses, tokens and commands are secrets here.

They are `SecretStr`, because the address of a webhook or a topic is all that is needed to use it.
"""

import shlex
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, model_validator

from mcp_backup.settings_sections import Section, SourceName

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


def _address(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("must be an http:// or https:// address")
    return value


def _token(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if not text or not text.isascii() or not text.isprintable():
        raise ValueError("must be printable ASCII")  # it becomes a line of a request
    return value


def _command(value: SecretStr) -> SecretStr:
    try:
        words = shlex.split(value.get_secret_value())
    except ValueError:
        words = []
    if not words or "\0" in value.get_secret_value():
        raise ValueError("must be a program and its arguments, with quotes that pair")
    return value


class AlertSettings(Section):
    """One receiver of alerts. `name` is what status and log call it; without one, its kind."""

    kind: Kind
    name: SourceName | Literal[""] = ""
    url: Annotated[SecretStr, AfterValidator(_address)] | None = None
    token: Annotated[SecretStr, AfterValidator(_token)] | None = None
    command: Annotated[SecretStr, AfterValidator(_command)] | None = None
    on: Annotated[tuple[Event, ...], Field(min_length=1)] = _OCCASIONS

    @model_validator(mode="before")
    @classmethod
    def _usual_occasions(cls, values: object) -> object:
        if isinstance(values, Mapping) and "on" not in values and values.get("kind") in _DEFAULTS:
            return {**values, "on": [event.value for event in _DEFAULTS[values["kind"]]]}
        return values

    @model_validator(mode="after")
    def _what_its_kind_needs(self) -> "AlertSettings":
        if self.kind == "command":
            if self.command is None or self.url is not None or self.token is not None:
                raise ValueError("must have `command`, and neither `url` nor `token`")
        elif self.url is None or self.command is not None:
            raise ValueError("must have `url`, and no `command`")
        if Event.TEST in self.on:
            raise ValueError("must not have `test` in `on`; everybody gets those")
        if self.kind == "healthchecks" and self.token is not None:
            raise ValueError("must have no `token`; the address is the secret")
        if self.kind == "healthchecks" and not set(self.on) <= set(_PINGS):
            raise ValueError(f"must have in `on` only what a ping can say: {', '.join(_PINGS)}")
        return self

    @property
    def label(self) -> str:
        """What status and log call it."""
        return self.name or self.kind


def no_label_twice(alerts: tuple[AlertSettings, ...]) -> tuple[AlertSettings, ...]:
    """Refuse two receivers of one name, which could not be told apart."""
    seen: set[str] = set()
    for alert in alerts:
        if alert.label in seen:
            raise ValueError(f"{alert.label!r} is used twice; give each its own `name`")
        seen.add(alert.label)
    return alerts


Alerts = Annotated[tuple[AlertSettings, ...], AfterValidator(no_label_twice)]
