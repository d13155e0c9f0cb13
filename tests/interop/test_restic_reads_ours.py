"""A bare restic is enough to get everything back, and may tidy up behind us."""

import json
import os
import shutil
import socket
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import anyio
import pytest
from msgspec import structs

from mcp_backup.settings_sections import ConfigSettings
from mcp_backup.sources.source import Component
from mcp_backup.verbs import BackupType, CreateRequest, Level
from mcp_backup.verbs_restores import RestoreRequest
from tests.interop.conftest import Restic
from tests.system import System, bodies, change, make_system, settled

ODD_NAMES = (
    "with space.txt",
    "ünïcödé 日本.txt",
    "quote'\"quote.txt",
    "back\\slash.txt",
    "new\nline.txt",
    "tab\t&<>.txt",
    os.fsdecode(b"not utf-8 \xff\xfe.txt"),
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> System:
    """Three backups: all, databases after a change, all again."""
    return anyio.run(make_backups, tmp_path_factory.mktemp("made") / "system")


async def make_backups(root: Path) -> System:
    system = await make_system(root, rows=3000)
    odd = system.project / "odd"
    odd.mkdir()
    for number, name in enumerate(ODD_NAMES):
        (odd / name).write_bytes(b"content %d\n" % number)
    (odd / "empty.txt").touch()
    (odd / "script.sh").write_text("#!/bin/sh\n")
    (odd / "script.sh").chmod(0o755)
    (odd / "large.txt").write_bytes(os.urandom(5 << 20))
    (odd / "link").symlink_to("../.env")
    (odd / "dangling").symlink_to("no/where at all")
    project = ConfigSettings(
        name="project", root=system.project, include=(".env", "*.toml", "settings/*.yaml", "odd/*")
    )
    settings = structs.replace(system.settings, config=(project,))
    system = System(root, settings)
    async with system.engine() as engine:
        for kind in (BackupType.FULL, BackupType.DATABASE, BackupType.FULL):
            assert (await engine.create(CreateRequest(kind))).status == "completed"
            change(system.notes, f"changed after {kind}")
    return system


@pytest.fixture
def system(made: System, tmp_path: Path) -> System:
    """A copy of the repository to do anything to; the live files are shared."""
    shutil.copytree(made.repository, tmp_path / "copy")
    location = structs.replace(made.settings.repository, location=str(tmp_path / "copy"))
    return Copy(
        made.root,
        structs.replace(made.settings, repository=location, state_dir=tmp_path / "state"),
    )


class Copy(System, frozen=True):
    """A system whose repository lies elsewhere."""

    @property
    def repository(self) -> Path:
        return Path(self.settings.repository.location)


@pytest.fixture
def judge(restic: Restic, system: System) -> Restic:
    return restic.at(system.repository, system.password)


async def staged(system: System, backup_id: str = "latest") -> Path:
    """Everything in a backup, as we give it back."""
    async with system.engine() as engine:
        plan = await engine.plan_restore(RestoreRequest(backup_id, target="scratch"))
        report = await engine.restore(plan.plan_id)
    return system.settings.scratch / report.restore_id


def tree_of(root: Path) -> Mapping[str, tuple[int, int, bytes | str]]:
    """Every file and link below: mode, mtime and content."""
    found: dict[str, tuple[int, int, bytes | str]] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        name = os.fsdecode(os.fsencode(path.relative_to(root)))
        if stat.S_ISLNK(status.st_mode):
            found[name] = (0, 0, os.readlink(path))
        elif stat.S_ISREG(status.st_mode):
            found[name] = (stat.S_IMODE(status.st_mode), status.st_mtime_ns, path.read_bytes())
    return found


async def assert_intact(system: System, count: int) -> None:
    """We list that many backups, each restores to what its sources saw, nothing is damaged."""
    async with system.engine() as engine:
        entries = (await engine.backups()).entries
        assert [entry.ours for entry in entries] == [True] * count
        for entry in entries:
            assert (await engine.verify(entry.snapshot_id, Level.RESTORE)).findings == ()
        assert (await engine.check(Level.DATA)).findings == ()


async def test_restic_lists_our_backups_with_what_a_person_looks_for(
    system: System, judge: Restic
) -> None:
    async with system.engine() as engine:
        ours = {entry.snapshot_id: entry for entry in (await engine.backups()).entries}
    theirs = {snapshot["id"]: snapshot for snapshot in judge.json("snapshots")}
    assert theirs.keys() == ours.keys()
    for identity, snapshot in theirs.items():
        entry = ours[identity]
        assert snapshot["tags"] == ["mcp-backup", entry.backup_id, entry.backup_type]
        assert (snapshot["hostname"], snapshot["username"]) == ("host", "somebody")
        assert str(system.notes) in snapshot["paths"]
        assert snapshot["time"].startswith(entry.time.strftime("%Y-%m-%dT%H:%M:%S"))


def test_restic_finds_nothing_wrong_with_any_byte(judge: Restic) -> None:
    assert "no errors were found" in judge("check", "--read-data")


def test_restic_sees_databases_settings_and_the_manifest(judge: Restic) -> None:
    listed = [json.loads(line) for line in judge("ls", "--json", "latest").splitlines()][1:]
    types = {node["path"]: node["type"] for node in listed}
    assert types["/databases/notes/notes.db"] == "file"
    assert types["/config/project/.env"] == "file"
    assert types["/config/project/odd/link"] == "symlink"
    assert types["/manifest.json"] == "file"
    manifest = json.loads(judge.output("dump", "latest", "/manifest.json"))
    assert {source["name"] for source in manifest["sources"]} == {"notes", "tasks", "project"}


async def test_restic_restores_what_we_restore_byte_for_byte(
    system: System, judge: Restic, tmp_path: Path
) -> None:
    judge("restore", "latest", "--target", tmp_path / "theirs")
    (tmp_path / "theirs" / "manifest.json").unlink()
    ours, theirs = tree_of(await staged(system)), tree_of(tmp_path / "theirs")
    assert theirs == ours
    assert {f"config/project/odd/{name}" for name in ODD_NAMES} <= theirs.keys()


def test_databases_that_restic_restored_open_and_hold_the_rows_of_their_time(
    system: System, judge: Restic, tmp_path: Path
) -> None:
    judge("restore", "latest", "--target", tmp_path)
    for name, marked in (("notes", "changed after database"), ("tasks", "note number 0 of tasks")):
        path = tmp_path / "databases" / name / f"{name}.db"
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert connection.execute(
                "SELECT count(*) FROM search WHERE search MATCH 'words'"
            ).fetchone() == (3000,)
        restored = bodies(path)
        assert restored[0].startswith(marked)
        live = bodies(system.root / f"{name}.db")
        assert restored[1:] == live[1:]


def test_settings_that_restic_restored_have_their_bytes_modes_links_and_names(
    system: System, judge: Restic, tmp_path: Path
) -> None:
    judge("restore", "latest", "--target", tmp_path, "--include", "/config")
    live, restored = tree_of(system.project), tree_of(tmp_path / "config" / "project")
    assert restored == live
    assert restored["odd/script.sh"][0] == 0o755
    assert restored[".env"][0] == 0o600
    assert restored["odd/dangling"][2] == "no/where at all"


def test_restic_dumps_finds_and_counts(system: System, judge: Restic, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    judge("restore", "latest", "--target", theirs)
    for path in ("databases/tasks/tasks.db", "config/project/odd/large.txt"):
        assert judge.output("dump", "latest", f"/{path}") == (theirs / path).read_bytes()
    found = judge.json("find", "notes.db")
    assert len(found) == 3
    assert {match["path"] for one in found for match in one["matches"]} == {
        "/databases/notes/notes.db"
    }
    sizes = [len(content) for mode, _, content in tree_of(theirs).values() if mode]
    assert judge.json("stats", "latest")["total_size"] == sum(sizes)


def test_restic_sees_between_two_backups_only_what_changed(system: System, judge: Restic) -> None:
    """Trees of what did not change are the same blobs: metadata is stable."""
    first, *_, last = judge.json("snapshots")
    changed = [
        line
        for line in judge("diff", first["id"], last["id"]).splitlines()
        if line[:1] in "+-M" and line[1:2] == " "
    ]
    assert [line.split()[1] for line in changed] == ["/databases/notes/notes.db", "/manifest.json"]


async def test_what_restic_forgets_and_prunes_takes_nothing_from_the_rest(
    system: System, judge: Restic
) -> None:
    judge("forget", "--group-by", "", "--keep-last", "1", "--prune", "--max-unused", "0")
    await assert_intact(system, 1)
    assert "no errors were found" in judge("check", "--read-data")


async def test_an_engine_that_is_open_while_restic_prunes_goes_on(
    system: System, judge: Restic
) -> None:
    """What it keeps in memory is the index of before; packs have been rewritten since."""
    async with system.engine() as engine:
        oldest = (await engine.backups()).entries[-1]
        assert (await engine.verify(oldest.backup_id, Level.DATA)).ok
        judge("forget", "--group-by", "", "--keep-last", "1", "--prune", "--max-unused", "0")
        assert len((await engine.backups()).entries) == 1
        assert (await engine.verify("latest", Level.RESTORE)).findings == ()
        report = await engine.create(CreateRequest())
        assert report.status == "completed"
        assert (await engine.verify(report.backup_id, Level.RESTORE)).findings == ()
    assert "no errors were found" in judge("check", "--read-data")


async def test_backups_that_restic_tags_are_still_ours(system: System, judge: Restic) -> None:
    async with system.engine() as engine:
        before = [(e.backup_id, e.backup_type) for e in (await engine.backups()).entries]
        judge("tag", "--add", "before-the-migration")
        after = (await engine.backups()).entries
        assert [(entry.backup_id, entry.backup_type) for entry in after] == before
    await assert_intact(system, 3)


async def test_backups_that_restic_copies_elsewhere_are_still_ours(
    system: System, restic: Restic, tmp_path: Path
) -> None:
    (tmp_path / "password").write_text(system.password)
    restic = restic.at(tmp_path / "elsewhere", system.password)
    restic("init")
    restic("copy", "--from-repo", system.repository, "--from-password-file", tmp_path / "password")
    location = structs.replace(system.settings.repository, location=str(restic.location))
    settings = structs.replace(system.settings, repository=location)
    await assert_intact(Copy(system.root, settings), 3)


async def test_an_index_that_restic_rebuilds_is_as_good(system: System, judge: Restic) -> None:
    lost, *_ = (system.repository / "index").iterdir()
    lost.unlink()
    judge("rebuild-index")
    await assert_intact(system, 3)


async def test_what_the_repository_lost_is_stored_again_by_a_server_that_had_seen_it(
    tmp_path: Path, restic: Restic
) -> None:
    system = await make_system(tmp_path / "system")
    judge = restic.at(system.repository, system.password)
    await settled(system)
    async with system.engine() as engine:
        await engine.create(CreateRequest())
        for _ in range(2):
            report = await engine.create(CreateRequest(BackupType.INCREMENTAL, ("notes",)))
            assert report.outcomes[0].outcome == "unchanged"
        largest = max((system.repository / "data").rglob("*"), key=lambda pack: pack.stat().st_size)
        largest.unlink()
        judge("rebuild-index")
        report = await engine.create(CreateRequest(BackupType.INCREMENTAL, ("notes",)))
        assert report.outcomes[0].outcome == "stored"
        assert report.verification == "passed"
        assert (await engine.verify(report.backup_id, Level.RESTORE)).ok


async def test_restic_clears_up_after_a_backup_of_ours_that_was_killed(
    tmp_path: Path, restic: Restic
) -> None:
    system = await make_system(tmp_path / "system")
    judge = restic.at(system.repository, system.password)
    with subprocess.Popen(
        [sys.executable, "-m", "tests.crash.wait_in_backup", str(system.root), "1"],
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.kill()
    assert f"PID {process.pid} on {socket.gethostname()}" in judge.refuses("check")
    judge("unlock")
    assert "no errors were found" in judge("check", "--read-data")
    assert judge.json("snapshots") == []
    async with system.engine() as engine:
        await engine.create(CreateRequest(verify=False))
    await assert_intact(system, 1)


async def test_restic_gives_back_one_component(
    system: System, judge: Restic, tmp_path: Path
) -> None:
    judge("restore", "latest", "--target", tmp_path / "theirs", "--include", "/databases")
    async with system.engine() as engine:
        request = RestoreRequest(components=(Component.DATABASES,), target="scratch")
        report = await engine.restore((await engine.plan_restore(request)).plan_id)
    ours = tree_of(system.settings.scratch / report.restore_id)
    assert tree_of(tmp_path / "theirs") == ours
