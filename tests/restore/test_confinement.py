"""Somebody swaps links in while a restore runs: nothing outside the originals ever changes.

The attacker may do what whoever can write to the directories of live data can do: replace a
directory, a database or a side file by a link to something outside. The restore may fail or not,
but what is outside stays as it is to the byte, inode and time, also through recovery.
"""

import os
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import anyio
import pytest
from msgspec import structs

from mcp_backup.errors import BackupError, RestoreError
from mcp_backup.settings_sections import DatabaseSettings
from mcp_backup.sources.source import Component
from mcp_backup.verbs_restores import RestoreRequest
from tests.restore.attacks import Attack, attacked, hard_linked, linked, outside, restored, tree
from tests.restore.bench import bench, restorer_on
from tests.system import System, bodies, change, settings_of

NOTES = RestoreRequest(databases=("notes",))
CONFIG = RestoreRequest(components=(Component.CONFIG,))
SCRATCH = RestoreRequest(target="scratch")
KEEP_FILES, PLACE_FILES = "keep config/project", "exchange config/project"
KEEP_NOTES, PLACE_NOTES = "keep databases/notes", "exchange databases/notes"


def live(system: System) -> Path:
    """The directory of the database, apart from everything of ours."""
    return system.root / "live"


def notes(system: System) -> Path:
    return live(system) / "notes.db"


def wal(system: System) -> Path:
    return live(system) / "notes.db-wal"


def journal(system: System) -> Path:
    return live(system) / "notes.db-journal"


@pytest.fixture
def scene(system: System) -> System:
    """A system whose data has changed since its backup, and a tree of the same names outside."""
    live(system).mkdir()
    for path in system.root.glob("notes.db*"):
        path.rename(live(system) / path.name)
    database = DatabaseSettings(name="notes", path=notes(system), kind="sqlite")
    settings = structs.replace(settings_of(system.root), databases=(database,))
    moved = System(system.root, settings)
    change(notes(moved))
    (moved.project / ".env").write_text("TOKEN=newer\n")
    (moved.project / "settings" / "server.yaml").write_text("port: 0\n")
    here = outside(moved)
    (here / "settings").mkdir(parents=True)
    for name in (".env", "settings/server.yaml", "other"):
        (here / name).write_text("of somebody else\n")
    (here / "notes.db").write_bytes(notes(moved).read_bytes())
    return moved


ON_FILES: Mapping[str, Attack] = {
    "the root is a link": linked(lambda system: system.project, ""),
    "a directory is a link": linked(lambda system: system.project / "settings", "settings"),
    "a file is a link": linked(lambda system: system.project / ".env", ".env"),
    "a file is a hard link": hard_linked(lambda system: system.project / ".env", ".env"),
}
ON_NOTES: Mapping[str, Attack] = {
    "its directory is a link": linked(live, ""),
    "it is a link": linked(notes, "notes.db"),
    "it is a hard link": hard_linked(notes, "notes.db"),
    "its WAL is a hard link": hard_linked(wal, "other"),
    "its journal is a hard link": hard_linked(journal, "other"),
}


@pytest.mark.parametrize(
    ("attack", "before"),
    [
        *((attack, PLACE_FILES) for attack in ON_FILES),
        ("the root is a link", "planned"),
        ("the root is a link", KEEP_FILES),
    ],
)
async def test_a_link_swapped_in_leads_no_file_outside(
    scene: System, attack: str, before: str
) -> None:
    await attacked(scene, CONFIG, ON_FILES[attack], before)


@pytest.mark.parametrize(
    ("attack", "before"),
    [
        *((attack, PLACE_NOTES) for attack in ON_NOTES),
        ("its directory is a link", KEEP_NOTES),
        ("it is a hard link", KEEP_NOTES),
        ("its WAL is a hard link", "planned"),
    ],
)
async def test_a_link_swapped_in_leads_no_database_outside(
    scene: System, attack: str, before: str
) -> None:
    await attacked(scene, NOTES, ON_NOTES[attack], before)


async def test_a_database_that_is_to_be_made_is_not_made_elsewhere(scene: System) -> None:
    for path in live(scene).iterdir():
        path.unlink()
    (outside(scene) / "notes.db").unlink()
    await attacked(scene, NOTES, ON_NOTES["its directory is a link"], PLACE_NOTES)


@pytest.mark.parametrize("attack", ["its directory is a link", "it is a hard link"])
async def test_an_undo_follows_no_link_either(scene: System, attack: str) -> None:
    async with bench(scene) as on:
        report = await on.restore(NOTES)
    ON_NOTES[attack](scene)
    before = tree(outside(scene))
    with pytest.raises(RestoreError):
        await restorer_on(scene).undo(report.undo_id, consent=True)
    assert tree(outside(scene)) == before


async def test_a_database_with_a_second_name_is_refused_and_says_so(scene: System) -> None:
    """It would change under both, and the other may be somebody's copy."""
    os.link(notes(scene), live(scene) / "copy.db")
    before = tree(live(scene))
    async with bench(scene) as on:
        with pytest.raises(RestoreError, match=r"notes\.db has 2 names \(hard links\)"):
            await on.restore(NOTES)
    assert tree(live(scene)) == before


async def test_a_link_on_the_way_that_was_there_at_the_plan_is_followed(scene: System) -> None:
    """The operator may keep a database wherever a link leads to."""
    live(scene).rename(scene.root / "elsewhere")
    live(scene).symlink_to(scene.root / "elsewhere")
    async with bench(scene) as on:
        await on.restore(NOTES)
    assert "note number 0" in bodies(notes(scene))[0]
    assert live(scene).is_symlink()


@pytest.mark.parametrize("at", ["scratch", "staging"])
async def test_what_is_staged_does_not_follow_a_link(scene: System, at: str) -> None:
    request = SCRATCH if at == "scratch" else CONFIG

    def attack(system: System) -> None:
        if at == "scratch":
            system.root.joinpath("scratch").symlink_to(outside(system))
        else:
            (restore,) = (system.root / "restorer" / "restores").iterdir()
            (restore / "staged").symlink_to(outside(system))

    before = "planned" if at == "scratch" else "stage config/project"
    await attacked(scene, request, attack, before)


async def test_a_racer_that_swaps_directories_all_the_time_leads_nothing_outside(
    scene: System,
) -> None:
    """A second of restores, while a directory of the project is now itself and now a link."""
    settings, away = scene.project / "settings", scene.project / "away"
    before, done, swaps = tree(outside(scene)), threading.Event(), 0

    def race() -> None:
        nonlocal swaps
        while not done.is_set():
            with suppress(OSError):
                settings.rename(away)
                settings.symlink_to(outside(scene) / "settings")
                time.sleep(0.0005)
                settings.unlink()
                away.rename(settings)
                (settings / "server.yaml").write_text("port: 0\n")
                swaps += 1
            time.sleep(0.0005)

    racer = threading.Thread(target=race)
    racer.start()
    try:
        until = anyio.current_time() + 1.5
        while anyio.current_time() < until:
            with suppress(BackupError):
                await restored(scene, CONFIG, lambda _: None)
    finally:
        done.set()
        racer.join()
    assert swaps > 10
    assert tree(outside(scene)) == before
