"""What one invocation of the program runs with, and how it stops."""

from collections.abc import Awaitable, Callable, Sequence
from importlib import import_module
from operator import attrgetter
from typing import TYPE_CHECKING, TypeVar

import anyio
import typer
from msgspec import Struct

from mcp_backup.cli.surroundings import Surroundings
from mcp_backup.progress import Listener
from mcp_backup.server.keeper import opening_of
from mcp_backup.settings import Settings, load_settings
from mcp_backup.terminal import Terminal
from mcp_backup.terminal_progress import progress_bars

if TYPE_CHECKING:
    from mcp_backup.engine import Engine

T = TypeVar("T")
INTERRUPTED = 130


class Session(Struct, frozen=True):
    """One verb at work, on the settings found."""

    surroundings: Surroundings

    @property
    def terminal(self) -> Terminal:
        """Where to read and write."""
        return self.surroundings.terminal

    def settings(self) -> Settings:
        """Load the settings.

        Raises:
            SettingsInvalid: there are none, or they cannot be meant.
        """
        around = self.surroundings
        return load_settings(around.config, around.environ, around.cwd)

    def run(self, work: Callable[["Engine", Listener], Awaitable[T]], *, unfinished: str) -> T:
        """Do the work on an engine opened for it, with progress shown.

        `unfinished` says what is still true when the person stops it with Ctrl-C.
        """
        settings = self.settings()

        async def at_work() -> T:
            opening = opening_of(settings)
            if settings.alerts:  # else their modules need not load
                alone = not self.terminal.has_person
                opening = import_module("mcp_backup.news").alerted(opening, settings, alone=alone)
            async with opening() as engine:
                with progress_bars(self.terminal) as listener:
                    return await work(engine, listener)

        return self.interruptible(lambda: anyio.run(at_work), unfinished=unfinished)

    def answer(self, reply: str, report: object, lines: Sequence[str]) -> None:
        """Print a report: `lines` for people; for programs what the tool answers.

        `reply` says where in `server` that is made, since for people it need not load:
        "replies:BackupReply.of".
        """
        if self.terminal.json:
            module, _, maker = reply.partition(":")
            report = attrgetter(maker)(import_module(f"mcp_backup.server.{module}"))(report)
        self.terminal.result(report, lines)

    def interruptible(self, work: Callable[[], T], *, unfinished: str) -> T:
        """Do the work; on Ctrl-C say what is still true, and exit with the code for that."""
        try:
            return work()
        except KeyboardInterrupt:
            self.terminal.error("interrupted", "stopped before it was done", unfinished)
            raise typer.Exit(INTERRUPTED) from None


def session(context: typer.Context) -> Session:
    """Return the session that a verb was called in."""
    return Session(context.ensure_object(Surroundings))
