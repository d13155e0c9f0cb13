"""token: who may use the HTTP server, and for what. A token is shown once, when it is made."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from secrets import token_bytes
from typing import Annotated, Literal

import typer
from msgspec import Struct

from mcp_backup.cli.arguments import moment, separated
from mcp_backup.cli.session import Session, session
from mcp_backup.errors import UsageError
from mcp_backup.place import utc_now
from mcp_backup.settings_server import ALL_SCOPES
from mcp_backup.terminal import moment as worded
from mcp_backup.terminal import table
from mcp_backup.tokens import Token, TokenStore

_DAYS = 90  # until a token expires, unless --expires says otherwise
_MOST_DAYS = 3660

Action = Literal["create", "list", "revoke"]


class MadeToken(Struct, frozen=True):
    """A token that was just made, with the token itself."""

    token: str
    id: str
    name: str
    scopes: tuple[str, ...]
    expires: datetime


class ListedToken(Struct, frozen=True):
    """What is known of a token."""

    id: str
    name: str
    scopes: tuple[str, ...]
    created: datetime
    expires: datetime
    state: Literal["in force", "expired", "revoked"]


class ListedTokens(Struct, frozen=True):
    """All tokens made here."""

    tokens: Sequence[ListedToken]


def token(  # noqa: PLR0913 - one parameter per flag
    context: typer.Context,
    action: Annotated[Action, typer.Argument(help="What to do.")] = "list",
    wanted: Annotated[
        str, typer.Argument(help="revoke: the token's id or name.", metavar="[TOKEN]")
    ] = "",
    *,
    name: Annotated[str, typer.Option(help="create: whose it is.")] = "",
    scope: Annotated[
        list[str] | None, typer.Option(help="create: read, backup, restore, admin; with commas.")
    ] = None,
    expires: Annotated[
        str, typer.Option(help="create: a day, or a number of days; 90 unless said.")
    ] = "",
) -> int:
    """Make, list and revoke the access tokens of the HTTP server.

    create  make a token and show it, once; clients send it as their bearer
    list    whose there are, for what, and until when
    revoke  refuse a token from now on, by servers that are running too
    """
    this = session(context)
    store = TokenStore(this.settings().state_dir, utc_now)
    match action:
        case "create":
            made = _made(store, name, separated(scope), _end(expires))
            this.terminal.result(made, _told(made))
        case "list":
            _list(this, store.tokens())
        case "revoke":
            _list(this, store.revoke(wanted or name))
    return 0


def _made(store: TokenStore, name: str, scopes: Sequence[str], expires: datetime) -> MadeToken:
    if not name or not scopes:
        raise UsageError(
            f"{'--scope' if name else '--name'} is missing",
            hint="Say whose the token is and what it may do, as in --name laptop --scope "
            "read,backup. Nothing was made.",
        )
    for each in scopes:
        if each not in ALL_SCOPES:
            raise UsageError(
                f"--scope {each!r} is none of {', '.join(ALL_SCOPES)}",
                hint="Use one or more of these, separated by commas. Nothing was made.",
            )
    text, made = store.create(name, scopes, expires, token_bytes)
    return MadeToken(text, made.id, made.name, made.scopes, made.expires)


def _end(text: str) -> datetime:
    """Read when a token shall expire: a number of days, or a day or time to come."""
    now = utc_now()
    days = text.removesuffix("d") or str(_DAYS)
    if days.isdecimal() and 0 < int(days) <= _MOST_DAYS:
        return now + timedelta(days=int(days))
    end = moment(text, "--expires")
    if end is None or not now < end <= now + timedelta(days=_MOST_DAYS):
        raise UsageError(
            f"--expires {text!r} is not between now and ten years from now",
            hint="Write a number of days, such as 30, or a day, such as 2027-01-31.",
        )
    return end


def _told(made: MadeToken) -> list[str]:
    return [
        made.token,
        f"for {made.name}: {', '.join(made.scopes)}, until {worded(made.expires)}",
        "It is shown this once, and kept as a hash. From now on the HTTP server asks for a token.",
        "next: clients send it in the header `Authorization: Bearer TOKEN`",
    ]


def _list(this: Session, tokens: Sequence[Token]) -> None:
    listed = [_listed(each) for each in tokens]
    head = ("ID", "NAME", "SCOPES", "EXPIRES", "STATE")
    rows = [
        (each.id, each.name, ",".join(each.scopes), worded(each.expires), each.state)
        for each in listed
    ]
    lines = table(head, *rows) if rows else ["there are no tokens: mcp-backup token create"]
    this.terminal.result(ListedTokens(listed), lines)


def _listed(token: Token) -> ListedToken:
    state: Literal["in force", "expired", "revoked"] = "expired"
    if token.revoked is not None:
        state = "revoked"
    elif token.good(utc_now()):
        state = "in force"
    return ListedToken(token.id, token.name, token.scopes, token.created, token.expires, state)
