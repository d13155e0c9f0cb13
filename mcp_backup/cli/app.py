"""The program: its verbs, and what becomes of an error.

Every failure leaves through `run`, which turns it into a message, a next step and an exit code.
"""

import gc
import getpass
import logging
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer
from msgspec import Struct

from mcp_backup import __version__
from mcp_backup.cli.arguments import FREE_FORM, arranged
from mcp_backup.cli.plain import PlainCommand, PlainGroup
from mcp_backup.cli.surroundings import Surroundings
from mcp_backup.errors import BackupError
from mcp_backup.history_facts import Asker, asked_by
from mcp_backup.terminal import Terminal

logger = logging.getLogger(__name__)

_NAME = "mcp-backup"
_FAILED, _USAGE = 1, 2
_LASTING = "serve"  # the one verb that goes on for weeks
_YOUNG = 20_000  # objects made before the youngest are looked at for cycles; 700 by default


class _Verb(Struct, frozen=True):
    """Where a verb is written, and what it does in a line."""

    place: str
    summary: str

    def load(self) -> Callable[..., int]:
        module, _, name = self.place.partition(":")
        function: Callable[..., int] = getattr(import_module(f"mcp_backup.cli.{module}"), name)
        return function


VERBS = {
    "init": _Verb("begin:init", "Write settings, make the repository, propose what to back up."),
    "create": _Verb("backups:create", "Back up now."),
    "list": _Verb("backups:list_backups", "List backups, newest first."),
    "status": _Verb("standing:status", "Say how the backups are, in one word, and why."),
    "history": _Verb("standing:history", "List what was done, newest first, and who asked."),
    "verify": _Verb("backups:verify", "Prove that a backup is what its sources were."),
    "restore": _Verb("restores:restore", "Give data back, after showing the plan and asking."),
    "undo": _Verb("restores:undo", "Put live data back as it was before a restore."),
    "approve": _Verb("restores:approve", "Agree to a restore that an agent planned."),
    "passphrase": _Verb("passphrase:passphrase", "Set what approvals ask for; list who tried."),
    "check": _Verb("backups:check", "Look for damage in the repository."),
    "forget": _Verb("retention:forget", "Drop the backups that retention does not keep."),
    "prune": _Verb("retention:prune", "Delete what no backup needs any more."),
    "drill": _Verb("proving:drill", "Restore into scratch for real, and put it on record."),
    "evidence": _Verb("proving:evidence", "Say what drills proved, as a list or a report."),
    "runbook": _Verb("runbook:runbook", "Print or walk the pages for the worst day."),
    "export": _Verb("upkeep:export", "Take a backup out, as SQL text or as an archive."),
    "key": _Verb("keys:key", "List, add and remove keys; make or prove a recovery kit."),
    "doctor": _Verb("upkeep:doctor", "Look at everything a backup depends on."),
    "alerts": _Verb("monitoring:alerts", "Say what was told, and try the receivers."),
    "metrics": _Verb("monitoring:metrics", "Print or write metrics for Prometheus."),
    "token": _Verb("tokens:token", "Make, list and revoke access tokens of the HTTP server."),
    "serve": _Verb("serve:serve", "Serve agents over MCP, on stdio or HTTP."),
    "call": _Verb("call:call", "Call a tool as an agent would."),
    "service": _Verb("installing:service", "Run as a service: install, status, uninstall."),
    "install-shim": _Verb("installing:install_shim", "Make `mahavishnu mcp call` mean `call`."),
}


def run(arguments: Sequence[str]) -> int:
    """Do what the arguments say, and return the exit code.

    One of the two places that catch every exception: what is not expected is logged with its
    traceback, and the code is not 0.
    """
    verb, words = arranged(arguments)
    terminal = Terminal(sys.stdout, sys.stderr, sys.stdin, json="--json" in words)
    if verb != _LASTING:  # which has a log of its own
        logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    program = _program(verb, terminal)
    _collect_cycles(seldom=verb != _LASTING)
    try:
        with asked_by(Asker("terminal", getpass.getuser(), tool=verb)):
            code = program(words or ["--help"], prog_name=_NAME, standalone_mode=False)
    except BackupError as error:
        terminal.error(error.code, str(error), error.hint)
        return error.exit_code
    except typer.TyperException as error:
        asked = f"{_NAME} {verb}" if verb in VERBS else _NAME
        terminal.error("usage", error.format_message(), f"Run `{asked} --help`.")
        return _USAGE
    except Exception as error:
        logger.exception("unexpected failure: verb=%s", verb)
        terminal.error(
            "bug", f"{type(error).__name__}: {error}", "Please report it with the lines above."
        )
        return _FAILED
    return code if isinstance(code, int) else 0


def _collect_cycles(*, seldom: bool) -> None:
    """Leave alone what has been loaded, and look at what is new, `seldom` when it is a good deal.

    A backup makes hundreds of thousands of tuples and no cycles among them. What lasts must not:
    twenty thousand objects in cycles, which errors leave, are megabytes that the heap then keeps.
    """
    gc.freeze()
    if seldom:
        gc.set_threshold(_YOUNG, 20, 20)
    gc.enable()


def _program(chosen: str, terminal: Terminal) -> typer.Typer:
    """Build the program with the verb asked for; the others are there by name and summary."""
    program = typer.Typer(
        cls=PlainGroup,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @program.callback()
    def everything(
        context: typer.Context,
        *,
        config: Annotated[
            Path | None, typer.Option(help="The settings file.", metavar="FILE")
        ] = None,
        json: Annotated[
            bool, typer.Option("--json", help="Print the answer, or the error, as JSON.")
        ] = False,
        verbose: Annotated[bool, typer.Option("--verbose", help="Log to stderr.")] = False,
        version: Annotated[
            bool,
            typer.Option(
                "--version", callback=_say_version, is_eager=True, help="Print the version."
            ),
        ] = False,
    ) -> None:
        """Back up live databases and settings into a restic repository, and get them back.

        These options may also stand after the command.
        """
        if verbose:
            logging.getLogger("mcp_backup").setLevel(logging.INFO)
        context.obj = _surroundings(terminal, config)

    for name, verb in VERBS.items():
        free = {"allow_extra_args": True, "ignore_unknown_options": True}
        settings = free if name == FREE_FORM else {}
        function = verb.load() if name == chosen else _not_chosen
        help_text = None if name == chosen else verb.summary
        adding = program.command(name, cls=PlainCommand, help=help_text, context_settings=settings)
        adding(function)
    return program


def _surroundings(terminal: Terminal, config: Path | None) -> Surroundings:
    return Surroundings(
        terminal=terminal,
        config=config,
        environ=os.environ,
        cwd=Path.cwd(),
        home=Path.home(),
        user=getpass.getuser(),
    )


def _say_version(asked: bool) -> None:
    if asked:
        sys.stdout.write(f"{_NAME} {__version__}\n")
        raise typer.Exit


def _not_chosen() -> None:
    """Stand in for a verb that this invocation does not use."""
