"""passphrase: what approvals ask for, so that a shell alone is not enough to approve.

It is read from the terminal itself, /dev/tty, and from nowhere else: no argument, no variable, no
pipe holds it.
"""

import getpass
import os
from collections.abc import Sequence
from functools import partial
from secrets import token_bytes
from typing import Annotated, Literal

import typer
from msgspec import Struct

from mcp_backup.cli.session import Session, session
from mcp_backup.errors import ApprovalRefused, UsageError
from mcp_backup.passphrase import Attempt, Passphrase
from mcp_backup.place import utc_now
from mcp_backup.terminal import table

_UNCHANGED = "Nothing was changed."
_SHOWN = 20  # attempts

Action = Literal["set", "remove", "status"]


class Standing(Struct, frozen=True):
    """Whether there is a passphrase, and who tried it last."""

    is_set: bool
    attempts: Sequence[Attempt]


def passphrase(
    context: typer.Context,
    action: Annotated[Action, typer.Argument(help="What to do.")] = "status",
) -> int:
    """Set, change or remove the passphrase that approvals ask for.

    set     ask for a new one, twice, and for the old one if there is one
    remove  have none any more: whoever has a terminal may approve
    status  whether there is one, and the last attempts
    """
    this = session(context)
    kept = _kept(this)
    if action != "status":
        prove_person(this, f"{action} the passphrase")
    if action == "set":
        kept.set(_new(this), token_bytes)
    elif action == "remove":
        kept.remove()
    standing = Standing(kept.is_set, kept.attempts()[:_SHOWN])
    this.terminal.result(standing, _told(standing))
    return 0


def prove_person(this: Session, subject: str) -> None:
    """Ask for the passphrase, where there is one.

    Raises:
        ApprovalRefused: there is no terminal to ask at, or it was wrong.
    """
    kept = _kept(this)
    if kept.is_set:
        kept.check(_asked(this, "Approval passphrase: "), this.surroundings.user, subject)


def _kept(this: Session) -> Passphrase:
    return Passphrase(this.settings().state_dir, utc_now)


def _new(this: Session) -> str:
    typed, again = (_asked(this, question) for question in ("New passphrase: ", "The same again: "))
    if typed != again:
        raise UsageError("the two differ", hint=f"Try again. {_UNCHANGED}")
    return typed


def _asked(this: Session, question: str) -> str:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError as error:
        raise ApprovalRefused(
            "the approval passphrase is asked for at a terminal, and there is none",
            hint="Run the command yourself, in a terminal. Nothing was touched.",
        ) from error
    try:
        return this.interruptible(partial(getpass.getpass, question), unfinished=_UNCHANGED)
    except EOFError:
        return ""


def _told(standing: Standing) -> list[str]:
    if standing.is_set:
        lines = ["approvals ask for the passphrase"]
    else:
        lines = ["there is no approval passphrase: mcp-backup passphrase set"]
    if standing.attempts:
        rows = [(each.at[:19], each.by, each.subject, each.outcome) for each in standing.attempts]
        lines += ["", *table(("TIME (UTC)", "BY", "TO", "OUTCOME"), *rows)]
    return lines
