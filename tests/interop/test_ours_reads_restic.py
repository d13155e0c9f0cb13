"""Backups that restic made, in our repositories and in its own, as a person meets them here."""

import os
from hashlib import sha256
from pathlib import Path

import pytest
from msgspec import structs

from mcp_backup.arena import SLOT_SIZE
from mcp_backup.errors import IntegrityError, UsageError
from mcp_backup.format.blob import BlobKind
from mcp_backup.format.ids import BlobId
from mcp_backup.opening import initialise
from mcp_backup.verbs import BackupEntry, CreateRequest, Level
from mcp_backup.verbs_restores import RestoreRequest
from tests.interop.conftest import Restic
from tests.system import System, make_system, settings_of

LARGEST = 8 << 20  # of the chunks that restic makes


def make_files(live: Path) -> Path:
    """Small ones, links, and large ones: noise for restic to cut, and what it cannot cut."""
    (live / "sub" / "deeper").mkdir(parents=True)
    (live / "empty").touch()
    (live / 'quote "and" space é').write_text("text\n" * 50)
    (live / os.fsdecode(b"not utf-8 \xff")).write_text("x")
    (live / "sub" / "noise").write_bytes(os.urandom(40 << 20))
    (live / "sub" / "even").write_bytes(b"\1" * (LARGEST * 2 + 5))
    (live / "sub" / "plain").write_bytes(b"\2" * LARGEST)
    (live / "sub" / "deeper" / "run.sh").write_text("#!/bin/sh\n")
    (live / "sub" / "deeper" / "run.sh").chmod(0o750)
    (live / "link").symlink_to("sub/deeper/run.sh")
    return live


def assert_same(there: Path, live: Path) -> None:
    """Every name, byte, mode, link and time."""
    names = sorted(path.relative_to(live) for path in live.rglob("*"))
    assert sorted(path.relative_to(there) for path in there.rglob("*")) == names
    for name in names:
        ours, theirs = there / name, live / name
        assert ours.is_symlink() == theirs.is_symlink()
        if ours.is_symlink():
            assert os.readlink(ours) == os.readlink(theirs)
            continue
        assert ours.stat().st_mode == theirs.stat().st_mode, name
        assert ours.stat().st_mtime_ns == theirs.stat().st_mtime_ns, name
        if ours.is_file():
            assert ours.read_bytes() == theirs.read_bytes(), name


@pytest.fixture
def theirs(tmp_path: Path, restic: Restic) -> System:
    """A system over a repository that restic made, with restic's own key and password."""
    settings = settings_of(tmp_path)
    (tmp_path / "backups.key").write_text(restic.environment["RESTIC_PASSWORD"] + "\n")
    location = structs.replace(settings.repository, location=str(restic.location))
    restic("init")
    return System(tmp_path, structs.replace(settings, repository=location))


@pytest.fixture
async def shared(tmp_path: Path) -> System:
    """A system over a repository that we made, whose key costs restic no half second each time."""
    settings = settings_of(tmp_path)
    await initialise(settings)
    return System(tmp_path, settings)


@pytest.fixture
def guest(restic: Restic, shared: System) -> Restic:
    return restic.at(shared.repository, shared.password)


async def scratch_of(system: System, backup_id: str) -> Path:
    """Restore a whole snapshot of restic's to scratch."""
    async with system.engine() as engine:
        plan = await engine.plan_restore(RestoreRequest(backup_id, target="scratch"))
        assert plan.approval == "none"
        assert any("no evidence" in warning for warning in plan.warnings)
        report = await engine.restore(plan.plan_id)
    (target,) = report.targets
    return Path(target.path)


async def listed(system: System) -> list[BackupEntry]:
    async with system.engine() as engine:
        return list((await engine.backups()).entries)


async def test_what_restic_backed_up_into_its_repository_comes_back_through_ours(
    theirs: System, restic: Restic, tmp_path: Path
) -> None:
    live = make_files(tmp_path / "live")
    restic("backup", live / "sub" / "plain", "--compression", "off")
    restic("forget", "latest")  # what it stored stays, and is not stored again
    restic("backup", live)
    (entry,) = await listed(theirs)
    (snapshot,) = restic.json("snapshots")
    assert (entry.ours, entry.backup_type, entry.status) == (False, "other", "other")
    assert (entry.snapshot_id, entry.backup_id) == (snapshot["id"], snapshot["short_id"])
    place = await scratch_of(theirs, entry.backup_id)
    assert_same(place / live.relative_to("/"), live)
    async with theirs.engine() as engine:
        assert (await engine.check(Level.DATA)).findings == ()
        index = await engine.repository.load_index()
        entries = [e for pack in index.packs() for e in index.entries(pack)]
    assert max(entry.length for entry in entries) > SLOT_SIZE + (64 << 10)  # more than a slot takes
    assert max(entry.plain_length for entry in entries) == LARGEST


async def test_snapshots_of_both_live_in_one_repository(tmp_path: Path, restic: Restic) -> None:
    system = await make_system(tmp_path / "system", rows=2000)
    restic = restic.at(system.repository, system.password)
    async with system.engine() as engine:
        first = await engine.create(CreateRequest())
        restic("backup", system.project)
        second = await engine.create(CreateRequest())
    entries = await listed(system)
    assert [entry.ours for entry in entries] == [True, False, True]
    assert "no errors were found" in restic("check", "--read-data")
    restic("forget", first.snapshot_id, "--prune", "--max-unused", "0")
    async with system.engine() as engine:
        assert (await engine.verify("latest", Level.RESTORE)).findings == ()
        assert (await engine.check(Level.DATA)).findings == ()
        assert (await engine.backups()).entries[0].backup_id == second.backup_id
    place = await scratch_of(system, entries[1].backup_id)
    assert_same(place / system.project.relative_to("/"), system.project)


async def test_latest_is_the_latest_of_ours(tmp_path: Path, restic: Restic) -> None:
    system = await make_system(tmp_path / "system", rows=10)
    async with system.engine() as engine:
        ours = await engine.create(CreateRequest(verify=False))
        restic.at(system.repository, system.password)("backup", system.project)
        assert (await engine.plan_restore(RestoreRequest())).backup_id == ours.backup_id
        assert (await engine.verify("latest")).backup_id == ours.backup_id


async def test_a_snapshot_of_restics_is_refused_for_live_data_and_says_what_can_be_done(
    shared: System, guest: Restic, tmp_path: Path
) -> None:
    (tmp_path / "live").write_text("live\n")
    guest("backup", tmp_path / "live")
    (entry,) = await listed(shared)
    async with shared.engine() as engine:
        with pytest.raises(UsageError, match=f"{entry.backup_id} was not made by mcp-backup") as no:
            await engine.plan_restore(RestoreRequest(entry.backup_id))
        assert "target=scratch" in no.value.hint
        with pytest.raises(UsageError, match=f"{entry.backup_id} was not made by mcp-backup"):
            await engine.plan_restore(
                RestoreRequest(entry.backup_id, databases=("notes",), target="scratch")
            )
    assert (tmp_path / "live").read_text() == "live\n"


async def test_a_snapshot_of_restics_cannot_be_verified_and_says_why(
    shared: System, guest: Restic, tmp_path: Path
) -> None:
    (tmp_path / "live").write_text("live\n")
    guest("backup", tmp_path / "live")
    (entry,) = await listed(shared)
    async with shared.engine() as engine:
        with pytest.raises(
            UsageError, match="made by another program, and holds no evidence"
        ) as no:
            await engine.verify(entry.backup_id)
        assert "check --level data" in no.value.hint


async def test_our_backups_go_into_a_repository_that_restic_made(
    theirs: System, restic: Restic
) -> None:
    system = await make_system(theirs.root / "live", rows=2000)
    settings = structs.replace(system.settings, repository=theirs.settings.repository)
    async with System(system.root, settings).engine() as engine:
        report = await engine.create(CreateRequest())
        assert (report.status, report.verification) == ("completed", "passed")
    assert "no errors were found" in restic("check", "--read-data")


async def test_tags_that_look_like_ours_do_not_make_a_snapshot_ours_to_put_back(
    shared: System, guest: Restic, tmp_path: Path
) -> None:
    """A snapshot without manifest is told as damaged, not taken for a backup."""
    (tmp_path / "live").write_text("live\n")
    guest("backup", tmp_path / "live", "--tag", "mcp-backup,backup_20261122_120000,full")
    async with shared.engine() as engine:
        with pytest.raises(IntegrityError, match="backup_20261122_120000 has no manifest"):
            await engine.plan_restore(RestoreRequest("backup_20261122_120000"))


async def test_data_blobs_of_restic_and_of_ours_are_told_apart_from_trees(
    shared: System, guest: Restic, tmp_path: Path
) -> None:
    """A file that holds the very bytes of a tree is a data blob of the same id."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_text("x")
    guest("backup", tmp_path / "a")
    (snapshot,) = guest.json("snapshots")
    tree = guest.output("cat", "blob", snapshot["tree"])
    (tmp_path / "a" / "file").write_bytes(tree)
    guest("backup", tmp_path / "a")
    async with shared.engine() as engine:
        index = await engine.repository.load_index()
        identity = BlobId(sha256(tree).digest())
        assert (BlobKind.DATA, identity) in index
        assert (BlobKind.TREE, identity) in index
        latest = (await engine.backups()).entries[0].backup_id
    place = await scratch_of(shared, latest)
    assert (place / (tmp_path / "a" / "file").relative_to("/")).read_bytes() == tree
