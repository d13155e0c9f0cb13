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

from pydantic import AfterValidator, Field, model_validator

from mcp_backup.settings_sections import (
    Filled,
    Pattern,
    Repeated,
    Section,
    SourceName,
    UsablePath,
)
from mcp_backup.sources.source import Component, SourceSpec

_OF_SERVERS = ("tool", "arguments", "items", "id", "ignore", "cursor", "restore", "remove")


def _address(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an http:// or https:// address")
    if parts.username or parts.password:
        raise ValueError("must not hold a password; use `token_file` or `token_command`")
    return url


class CursorSettings(Section):
    """Where an answer says how to ask for the next page, and the argument to ask with."""

    answer: Filled = "next_cursor"
    argument: Filled = "cursor"


class GiveBackSettings(Section):
    """The tool that takes one document back.

    `argument` takes the document, in a list if `list`; "" when its members are the arguments.
    Without `replaces` a document that is there already is removed first.
    """

    tool: Filled
    argument: str = ""
    list: bool = False
    replaces: bool = True


class TakeAwaySettings(Section):
    """The tool that removes one document, given its id or the document, in a list if `list`."""

    tool: Filled
    argument: Filled = "id"
    by: Literal["id", "document"] = "id"
    list: bool = False


class WorkflowSettings(Repeated):
    """One source of documents."""

    name: SourceName
    url: Annotated[Filled, AfterValidator(_address)] | None = None
    command: Annotated[tuple[Filled, ...], Field(min_length=1)] | None = None
    path: UsablePath | None = None
    include: Annotated[tuple[Pattern, ...], Field(min_length=1)] = ("**/*.json",)
    exclude: tuple[Pattern, ...] = ()
    tool: Filled | None = None
    arguments: Mapping[str, Any] = {}
    items: str = ""
    id: Annotated[tuple[Filled, ...], Field(min_length=1)] = ("id",)
    ignore: tuple[Filled, ...] = ()
    cursor: CursorSettings | None = None
    restore: GiveBackSettings | None = None
    remove: TakeAwaySettings | None = None
    timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 60
    token_file: UsablePath | None = None
    token_command: Filled | None = None
    environment: Mapping[str, str] = {}
    pass_environment: tuple[Filled, ...] = ()

    @model_validator(mode="after")
    def _one_place(self) -> "WorkflowSettings":
        places = [name for name in ("url", "command", "path") if getattr(self, name) is not None]
        if len(places) != 1:
            raise ValueError("must have one of `url`, `command` and `path`")
        if self.path is None:
            self._complete()
        elif used := [name for name in _OF_SERVERS if name in self.model_fields_set]:
            raise ValueError(f"must not have `{used[0]}` beside `path`, which is no server")
        return self

    def _complete(self) -> None:
        if self.tool is None:
            raise ValueError("must have `tool`, the name of the tool that answers the documents")
        if self.token_file and self.token_command:
            raise ValueError("must have `token_file` or `token_command`, not both")
        if self.restore and not self.restore.replaces and self.remove is None:
            raise ValueError("must have `remove` where `restore.replaces` is false")

    def spec(self) -> SourceSpec:
        """Return the source: files in a directory, or documents of a server."""
        if self.path is not None:
            options: dict[str, Any] = {"include": list(self.include), "exclude": list(self.exclude)}
            return SourceSpec(self.name, Component.WORKFLOWS, "files", str(self.path), options)
        where = self.url or shlex.join(self.command or ())
        options = self.model_dump(
            mode="json",
            exclude={"name", "path", "include", "exclude", "every", "cron"},
        )
        return SourceSpec(self.name, Component.WORKFLOWS, "workflows", where, options)
