"""The recovery kit: one page from which everything can be restored without us.

`compose` says what belongs on it, `recovery_page` lays it out, `read_kit` takes it off the page
again, and `prove` opens the newest backup with that and nothing else. Only doors that a person
holds, and drills, call this: a kit holds the password.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from time import monotonic

import anyio
from anyio import to_thread
from msgspec import Struct

from mcp_backup.catalog import Catalog
from mcp_backup.durable import create_durably
from mcp_backup.engine import Engine
from mcp_backup.errors import RepositoryError, SettingsInvalid, UsageError, WrongPassword
from mcp_backup.format.blob import BlobKind
from mcp_backup.kit_record import KitRecord, save_record
from mcp_backup.manifest import PATH as MANIFEST_PATH
from mcp_backup.place import Place
from mcp_backup.recording import recorded
from mcp_backup.recovery_page import Kit, KitSource, html_page, parse_page, text_page
from mcp_backup.repository.keys import find_key
from mcp_backup.repository.repository import Repository, open_repository
from mcp_backup.settings import repository_password
from mcp_backup.store.location import open_store

_MAX_PAGE = 1 << 20  # bytes; a page has about three thousand
_HTML = (".html", ".htm")
_ANOTHER = "Make another: `mcp-backup key recovery-kit --out FILE`, and destroy this one."


class KitMade(Struct, frozen=True):
    """A kit that was written."""

    path: str
    key_id: str
    code: str
    made: datetime


class KitProof(Struct, frozen=True):
    """What a kit alone opened. `restic` is the version that did as well; "" where there is none."""

    location: str
    repository_id: str
    backup_id: str
    snapshot_id: str
    time: datetime
    sources: tuple[str, ...]
    restic: str
    duration_seconds: float


async def compose(engine: Engine, place: Place) -> Kit:
    """Return what belongs on the page now: the password in use among it.

    Raises:
        UsageError: paper cannot carry the password or the location.
        SettingsInvalid: the settings give no password.
        WrongPassword: they give one that opens nothing, so a kit would be worthless.
    """
    repository = engine.repository
    secret = await to_thread.run_sync(repository_password, engine.settings, place.environ)
    password = secret.reveal()
    key_id, _ = await find_key(repository.store, password)
    location = repository.store.location
    _refuse_unprintable(password, location)
    return Kit(
        location=location,
        repository_id=repository.config.id,
        password=password,
        key_id=key_id.hex(),
        made=engine.now().replace(microsecond=0),
        hostname=engine.hostname,
        sources=tuple(
            KitSource(f"{spec.component.value}/{spec.name}", spec.path)
            for spec in engine.settings.sources()
        ),
    )


@recorded("recovery-kit")
async def make_kit(engine: Engine, path: Path, place: Place) -> KitMade:
    """Write the kit to `path`, which must not exist, and remember that there is one.

    HTML where the name ends in `.html`, else text; for its owner's eyes only (0600).

    Raises:
        UsageError: as `compose`, or `path` exists or cannot be written.
    """
    kit = await compose(engine, place)
    page = html_page(kit) if path.suffix.lower() in _HTML else text_page(kit)
    await to_thread.run_sync(_write, path, page)
    record = KitRecord(kit.made, kit.key_id, kit.location)
    await to_thread.run_sync(_remember, engine.state, record)
    return KitMade(str(path), kit.key_id, kit.code, kit.made)


def read_kit(path: Path) -> Kit:
    """Read a kit off its page, text or HTML. Blocks.

    Raises:
        UsageError: it cannot be read, is no kit, or its check code disagrees with the password.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_PAGE + 1)
    except OSError as error:
        raise UsageError(
            f"{path}: {error.strerror}", hint="Name the file that holds the recovery kit."
        ) from error
    if len(data) > _MAX_PAGE:
        raise UsageError(f"{path} is larger than a page can be", hint="Name the recovery kit.")
    return parse_page(data.decode(errors="replace"))


async def prove(kit: Kit, place: Place) -> KitProof:
    """Open the newest backup with the kit alone: its location and its password.

    Twice where the PATH has a restic: with that, and with ours; both must read the same
    manifest. Nothing is written, and no lock is taken. A cancel leaves nothing behind.

    Raises:
        RepositoryError: the kit's password opens nothing, or another repository is there.
        UnknownBackup: there is no backup yet.
        StoreError, IntegrityError: the repository is not there, or damaged.
    """
    began = monotonic()
    repository = await _opened(kit, place)
    catalog = Catalog(repository)
    backup = await catalog.find("latest")
    manifest = await catalog.manifest(backup)
    assert manifest is not None  # `latest` is ours
    restic = shutil.which("restic", path=place.environ.get("PATH", ""))
    version = ""
    if restic:
        ours = await _manifest_bytes(repository, catalog, backup.id.hex())
        command = ("dump", backup.id.hex(), f"/{MANIFEST_PATH}")
        if await _restic(restic, kit, place.environ, *command) != ours:
            raise RepositoryError(
                f"{restic} reads another {MANIFEST_PATH} of {backup.backup_id} than we do",
                hint="Run `mcp-backup check --level data`.",
            )
        version = (await _restic(restic, kit, place.environ, "version")).decode().split("\n")[0]
    return KitProof(
        location=kit.location,
        repository_id=kit.repository_id,
        backup_id=backup.backup_id,
        snapshot_id=backup.id.hex(),
        time=backup.snapshot.time,
        sources=tuple(each.name for each in manifest.sources if each.outcome != "failed"),
        restic=" ".join(version.split()[:2]),
        duration_seconds=round(monotonic() - began, 3),
    )


async def _opened(kit: Kit, place: Place) -> Repository:
    try:
        repository = await open_repository(
            open_store(kit.location),
            kit.password,
            now=place.now,
            hostname=place.hostname,
            username=place.username,
        )
    except WrongPassword as error:
        told = f"the kit's password opens no key of {kit.location}"
        raise RepositoryError(told, hint=_ANOTHER) from error
    if repository.config.id != kit.repository_id:
        raise RepositoryError(
            f"{kit.location} is repository {repository.config.id[:8]}, and the kit is for "
            f"{kit.repository_id[:8]}",
            hint=f"Put the kit's repository back there, or prove the kit that belongs to it. "
            f"{_ANOTHER}",
        )
    return repository


async def _manifest_bytes(repository: Repository, catalog: Catalog, snapshot: str) -> bytes:
    node = (await catalog.root(await catalog.find(snapshot)))[MANIFEST_PATH]
    return b"".join(
        [await repository.load_blob(BlobKind.DATA, blob) for blob in node.content or ()]
    )


async def _restic(program: str, kit: Kit, environ: Mapping[str, str], *arguments: str) -> bytes:
    """Run restic with the kit; the password goes through a pipe, where no process list shows it."""
    reading, writing = os.pipe()
    try:
        try:
            os.write(writing, kit.password.encode())  # far less than a pipe holds
        finally:
            os.close(writing)
        known = {name: environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in environ}
        done = await anyio.run_process(
            [program, "--no-cache", "--no-lock", *arguments],
            env=known
            | {
                "RESTIC_REPOSITORY": kit.location,
                "RESTIC_PASSWORD_FILE": f"/dev/fd/{reading}",
            },
            stdin=subprocess.DEVNULL,
            pass_fds=(reading,),
            check=False,
        )
    finally:
        os.close(reading)
    if done.returncode:
        told = done.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"]
        raise RepositoryError(
            f"{program} does not open {kit.location} with the kit: {told[-1]:.300}",
            hint=f"Run `mcp-backup check`, and restic by hand. {_ANOTHER}",
        )
    return done.stdout


def _refuse_unprintable(password: str, location: str) -> None:
    if "://" in location:
        raise UsageError(
            f"{location} is no local directory, and a kit for it would lack its credentials",
            hint="Write down by hand how restic opens it. Nothing was written.",
        )
    if not location.isprintable():
        raise UsageError(
            f"paper cannot carry the location {location!r}",
            hint="Move the repository to a path of printable characters. Nothing was written.",
        )
    if not password.isprintable() or "  " in password or len(password) > 1000:
        raise UsageError(
            "paper cannot carry this password: it is very long, or has characters that do not "
            "print, or several blanks in a row",
            hint="Add another key with `mcp-backup key add --generate FILE`, name that file as "
            "`password_file`, and make the kit then. Nothing was written.",
        )


def _write(path: Path, page: str) -> None:
    try:
        create_durably(path, page.encode(), mode=0o600)
    except FileExistsError as error:
        raise UsageError(
            f"{path} exists already", hint="Name another file. Nothing was written."
        ) from error
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written: {error.strerror}",
            hint="Name a place where this user may write. Nothing was written.",
        ) from error


def _remember(state: Path, record: KitRecord) -> None:
    try:
        save_record(state, record)
    except OSError as error:
        raise SettingsInvalid(
            f"the kit was written, but the state directory {state} cannot take note of it: "
            f"{error.strerror}",
            hint="The kit is good. Make the directory writable, or `doctor` will ask for one.",
        ) from error
