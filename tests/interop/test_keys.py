"""Keys and the recovery kit, with the real restic beside us."""

import os
import subprocess
from pathlib import Path

import pytest

from mcp_backup import keyring
from mcp_backup.errors import RepositoryError, SettingsInvalid, UsageError, WrongPassword
from mcp_backup.kit_record import kit_diagnosis
from mcp_backup.place import Place
from mcp_backup.recovery_kit import compose, make_kit, prove, read_kit
from mcp_backup.recovery_page import html_page, text_page
from mcp_backup.secret import Secret
from mcp_backup.verbs import BackupType, CreateRequest
from tests.interop.conftest import Restic
from tests.system import System, bodies, make_system

HERE = Place("host", "somebody", os.environ)
CONFIG = CreateRequest(BackupType.CONFIG, verify=False)


@pytest.fixture
async def system(tmp_path: Path, restic: Restic) -> System:
    return await make_system(tmp_path / "live", rows=20)


async def test_restic_lists_and_opens_the_same_keys(
    system: System, restic: Restic, tmp_path: Path
) -> None:
    theirs = restic.at(system.repository, system.password)
    (tmp_path / "password").write_text("made by restic\n")
    theirs("key", "add", "--new-password-file", tmp_path / "password")
    async with system.engine() as engine:
        added = await keyring.add(engine, Secret("added by us"), HERE, generated=True)
        assert added.keys == 3
        ours = await keyring.list_keys(engine)
        listed = theirs.json("key", "list")
        assert {each["id"]: each["current"] for each in listed} == {
            key.key_id[:8]: key.current for key in ours
        }
        assert {each["userName"] for each in listed} >= {"somebody"}
        theirs.with_password("added by us")("cat", "config")
        removed = await keyring.remove(engine, added.key_id[:8])
        assert (removed.key_id, removed.keys) == (added.key_id, 2)
        assert len(theirs.json("key", "list")) == 2
        theirs.with_password("added by us").refuses("cat", "config")
        assert [run.verb for run in await engine.history.runs()] == ["key-remove", "key-add"]


async def test_the_key_in_use_and_the_only_key_are_not_removed(system: System) -> None:
    async with system.engine() as engine:
        (only,) = await keyring.list_keys(engine)
        with pytest.raises(UsageError, match="the only one"):
            await keyring.remove(engine, only.key_id)
        added = await keyring.add(engine, Secret("another"), HERE, generated=True)
        with pytest.raises(UsageError, match="the one in use"):
            await keyring.remove(engine, only.key_id)
        with pytest.raises(UsageError, match="opens the repository already"):
            await keyring.add(engine, Secret("another"), HERE, generated=True)
        for wanted in ("", added.key_id[:7], "0" * 64, "../config"):
            with pytest.raises(UsageError, match="names none of the 2 keys"):
                await keyring.remove(engine, wanted)
        assert len(await keyring.list_keys(engine)) == 2


async def test_a_damaged_key_file_is_listed_and_can_be_removed(system: System) -> None:
    async with system.engine() as engine:
        added = await keyring.add(engine, Secret("another"), HERE, generated=True)
        file = system.repository / "keys" / added.key_id
        file.chmod(0o600)
        file.write_bytes(b"{}")
        good, damaged = await keyring.list_keys(engine)
        assert (good.current, bool(good.damaged)) == (True, False)
        assert "do not hash to its name" in damaged.damaged
        await keyring.remove(engine, added.key_id)
        assert [key.current for key in await keyring.list_keys(engine)] == [True]


async def test_the_commands_on_the_page_alone_restore_everything(
    system: System, restic: Restic, tmp_path: Path
) -> None:
    async with system.engine() as engine:
        await engine.create(CreateRequest())
        page = text_page(await compose(engine, HERE))
    commands = [line for line in page.splitlines() if line.startswith("  ")]
    bare = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    script = "set -e\n" + "\n".join(commands)
    subprocess.run(["sh", "-c", script], cwd=tmp_path, env=bare, check=True, capture_output=True)
    restored = tmp_path / "restored"
    assert bodies(restored / "databases/notes/notes.db") == bodies(system.notes)
    assert (restored / "config/project/.env").read_text() == (system.project / ".env").read_text()
    for promised in ("databases/notes  from ", "config/project  from ", "manifest.json"):
        assert promised in page


async def test_a_kit_alone_opens_the_newest_backup(system: System, tmp_path: Path) -> None:
    async with system.engine() as engine:
        await engine.create(CONFIG)
        newest = await engine.create(CONFIG)
        page = tmp_path / "kit"
        page.write_text(html_page(await compose(engine, HERE)))
    (system.root / "backups.key").unlink()
    proof = await prove(read_kit(page), Place("elsewhere", "nobody", {"PATH": os.environ["PATH"]}))
    assert (proof.backup_id, proof.snapshot_id) == (newest.backup_id, newest.snapshot_id)
    assert proof.sources == ("project",)
    assert proof.restic.startswith("restic 0.")
    assert not any((system.repository / "locks").iterdir())
    without = await prove(read_kit(page), Place("elsewhere", "nobody", {}))
    assert (without.restic, without.snapshot_id) == ("", newest.snapshot_id)


async def test_a_kit_that_opens_nothing_is_found_out(system: System, tmp_path: Path) -> None:
    async with system.engine() as engine:
        await engine.create(CONFIG)
        kit = await compose(engine, HERE)
        (system.root / "backups.key").rename(tmp_path / "old")
        added = await keyring.add(engine, Secret("the new one"), HERE, generated=True)
    (system.root / "backups.key").write_text("the new one\n")
    async with system.engine() as engine:
        await keyring.remove(engine, kit.key_id)
        assert [key.key_id for key in await keyring.list_keys(engine)] == [added.key_id]
    with pytest.raises(RepositoryError, match="the kit's password opens no key"):
        await prove(kit, HERE)
    other = await make_system(tmp_path / "other", rows=1)
    async with other.engine() as engine:
        theirs = await compose(engine, HERE)
    system.repository.rename(tmp_path / "away")
    other.repository.rename(system.repository)
    with pytest.raises(RepositoryError, match=f"the kit is for {kit.repository_id[:8]}"):
        await prove(
            type(kit)(
                kit.location, kit.repository_id, theirs.password, kit.key_id, kit.made, "host"
            ),
            HERE,
        )


async def test_doctor_asks_for_a_kit_until_there_is_one_that_opens(
    system: System, tmp_path: Path
) -> None:
    async def told() -> tuple[str, str]:
        async with system.engine() as engine:
            diagnosis = await kit_diagnosis(engine)
        return diagnosis.level, diagnosis.message

    assert await told() == ("warning", "none was made on this machine, by what it remembers")
    async with system.engine() as engine:
        made = await make_kit(engine, tmp_path / "kit.txt", HERE)
        assert (await engine.history.runs())[0].verb == "recovery-kit"
        (listed,) = await keyring.list_keys(engine)
        assert listed.kit
    assert (await told())[0] == "ok"
    async with system.engine() as engine:
        await keyring.add(engine, Secret("the new one"), HERE, generated=True)
    (system.root / "backups.key").write_text("the new one\n")
    async with system.engine() as engine:
        assert "make a new one" in (await keyring.remove(engine, made.key_id)).advice
    level, message = await told()
    assert (level, "a key that was removed" in message) == ("warning", True)


async def test_a_kit_is_for_its_owners_eyes_and_never_replaces_a_file(
    system: System, tmp_path: Path
) -> None:
    async with system.engine() as engine:
        for name, mask in (("kit.txt", 0), ("kit.html", 0o777)):
            before = os.umask(mask)
            try:
                await make_kit(engine, tmp_path / name, HERE)
            finally:
                os.umask(before)
            assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
            assert read_kit(tmp_path / name).password == system.password
        assert (tmp_path / "kit.html").read_text().startswith("<!DOCTYPE html>")
        with pytest.raises(UsageError, match="exists already"):
            await make_kit(engine, tmp_path / "kit.txt", HERE)
        record = next(engine.state.glob("recovery-kit.json")).read_text()
        assert system.password not in record


async def test_a_kit_that_paper_cannot_carry_or_that_opens_nothing_is_not_made(
    system: System, tmp_path: Path
) -> None:
    async with system.engine() as engine:
        await keyring.add(engine, Secret("two  blanks"), HERE, generated=True)
        with pytest.raises(UsageError, match="paper cannot carry"):
            await compose(engine, with_password("two  blanks"))
        with pytest.raises(WrongPassword):
            await compose(engine, with_password("no key's"))
        (system.root / "backups.key").unlink()
        with pytest.raises(SettingsInvalid):
            await compose(engine, HERE)


def with_password(password: str) -> Place:
    return Place("host", "somebody", {"MCP_BACKUP_PASSWORD": password})
