"""What goes wrong outside of us, as people meet it: one sentence with cause and next step, and
nothing half done."""

import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from mcp_backup.engine import Engine
from mcp_backup.errors import BackupError
from mcp_backup.format.blob import BlobKind
from mcp_backup.format.snapshot import Snapshot
from mcp_backup.format.tree import encode_tree, file_node
from mcp_backup.repository.locks import LockTimes, locked
from mcp_backup.repository.pool import sealing_pool
from mcp_backup.repository.writer import writing
from mcp_backup.verbs import BackupType, CreateRequest, Level
from mcp_backup.verbs_restores import RestoreRequest
from tests.system import System, change, make_system, settings_of

FLIP = 1


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A system with one backup of it."""
    root = tmp_path_factory.mktemp("made") / "system"
    anyio.run(make_backup, root)
    return root


async def make_backup(root: Path) -> None:
    system = await make_system(root, rows=100)
    async with system.engine() as engine:
        await engine.create(CreateRequest(verify=False))
    change(system.notes, "after the backup")
    (system.project / ".env").write_text("TOKEN=after the backup\n")


@pytest.fixture
def system(made: Path, tmp_path: Path) -> System:
    shutil.copytree(made, tmp_path / "system", symlinks=True)
    return System(tmp_path / "system", settings_of(tmp_path / "system"))


def contents(*roots: Path) -> Mapping[Path, tuple[int, bytes]]:
    """Every file with its mode; side files of databases come and go with who reads."""
    return {
        path: (path.stat().st_mode, path.read_bytes())
        for root in roots
        for path in ([root] if root.is_file() else sorted(root.rglob("*")))
        if path.is_file() and not path.name.endswith(("-wal", "-shm"))
    }


@contextmanager
def untouched(system: System) -> Iterator[None]:
    """Neither the repository nor live data is changed by the block, and no scratch is left."""
    everything = (system.repository, system.notes, system.tasks, system.project)
    before = contents(*(path for path in everything if path.exists()))
    yield
    assert contents(*(path for path in everything if path.exists())) == before
    if system.settings.scratch.is_dir():
        assert os.listdir(system.settings.scratch) == []


@contextmanager
def told(code: str, *names: object) -> Iterator[None]:
    """The block fails with one sentence that has this code and names these things."""
    with pytest.raises(BackupError) as failed:
        yield
    assert_told(failed.value.code, str(failed.value), failed.value.hint, code, *names)


def assert_told(code: str, message: str, hint: str, wanted: str, *names: object) -> None:
    assert code == wanted, message
    for name in names:
        assert str(name) in message
    assert "\n" not in message
    assert not message.endswith(".")
    assert "Traceback" not in message
    assert hint.endswith(".")
    assert hint[0].isupper()


async def run(system: System, work: Callable[[Engine], Any]) -> Any:
    async with system.engine() as engine:
        return await work(engine)


def create(*databases: str, verify: bool = True) -> Callable[[Engine], Any]:
    kind = BackupType.DATABASE if databases else BackupType.FULL
    return lambda engine: engine.create(CreateRequest(kind, databases, verify))


async def to_scratch(engine: Engine, backup_id: str = "latest") -> None:
    plan = await engine.plan_restore(RestoreRequest(backup_id, target="scratch"))
    await engine.restore(plan.plan_id)


async def over_live(engine: Engine) -> None:
    plan = await engine.plan_restore(RestoreRequest())
    await engine.restore(plan.plan_id, consent=True)


# sources


async def test_a_missing_database_is_named_and_not_created(system: System) -> None:
    for side in ("", "-wal", "-shm"):
        Path(f"{system.notes}{side}").unlink(missing_ok=True)
    with untouched(system), told("nothing-backed-up", "'notes'", system.notes, "does not exist"):
        await run(system, create("notes"))
    assert not system.notes.exists()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"this is a text, and no database at all\n" * 10, "is not an SQLite database"),
        (b"", "is empty"),
        (b"SQLite format 3\0" + b"\0\0", "is cut off"),
        (os.urandom(4096), "is not an SQLite database"),
    ],
    ids=["text", "empty", "cut off", "encrypted"],
)
async def test_what_is_no_database_is_named_with_what_it_is(
    system: System, content: bytes, why: str
) -> None:
    for side in ("-wal", "-shm"):
        Path(f"{system.notes}{side}").unlink(missing_ok=True)
    system.notes.write_bytes(content)
    with untouched(system), told("nothing-backed-up", "'notes'", system.notes, why):
        await run(system, create("notes"))


async def test_a_directory_in_a_databases_place_is_named(system: System) -> None:
    system.notes.unlink()
    system.notes.mkdir()
    with told("nothing-backed-up", "'notes'", system.notes, "is a directory"):
        await run(system, create("notes"))


async def test_a_database_with_damaged_pages_fails_alone(system: System) -> None:
    with sqlite3.connect(system.notes) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("PRAGMA journal_mode = DELETE")
    connection.close()
    data = system.notes.read_bytes()
    system.notes.write_bytes(data[:100] + os.urandom(3000) + data[3100:])
    report = await run(system, create())
    notes, tasks, project = report.outcomes
    assert (tasks.outcome, project.outcome) == ("stored", "stored")
    if notes.outcome == "failed":
        assert notes.failure.message
        assert notes.failure.hint
    else:  # the bytes are stored as they are; what is wrong with them is told
        assert [finding.source for finding in report.findings] == ["notes"]


# the repository's password and objects


async def test_a_wrong_password_is_told_with_where_it_comes_from(system: System) -> None:
    (system.root / "backups.key").write_text("something else\n")
    with untouched(system), told("wrong-password", system.repository):
        await run(system, create())


@pytest.mark.parametrize("content", [None, b"", b"\n", b"\xff\xfe\x00"])
async def test_a_password_file_that_cannot_be_used_is_named(
    system: System, content: bytes | None
) -> None:
    (system.root / "backups.key").unlink()
    if content is not None:
        (system.root / "backups.key").write_bytes(content)
    with untouched(system), told("settings-invalid", system.root / "backups.key"):
        await run(system, create())


async def test_a_repository_that_is_not_there_is_told_and_not_made(system: System) -> None:
    system.repository.rename(system.root / "elsewhere")
    with told("store-unavailable", system.repository, "does not exist"):
        await run(system, create())
    assert not system.repository.exists()
    system.repository.mkdir()
    with untouched(system), told("repository-missing", system.repository):
        await run(system, create())


def only(directory: Path) -> Path:
    return next(path for path in sorted(directory.rglob("*")) if path.is_file())


def flip(path: Path, at: float = 0.5) -> None:
    """Change one bit, somewhere in the file."""
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[int((len(data) - 1) * at)] ^= FLIP
    path.write_bytes(data)


async def test_one_damaged_snapshot_hides_no_other_and_stops_no_new_one(system: System) -> None:
    async with system.engine() as engine:
        made = await engine.create(CreateRequest())
    known, files = made.backup_id, (system.repository / "snapshots").iterdir()
    damaged = next(path for path in files if path.name != made.snapshot_id)
    flip(damaged)
    name = damaged.relative_to(system.repository)
    async with system.engine() as engine:
        page = await engine.backups()
        assert [each.backup_id for each in page.entries] == [known]
        assert page.damaged == (str(name),)
        with told("integrity", name, "may be the latest"):
            await engine.verify("latest", Level.STRUCTURE)
        assert (await engine.verify(known, Level.RESTORE)).ok
        assert (await engine.create(CreateRequest())).status == "completed"
        assert {finding.code for finding in (await engine.check()).findings} == {"damaged-snapshot"}


@pytest.mark.parametrize("directory", ["config", "keys", "index"])
@pytest.mark.parametrize("at", [0, 0.5, 1])
async def test_a_flipped_bit_in_what_a_backup_needs_is_told_with_the_objects_name(
    system: System, directory: str, at: float
) -> None:
    damaged = system.repository / directory
    damaged = damaged if damaged.is_file() else only(damaged)
    flip(damaged, at)
    name = damaged.relative_to(system.repository)
    for work in (create(), to_scratch, lambda engine: engine.verify("latest", Level.STRUCTURE)):
        with untouched(system), told("integrity", name):
            await run(system, work)


async def test_a_flipped_bit_in_a_lock_is_told_with_its_name(system: System) -> None:
    at_once = LockTimes(unreadable=())
    async with system.engine() as engine:
        async with locked(engine.repository):
            lock = only(system.repository / "locks")
            kept = lock.read_bytes()
        lock.write_bytes(kept)
        flip(lock)
        with untouched(system), told("integrity", lock.relative_to(system.repository)):
            async with locked(engine.repository, times=at_once):
                pass


def packs(system: System) -> list[Path]:
    return sorted(path for path in (system.repository / "data").rglob("*") if path.is_file())


@pytest.mark.parametrize("ruin", [flip, lambda path: os.truncate(path, path.stat().st_size // 2)])
async def test_a_damaged_pack_is_found_by_every_way_of_reading_it(
    system: System, ruin: Callable[[Path], None]
) -> None:
    """It is told with its name where no live database has the same chunks to take instead."""
    for database in (system.notes, system.tasks):
        for path in database.parent.glob(f"{database.name}*"):
            path.unlink()
    largest = max(packs(system), key=lambda path: path.stat().st_size)
    largest.chmod(0o600)
    ruin(largest)
    with untouched(system):
        async with system.engine() as engine:
            for level in (Level.DATA, Level.RESTORE):
                report = await engine.verify("latest", level)
                assert report.findings
                assert {finding.code for finding in report.findings} == {"integrity"}
                assert all(largest.name in finding.message for finding in report.findings)
            checked = await engine.check(Level.DATA)
            assert any(largest.name in finding.message for finding in checked.findings)
            for restore in (to_scratch, over_live):
                with told("integrity", largest.name):
                    await restore(engine)
            assert await engine.restores() == []


async def test_a_damaged_pack_of_trees_is_told_with_its_name(system: System) -> None:
    async with system.engine() as engine:
        index = await engine.repository.load_index()
        trees = [
            pack.hex()
            for pack in index.packs()
            if {entry.kind for entry in index.entries(pack)} == {BlobKind.TREE}
        ]
    for name in trees:
        flip(system.repository / "data" / name[:2] / name, 0.1)
    for work in (to_scratch, over_live):
        with untouched(system), told("integrity"):
            await run(system, work)


# ids


TRICKY = ("../../etc/passwd", "..", "/etc/passwd", "", "\0", "a" * 10_000, "backup_20260101", "%2e")


@pytest.mark.parametrize("tricky", TRICKY, ids=lambda text: repr(text)[:20])
async def test_an_id_that_is_none_is_told_whatever_is_in_it(system: System, tricky: str) -> None:
    with untouched(system):
        async with system.engine() as engine:
            for work in (
                lambda: engine.verify(tricky),
                lambda: engine.plan_restore(RestoreRequest(tricky)),
                lambda: engine.plan_restore(RestoreRequest(tricky, target="scratch")),
            ):
                with told("unknown-backup", repr(tricky)[1:20]):
                    await work()
            for ask in (engine.plan, engine.restore, engine.undo):
                with told("unknown-plan", tricky[:20].strip("\0")):
                    await ask(tricky)
            with told("unknown-plan"):
                await engine.approve(tricky, "somebody")
            with told("unknown-source", repr(tricky)[1:20], "notes, tasks"):
                await engine.create(CreateRequest(BackupType.DATABASE, (tricky,)))
            with told("unknown-source", repr(tricky)[1:20], "notes, tasks"):
                await engine.plan_restore(RestoreRequest(databases=(tricky,)))
            assert (await engine.backups(source=tricky or "none")).entries == ()
            if tricky:
                with told("usage", "cursor"):
                    await engine.backups(cursor=tricky)


async def pages(limit: int, engine: Engine) -> None:
    await engine.backups(limit=limit)


async def test_a_limit_beyond_reason_is_told(system: System) -> None:
    for limit in (0, -1, 10**9):
        with told("usage", limit):
            await run(system, partial(pages, limit))


# what newer versions write


async def add_newer_backup(engine: Engine) -> str:
    """A backup as a later version of ours might write it."""
    repository = engine.repository
    manifest = json.dumps({"version": 99, "news": True}).encode()
    async with (
        locked(repository),
        sealing_pool(repository.key) as pool,
        writing(repository, pool) as writer,
    ):
        blob = await writer.save(BlobKind.DATA, manifest)
        node = file_node("manifest.json", (blob,), len(manifest), mode=0o600, mtime_ns=0)
        tree = await writer.save(BlobKind.TREE, encode_tree([node]))
        await writer.flush()
        tags = ("mcp-backup", "backup_20991122_120000", "full")
        await repository.add_snapshot(
            Snapshot(time=repository.now(), tree=tree, paths=("/x",), hostname="newer", tags=tags)
        )
    return tags[1]


async def test_a_backup_of_a_newer_version_is_told_as_such(system: System) -> None:
    async with system.engine() as engine:
        newer = await add_newer_backup(engine)
        with untouched(system):
            for work in (
                lambda: engine.verify(newer),
                lambda: engine.plan_restore(RestoreRequest(newer)),
            ):
                with told("unsupported-format", "99", "up to 1"):
                    await work()


async def test_a_backup_that_cannot_be_read_hides_no_other_and_stops_no_new_one(
    system: System,
) -> None:
    async with system.engine() as engine:
        (old,) = (await engine.backups()).entries
        newer = await add_newer_backup(engine)
        listed = {entry.backup_id: entry.status for entry in (await engine.backups()).entries}
        assert listed == {newer: "unreadable", old.backup_id: "completed"}
        held = (await engine.backups(source="notes")).entries
        assert [entry.backup_id for entry in held] == [old.backup_id]
        assert (await engine.verify(old.backup_id)).ok
        report = await engine.create(CreateRequest(BackupType.INCREMENTAL))
        assert report.status == "completed"


# full disks


@contextmanager
def small_disk(place: Path, kibibytes: int) -> Iterator[Path]:
    """A filesystem of that size at `place`."""
    place.mkdir(parents=True, exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kibibytes}k", "tmpfs", str(place)],
        capture_output=True,
        text=True,
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount: {mounted.stderr.strip()}")
    with ExitStack() as stack:
        stack.callback(subprocess.run, ["umount", str(place)], check=True)
        yield place


@contextmanager
def moved_to_small_disk(place: Path, kibibytes: int) -> Iterator[Path]:
    """What is at `place` is now on a disk of that size."""
    aside = place.with_name(f"{place.name}.aside")
    place.rename(aside)
    with small_disk(place, kibibytes):
        shutil.copytree(aside, place, symlinks=True, dirs_exist_ok=True)
        yield place


def fill(disk: Path, leaving_kibibytes: int) -> Path:
    free = os.statvfs(disk)
    filler = disk / "filler"
    size = free.f_bavail * free.f_frsize - (leaving_kibibytes << 10)
    filler.write_bytes(bytes(max(size, 0)))
    return filler


async def test_a_full_repository_is_told_and_takes_backups_again_when_there_is_room(
    system: System,
) -> None:
    system.notes.with_name("extra").mkdir()
    (system.project / "settings" / "noise.yaml").write_bytes(os.urandom(1 << 20))
    with moved_to_small_disk(system.repository, 4 << 10):
        filler = fill(system.repository, 256)
        before = contents(system.repository)
        with told("store-full", system.repository, "no space left"):
            await run(system, create())
        after = contents(system.repository)
        assert before.items() <= after.items()
        assert {path.parent.parent.name for path in after.keys() - before.keys()} <= {"data"}
        assert not any("-tmp-" in path.name for path in after)
        async with system.engine() as engine:
            assert (await engine.verify("latest", Level.RESTORE)).ok
            assert (await engine.check(Level.DATA)).ok
            filler.unlink()
            report = await engine.create(CreateRequest())
            assert (await engine.verify(report.backup_id, Level.RESTORE)).ok


async def test_a_full_scratch_disk_is_told_by_backups_and_restores(system: System) -> None:
    before = contents(system.repository, system.project)
    with small_disk(system.settings.scratch, 32):
        for work in (to_scratch, create()):
            with told("restore-error", system.settings.scratch, "are free"):
                await run(system, work)
            assert os.listdir(system.settings.scratch) == []
        for number in range(100):  # no room for a name either
            with suppress(OSError):
                (system.settings.scratch / f"{number}").write_bytes(bytes(4096))
        with told("restore-error", system.settings.scratch):
            await run(system, create())
    after = contents(system.repository, system.project)
    assert before.items() <= after.items()
    assert {path.parts[len(system.repository.parts)] for path in after.keys() - before.keys()} <= {
        "data",
        "index",
    }


async def test_a_full_disk_of_live_settings_leaves_them_as_they_were(system: System) -> None:
    (system.project / "settings" / "noise.yaml").write_bytes(os.urandom(1 << 20))
    await run(system, create(verify=False))
    (system.project / "settings" / "noise.yaml").write_bytes(b"live")
    with moved_to_small_disk(system.project, 1 << 10):
        fill(system.project, 64)
        before = contents(system.project)
        async with system.engine() as engine:
            with pytest.raises(BackupError) as failed:
                await over_live(engine)
            assert failed.value.hint
            assert "project" in str(failed.value)
        assert contents(system.project) == before


# not permitted


@dataclass(frozen=True)
class Ran:
    code: int
    error: Mapping[str, str]


def without_privileges(system: System, *arguments: str) -> Ran:
    """Run the program as a user whom file modes bind, which they do not bind root."""
    bound = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]
    done = subprocess.run(
        [
            *(bound if os.geteuid() == 0 else []),
            sys.executable,
            "-m",
            "mcp_backup",
            *arguments,
            "--json",
        ],
        env={**os.environ, "MCP_BACKUP_CONFIG": str(settings_file(system))},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "Traceback" not in done.stderr
    return Ran(done.returncode, json.loads(done.stderr.splitlines()[-1])["error"])


def settings_file(system: System) -> Path:
    file = system.root / "mcp-backup.toml"
    file.write_text(
        f"""
state_dir = "{system.settings.state_dir}"
[repository]
location = "{system.repository}"
password_file = "{system.root / "backups.key"}"
[[databases]]
name = "notes"
kind = "sqlite"
path = "{system.notes}"
"""
    )
    return file


@contextmanager
def read_only(*directories: Path, mode: int = 0o500) -> Iterator[None]:
    modes = {directory: stat.S_IMODE(directory.stat().st_mode) for directory in directories}
    for directory in directories:
        directory.chmod(mode)
    yield
    for directory, before in modes.items():
        directory.chmod(before)


def test_a_repository_that_may_not_be_written_is_told_with_the_user(system: System) -> None:
    with untouched(system), read_only(system.repository / "locks"):
        ran = without_privileges(system, "create")
    told = ran.error
    assert_told(told["code"], told["message"], told["hint"], "store-denied", system.repository)
    assert (ran.code, "permission denied" in told["message"]) == (1, True)


def test_a_repository_that_may_not_be_read_is_told(system: System) -> None:
    with untouched(system), read_only(system.repository, mode=0o000):
        told = without_privileges(system, "list").error
    assert_told(told["code"], told["message"], told["hint"], "store-denied", system.repository)


def test_a_database_that_may_not_be_read_is_told(system: System) -> None:
    with untouched(system), read_only(system.notes, mode=0o000):
        told = without_privileges(system, "create").error
    assert_told(told["code"], told["message"], told["hint"], "nothing-backed-up", system.notes)


def test_a_state_directory_that_may_not_be_written_is_told(system: System) -> None:
    shutil.rmtree(system.settings.state_dir)
    with untouched(system), read_only(system.root):
        told = without_privileges(system, "create").error
    assert_told(
        told["code"], told["message"], told["hint"], "settings-invalid", system.settings.state_dir
    )


def test_a_password_file_that_may_not_be_read_is_told(system: System) -> None:
    key = system.root / "backups.key"
    with untouched(system), read_only(key, mode=0o000):
        told = without_privileges(system, "list").error
    assert_told(told["code"], told["message"], told["hint"], "settings-invalid", key)


def test_a_live_directory_that_may_not_be_written_is_told_and_left_alone(system: System) -> None:
    system.notes.unlink()
    with untouched(system), read_only(system.root):
        told = without_privileges(system, "restore", "--yes").error
    assert told["hint"]
    assert str(system.notes) in told["message"]
    assert not system.notes.exists()


# settings


def test_a_setting_that_does_not_exist_is_told_with_the_nearest_that_does(system: System) -> None:
    file = settings_file(system)
    file.write_text(file.read_text().replace("password_file", "pasword_file"))
    done = subprocess.run(
        [sys.executable, "-m", "mcp_backup", "list", "--config", str(file), "--json"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    told = json.loads(done.stderr)["error"]
    assert done.returncode == 2
    assert_told(
        told["code"], told["message"], told["hint"], "settings-invalid", file, "pasword_file"
    )
    assert "password_file" in told["message"].replace("pasword_file", "") + told["hint"]
