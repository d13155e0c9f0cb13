"""`[[workflows]]`: state of another MCP server, or a directory of JSON files.

A server is named by `url` (streamable HTTP) or `command` (stdio) and read by calling `tool`; how to
find the documents in its answer, and how to give them back, is said here, since every server words
that differently. A `path` is a directory of JSON files, and needs none of it.

`environment` is for a child's plain variables; secrets come from `pass_environment`, which names
variables of ours, since settings and journals are files.
"""

import shlex
from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from mcp_backup.settings_table import (
    Filled,
    Pattern,
    Refused,
    Repeated,
    Section,
    SourceName,
    UsablePath,
)
from mcp_backup.sources.source import Component, SourceSpec

_OF_SERVERS: Mapping[str, object] = {  # what only servers need, as it is where it is left out
    "tool": None,
    "arguments": {},
    "items": "",
    "id": ("id",),
    "ignore": (),
    "cursor": None,
    "restore": None,
    "remove": None,
}
_NO_OPTIONS = ("name", "path", "include", "exclude", "every", "cron")


class CursorSettings(Section, frozen=True, kw_only=True):
    """Where an answer says how to ask for the next page, and the argument to ask with."""

    answer: Filled = "next_cursor"
    argument: Filled = "cursor"


class GiveBackSettings(Section, frozen=True, kw_only=True):
    """The tool that takes one document back.

    `argument` takes the document, in a list if `list`; "" when its members are the arguments.
    Without `replaces` a document that is there already is removed first.
    """

    tool: Filled
    argument: str = ""
    list: bool = False
    replaces: bool = True


class TakeAwaySettings(Section, frozen=True, kw_only=True):
    """The tool that removes one document, given its id or the document, in a list if `list`."""

    tool: Filled
    argument: Filled = "id"
    by: Literal["id", "document"] = "id"
    list: bool = False


class WorkflowSettings(Repeated, frozen=True, kw_only=True):
    """One source of documents."""

    name: SourceName
    url: Filled | None = None
    command: Annotated[tuple[Filled, ...], Meta(min_length=1)] | None = None
    path: UsablePath | None = None
    include: Annotated[tuple[Pattern, ...], Meta(min_length=1)] = ("**/*.json",)
    exclude: tuple[Pattern, ...] = ()
    tool: Filled | None = None
    arguments: Mapping[str, Any] = msgspec.field(default_factory=dict)
    items: str = ""
    id: Annotated[tuple[Filled, ...], Meta(min_length=1)] = ("id",)
    ignore: tuple[Filled, ...] = ()
    cursor: CursorSettings | None = None
    restore: GiveBackSettings | None = None
    remove: TakeAwaySettings | None = None
    timeout_seconds: Annotated[float, Meta(gt=0, le=3600)] = 60.0
    token_file: UsablePath | None = None
    token_command: Filled | None = None
    environment: Mapping[str, str] = msgspec.field(default_factory=dict)
    pass_environment: tuple[Filled, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what is not one place, or does not say how to read it."""
        super().__post_init__()
        if self.url is not None:
            _refuse_address(self.url)
        places = [name for name in ("url", "command", "path") if getattr(self, name) is not None]
        if len(places) != 1:
            raise Refused("must have one of `url`, `command` and `path`")
        if self.path is None:
            self._complete()
        elif used := [name for name in _OF_SERVERS if getattr(self, name) != _OF_SERVERS[name]]:
            raise Refused(f"must not have `{used[0]}` beside `path`, which is no server")

    def _complete(self) -> None:
        if self.tool is None:
            raise Refused("must have `tool`, the name of the tool that answers the documents")
        if self.token_file and self.token_command:
            raise Refused("must have `token_file` or `token_command`, not both")
        if self.restore and not self.restore.replaces and self.remove is None:
            raise Refused("must have `remove` where `restore.replaces` is false")

    def spec(self) -> SourceSpec:
        """Return the source: files in a directory, or documents of a server."""
        if self.path is not None:
            options: dict[str, Any] = {"include": list(self.include), "exclude": list(self.exclude)}
            return SourceSpec(self.name, Component.WORKFLOWS, "files", str(self.path), options)
        where = self.url or shlex.join(self.command or ())
        options = msgspec.json.decode(msgspec.json.encode(self, enc_hook=str))
        for name in _NO_OPTIONS:
            del options[name]
        return SourceSpec(self.name, Component.WORKFLOWS, "workflows", where, options)


def _refuse_address(url: str) -> None:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        usable = False
    if not usable:
        raise Refused("must be an http:// or https:// address", "url")
    if parts.username or parts.password:
        raise Refused("must not hold a password; use `token_file` or `token_command`", "url")
