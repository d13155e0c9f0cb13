"""The settings file that `init` writes: what was found, in the operator's own terms."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from mcp_backup.discovery import DatabaseFound, FilesFound
from mcp_backup.discovery_postgres import PostgresFound
from mcp_backup.discovery_servers import WorkflowsFound

_HEAD = """\
# What mcp-backup protects, and where it keeps it. Relative paths start at this file's directory.
# `mcp-backup doctor` looks at all of it.

[repository]
location = {location}
password_file = {password_file}
"""
_DATABASE = """
[[databases]]
name = {name}
kind = {kind}
path = {path}
"""
_FILES = """
[[config]]
name = {name}
root = {root}
include = {include}
"""


class Proposal(Struct, frozen=True):
    """What the settings are to say. `left_out` is written down, and not in force."""

    location: str
    password_file: str
    databases: Sequence[DatabaseFound]
    files: Sequence[FilesFound]
    left_out: Sequence[DatabaseFound]
    workflows: Sequence[WorkflowsFound] = ()
    postgres: Sequence[PostgresFound] = ()


def settings_text(proposal: Proposal, directory: Path, home: Path) -> str:
    """Write the settings as TOML, for a file in `directory`; paths as short as they can be."""
    text = _HEAD.format(
        location=_string(proposal.location), password_file=_string(proposal.password_file)
    )
    text += "".join(_database(found, directory, home) for found in proposal.databases)
    for each in proposal.postgres:
        lines = [f"{key} = {_value(value)}" for key, value in each.settings.items()]
        head = ["", "[[databases]]", f"name = {_string(each.name)}", 'kind = "postgres"']
        text += "\n".join([*head, *lines, ""])
    for found in proposal.files:
        include = "[" + ", ".join(_string(pattern) for pattern in found.include) + "]"
        root = _string(_path(found.root, directory, home))
        text += _FILES.format(name=_string(found.name), root=root, include=include)
    text += "".join(_workflows(found, directory, home) for found in proposal.workflows)
    others = proposal.left_out
    if others:
        text += "\n# Found as well, and left out; remove the marks to protect one of them:\n"
        text += "".join(_commented(_database(found, directory, home)) for found in others)
    return text


def _database(found: DatabaseFound, directory: Path, home: Path) -> str:
    path = _path(found.path, directory, home)
    return _DATABASE.format(name=_string(found.name), kind=_string(found.kind), path=_string(path))


def _workflows(found: WorkflowsFound, directory: Path, home: Path) -> str:
    lines = [
        f"{key} = {_value(_path(value, directory, home) if isinstance(value, Path) else value)}"
        for key, value in found.settings.items()
    ]
    return "\n".join(["", "[[workflows]]", f"name = {_string(found.name)}", *lines, ""])


def _value(value: Any) -> str:
    """Write a value as TOML on one line."""
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{key} = {_value(inner)}' for key, inner in value.items())} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    return json.dumps(value, ensure_ascii=False)  # text, numbers and truths are JSON's as well


def _path(path: Path, directory: Path, home: Path) -> str:
    if path.is_relative_to(directory):
        return f"./{path.relative_to(directory)}" if path != directory else "."
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)


def _string(text: str) -> str:
    """Write a TOML basic string; JSON's escapes are a part of TOML's."""
    return json.dumps(text, ensure_ascii=False)


def _commented(text: str) -> str:
    return "".join(f"# {line}\n" if line else "#\n" for line in text.splitlines())
