"""init: settings, a key, a repository, and a proposal of what to protect."""

import os
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import anyio
import typer
from msgspec import Struct

from mcp_backup.cli.session import Session, session
from mcp_backup.cli.settings_text import Proposal, settings_text
from mcp_backup.discovery import DatabaseFound, Found, find
from mcp_backup.errors import StoreDenied, UsageError
from mcp_backup.opening import initialise
from mcp_backup.settings import FILE_NAME, load_settings
from mcp_backup.terminal import Terminal, size
from mcp_backup.verbs import InitReport


class Begun(Struct, frozen=True):
    """What `init` made, what it protects, and what it found and left out."""

    settings_file: str
    repository: str
    repository_created: bool
    password_file: str
    databases: Sequence[str]
    config: Sequence[str]
    workflows: Sequence[str]
    left_out: Sequence[str]


def init(
    context: typer.Context,
    *,
    location: Annotated[
        str, typer.Option(help="Where the repository is to be, a directory.", metavar="PATH")
    ] = "./backups",
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing; take what is near.")] = False,
) -> int:
    """Write settings, make the repository and its key, and find what is worth protecting.

    What lies below this directory, or is named by an MCP server's settings, is protected; what
    lies elsewhere is written into the settings as comments. Settings that exist stay as they are:
    then only the repository that they name is made, and its key.
    """
    this = session(context)
    around = this.surroundings
    path = around.cwd / (around.config or FILE_NAME)
    if path.exists():
        return _begun_by_hand(this, path)
    untouched = f"{path} was not written."
    kept = (around.cwd / location).resolve()
    found = find(around.cwd, around.home, passed_over=frozenset({kept}), clock=time.monotonic)
    proposal = this.interruptible(
        lambda: _proposed(this.terminal, found, location, ask=not yes), unfinished=untouched
    )
    text = settings_text(proposal, path.parent, around.home)
    report = this.interruptible(lambda: _made(this, path, text), unfinished=untouched)
    begun = Begun(
        str(path),
        report.location,
        report.created,
        report.password_file,
        [item.name for item in proposal.databases] + [item.name for item in proposal.postgres],
        [found.name for found in proposal.files],
        [found.name for found in proposal.workflows],
        [str(found.path) for found in proposal.left_out],
    )
    this.terminal.result(begun, _told(begun, proposal, found, around.cwd))
    return 0


def _begun_by_hand(this: Session, path: Path) -> int:
    """Make the repository of settings that somebody has written already."""
    settings = load_settings(path, this.surroundings.environ, this.surroundings.cwd)
    report = this.interruptible(
        lambda: anyio.run(initialise, settings), unfinished=f"{path} was not changed."
    )
    if not report.created:
        raise UsageError(
            f"{path} exists already, and so does its repository",
            hint="Edit it, or name another file with --config. Nothing was changed.",
        )
    begun = Begun(
        str(path),
        report.location,
        report.created,
        report.password_file,
        [each.name for each in settings.databases],
        [each.name for each in settings.config],
        [each.name for each in settings.workflows],
        [],
    )
    lines = [
        f"settings    {path} (as they were)",
        f"repository  {report.location} (made)",
        f"key         {report.password_file or 'as the settings say'}",
        "",
        "next: mcp-backup create       make the first backup",
        "      mcp-backup doctor       look at everything it depends on",
    ]
    this.terminal.result(begun, lines)
    return 0


def _proposed(terminal: Terminal, found: Found, location: str, *, ask: bool) -> Proposal:
    """Take what is near, or what the person says."""
    databases: list[DatabaseFound] = []
    left_out: list[DatabaseFound] = []
    asking = ask and terminal.has_person
    for item in found.databases:
        wanted = item.near
        if asking:
            question = f"Protect {item.path} ({size(item.size)})?"
            wanted = terminal.agreed(question, default=item.near)
        (databases if wanted else left_out).append(item)
    files = [
        item
        for item in found.files
        if not asking
        or terminal.agreed(f"Protect {', '.join(item.include)} in {item.root}?", default=True)
    ]
    workflows = [
        item
        for item in found.workflows
        if not asking or terminal.agreed(f"Protect {item.told}?", default=True)
    ]
    key = f"{location.rstrip('/')}.key"
    postgres = [
        item
        for item in found.postgres
        if not asking
        or terminal.agreed(f"Protect {item.name}, a PostgreSQL database?", default=True)
    ]
    return Proposal(location, key, databases, files, left_out, workflows, postgres)


def _made(this: Session, path: Path, text: str) -> InitReport:
    """Write the settings, then make what they name; without a repository there are no settings."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StoreDenied(
            f"{path}: {error.strerror}", hint="Run init where you may write. Nothing was changed."
        ) from error
    made = False
    try:
        settings = load_settings(path, this.surroundings.environ, this.surroundings.cwd)
        report = anyio.run(initialise, settings)
        made = True
    finally:
        if not made:
            path.unlink()
    return report


def _told(begun: Begun, proposal: Proposal, found: Found, cwd: Path) -> list[str]:
    made = "made" if begun.repository_created else "found, and will be used"
    lines = [
        f"settings    {begun.settings_file}",
        f"repository  {begun.repository} ({made})",
        f"key         {begun.password_file}",
        "",
    ]
    lines += [f"protects    {item.path} ({size(item.size)})" for item in proposal.databases]
    lines += [f"protects    {', '.join(item.include)} in {item.root}" for item in proposal.files]
    lines += [f"protects    {item.name}, a PostgreSQL database" for item in proposal.postgres]
    lines += [f"protects    {item.told}" for item in proposal.workflows]
    if not (proposal.databases or proposal.files or proposal.workflows or proposal.postgres):
        lines.append(f"protects    nothing yet: add [[databases]] to {begun.settings_file}")
    for item in proposal.left_out:
        lines.append(f"found       {item.path} ({size(item.size)}): left out")
    if not found.complete:
        lines.append("found       more directories than time to look: there may be more")
    lines += [
        "",
        f"Keep a copy of {begun.password_file} somewhere else: without it nobody can read the",
        "backups, and on the same disk it is lost together with them.",
    ]
    if any(item.kind == "duckdb" for item in proposal.databases) and not find_spec("duckdb"):
        lines.append("DuckDB needs its module: pip install 'mcp-backup[duckdb]'")
    if (cwd / ".git").exists():
        lines.append("Add the repository and the key to .gitignore.")
    return [
        *lines,
        "",
        "next: mcp-backup create       make the first backup",
        "      mcp-backup doctor       look at everything it depends on",
        "      mcp-backup key recovery-kit --out kit.html    a page to print, which opens it",
        "      mcp-backup serve        let agents use it (see .mcp.json.example)",
    ]
