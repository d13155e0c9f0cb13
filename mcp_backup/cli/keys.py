"""key: which passwords open the repository, and the page that opens it without us.

No password is ever an argument: it is asked for at a terminal, or read from a file.
"""

import getpass
import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import anyio
import typer
from msgspec import Struct

from mcp_backup import keyring, recovery_kit
from mcp_backup.cli.session import Session, session
from mcp_backup.errors import UsageError
from mcp_backup.keyring import KeyChange, ListedKey
from mcp_backup.opening import write_new_password
from mcp_backup.password import resolve_password
from mcp_backup.place import Place
from mcp_backup.recovery_kit import KitMade, KitProof
from mcp_backup.secret import Secret
from mcp_backup.terminal import count, moment, table

T = TypeVar("T")
_DECLINED = 5
_SHORT = 8  # digits of an id shown, as restic shows them
_UNCHANGED = "The keys are as they were, or the change is complete; `mcp-backup key list` shows it."

Action = Literal["list", "add", "remove", "recovery-kit", "prove-kit"]


class Keys(Struct, frozen=True):
    """The keys of the repository."""

    keys: Sequence[ListedKey]


def key(  # noqa: PLR0913 - one parameter per flag
    context: typer.Context,
    action: Annotated[Action, typer.Argument(help="What to do.")] = "list",
    key_id: Annotated[
        str, typer.Argument(help="remove: the key's id, or its first 8 digits.", metavar="[KEY]")
    ] = "",
    *,
    new_password_file: Annotated[
        Path | None, typer.Option(help="add: read the password there; else it is asked for.")
    ] = None,
    generate: Annotated[
        Path | None, typer.Option(help="add: make a random password, and this file with it.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="recovery-kit: the page to write; .html, else text.")
    ] = None,
    kit: Annotated[Path | None, typer.Option(help="prove-kit: the page to prove.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="remove: do not ask.")] = False,
) -> int:
    """List, add and remove the repository's keys; write a recovery kit; prove one.

    list          which passwords open it, by key; the one in use has a star
    add           another password
    remove        a password, never the one in use
    recovery-kit  one page to print: location, password, and how restic restores without us
    prove-kit     open the newest backup with a kit and nothing else
    """
    this = session(context)
    match action:
        case "list":
            keys = this.run(lambda engine, _: keyring.list_keys(engine), unfinished=_UNCHANGED)
            this.terminal.result(Keys(keys), _listed(keys))
        case "add":
            _add(this, new_password_file, generate)
        case "remove":
            return _remove(
                this, _needed(key_id, "KEY", "`mcp-backup key list` shows their ids"), yes=yes
            )
        case "recovery-kit":
            _make_kit(this, _needed(out, "--out FILE", "the page holds the password"))
        case "prove-kit":
            _prove(this, _needed(kit, "--kit FILE", "`recovery-kit --out FILE` makes one"))
    return 0


def _needed(value: T | None, what: str, why: str) -> T:
    if not value:
        raise UsageError(f"{what} is missing: {why}", hint="Run `mcp-backup key --help`.")
    return value


def _add(this: Session, file: Path | None, generate: Path | None) -> None:
    if file and generate:
        raise UsageError(
            "--new-password-file and --generate exclude each other",
            hint="The first reads a password, the second makes one. Nothing was added.",
        )
    password = _generated(this, generate) if generate else _given(this, file)
    work = partial(keyring.add, password=password, place=Place.here(), generated=bool(generate))
    change = this.run(lambda engine, _: work(engine), unfinished=_UNCHANGED)
    this.terminal.result(change, _changed(change))


def _generated(this: Session, file: Path) -> Secret:
    path = this.surroundings.cwd / file.expanduser()
    try:
        return write_new_password(path)
    except FileExistsError as error:
        raise UsageError(
            f"{path} exists already",
            hint="Name another file, or --new-password-file to use the password in this one. "
            "Nothing was added.",
        ) from error
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written: {error.strerror}",
            hint="Name a place where this user may write. Nothing was added.",
        ) from error


def _given(this: Session, file: Path | None) -> Secret:
    """Read the new password from the file, or ask the person for it twice."""
    if file is not None:
        path = this.surroundings.cwd / file.expanduser()
        if not path.exists():
            raise UsageError(
                f"{path} does not exist",
                hint="Write the new password there, or let --generate FILE make one. "
                "Nothing was added.",
            )
        return resolve_password(path, None, {}, None)
    if not this.terminal.has_person:
        raise UsageError(
            "there is nobody to ask for the new password",
            hint="Name a file with --new-password-file or --generate. Nothing was added.",
        )
    typed, again = (
        this.interruptible(partial(_asked, this, question), unfinished="Nothing was added.")
        for question in ("New password: ", "The same again: ")
    )
    if not typed or typed != again:
        raise UsageError(
            "the two differ" if typed else "an empty password opens nothing",
            hint="Try again. Nothing was added.",
        )
    return Secret(typed)


def _asked(this: Session, question: str) -> str:
    try:
        return getpass.getpass(question, this.terminal.err).strip()
    except EOFError:
        return ""


def _remove(this: Session, wanted: str, *, yes: bool) -> int:
    key = this.run(lambda engine, _: keyring.find_listed(engine, wanted), unfinished=_UNCHANGED)
    if not yes and not _agreed(this, key):
        return _DECLINED
    change = this.run(lambda engine, _: keyring.remove(engine, key.key_id), unfinished=_UNCHANGED)
    this.terminal.result(change, _changed(change))
    return 0


def _agreed(this: Session, key: ListedKey) -> bool:
    """Show the key, and ask the person if there is one."""
    short = key.key_id[:_SHORT]
    if not this.terminal.has_person:
        this.terminal.error(
            "approval-required",
            f"a person has to agree to removing key {short}",
            f"Run `mcp-backup key remove {short} --yes`, or in a terminal. Nothing was removed.",
        )
        return False
    for line in (*_listed([key]), "", "Its password will open nothing any more."):
        this.terminal.note(line)
    question = f"Type {short!r} to remove it, anything else to stop:"
    if this.interruptible(lambda: this.terminal.ask(question), unfinished=_UNCHANGED) == short:
        return True
    this.terminal.note("Nothing was removed.")
    return False


def _make_kit(this: Session, out: Path) -> None:
    path = this.surroundings.cwd / out.expanduser()
    made = this.run(
        lambda engine, _: recovery_kit.make_kit(engine, path, Place.here()),
        unfinished=f"{path} was not written, or is whole.",
    )
    this.terminal.result(made, _told(made))


def _prove(this: Session, page: Path) -> None:
    kit = recovery_kit.read_kit(this.surroundings.cwd / page.expanduser())
    proof = this.interruptible(
        lambda: anyio.run(recovery_kit.prove, kit, Place.here()), unfinished="Nothing was changed."
    )
    this.terminal.result(proof, _proven(proof))


def _listed(keys: Sequence[ListedKey]) -> list[str]:
    rows = [
        (
            f"{'*' if key.current else ' '}{key.key_id[:_SHORT]}",
            moment(key.created) if key.created else "",
            f"{key.username}@{key.hostname}" if key.created else f"damaged: {key.damaged}",
            "recovery kit" if key.kit else "",
        )
        for key in keys
    ]
    return table((" KEY", "CREATED", "BY", "ON THE"), *rows)


def _changed(change: KeyChange) -> list[str]:
    lines = [f"key {change.key_id[:_SHORT]} was {change.done}; there are {change.keys} now"]
    return lines + ([f"next: {change.advice}"] if change.advice else [])


def _told(made: KitMade) -> list[str]:
    return [
        f"recovery kit  {made.path}",
        f"check code    {made.code}",
        "It holds the password. Print it, keep the page away from this machine, delete the file.",
        f"next: mcp-backup key prove-kit --kit {shlex.quote(made.path)}",
    ]


def _proven(proof: KitProof) -> list[str]:
    by = f"mcp-backup and {proof.restic}" if proof.restic else "mcp-backup (no restic is here)"
    return [
        f"the kit alone opens {proof.location}, by {by}",
        f"newest backup: {proof.backup_id} of {moment(proof.time)}, with "
        f"{count(len(proof.sources), 'source')}: {', '.join(proof.sources)}",
    ]
