"""The size of a database's chunks follows what changes in it, where that pays, and then stays."""

import random
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_backup.backup.cutting import cut_of
from mcp_backup.churn import FINEST, PAYS_WITHIN, Changed, changed, judged
from mcp_backup.sources.source import Component
from mcp_backup.status import status
from mcp_backup.verbs import BackupType, CreateRequest, Level
from tests.system import System, make_system

MB = 1_000_000
SCATTERED, TOGETHER = Changed(400, 390, 370), Changed(400, 200, 100)


def test_few_scattered_changes_ask_for_small_chunks() -> None:
    cut = judged(20 * MB, 4096, 16 << 10, [SCATTERED] * 3)
    assert cut.best == 4 << 10
    assert cut.pays
    assert cut.next == cut.best
    assert cut.saves * PAYS_WITHIN > cut.costs == 10 * MB


def test_what_changes_together_is_left_as_it_is() -> None:
    cut = judged(20 * MB, 4096, 16 << 10, [TOGETHER] * 3)
    assert cut.best >= 16 << 10
    assert cut.next == 16 << 10


def test_a_large_database_is_not_stored_anew_for_little() -> None:
    cut = judged(1000 * MB, 4096, 16 << 10, [Changed(1260, 1200, 1130)] * 3)
    assert (cut.best, cut.next) == (8 << 10, 16 << 10)
    assert not cut.pays


@pytest.mark.parametrize("seen", [[], [SCATTERED], [SCATTERED] * 2])
def test_nothing_is_concluded_from_less_than_three_backups(seen: Sequence[Changed]) -> None:
    assert judged(20 * MB, 4096, 16 << 10, seen).next == 16 << 10


def test_chunks_are_never_smaller_than_a_page() -> None:
    assert judged(20 * MB, 8192, 16 << 10, [SCATTERED] * 3).best == 8 << 10
    assert judged(20 * MB, 65536, 65536, [SCATTERED] * 3).best == 65536


def test_what_changed_is_counted_at_three_sizes() -> None:
    before = [bytes([n]) for n in range(10)]
    now = [*before[:2], b"new", *before[3:9], b"new", b"more"]
    assert changed(before, now) == Changed(3, 3, 2)
    assert changed(before, before) == Changed(0, 0, 0)
    assert changed(before, before[:4]) == Changed(0, 0, 0)


@settings(deadline=None, max_examples=60)
@given(
    pages=st.integers(50, 20_000),
    edited=st.integers(1, 2_000),
    hot=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_sizes_do_not_swing(pages: int, edited: int, hot: bool, seed: int) -> None:
    """Under churn that stays the same, a size that was left is not taken again."""
    chance, size, seen, sizes = random.Random(seed), 16 << 10, list[Changed](), [16 << 10]  # noqa: S311 - repeatable
    for _ in range(30):
        within = max(1, pages // 20) if hot else pages
        touched = {chance.randrange(within) for _ in range(edited)}
        counts = (len({page * 4096 // (size * times) for page in touched}) for times in (1, 2, 4))
        seen = [*seen, Changed(*counts)][-7:]
        following = judged(pages * 4096, 4096, size, seen).next
        if following != size:
            assert following not in sizes
            size, seen = following, []
            sizes.append(size)
    assert size >= FINEST


@pytest.fixture
async def system(tmp_path: Path) -> System:
    return await make_system(tmp_path / "system")


def fill(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE memories (id INTEGER PRIMARY KEY, text TEXT)")
        chance = random.Random(1)  # noqa: S311 - repeatable
        db.executemany(
            "INSERT INTO memories (text) VALUES (?)",
            ((chance.randbytes(400).hex(),) for _ in range(8_000)),
        )


def edit(path: Path, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - repeatable
    with closing(sqlite3.connect(path)) as db, db:
        for _ in range(60):
            row, text = chance.randrange(1, 8_001), chance.randbytes(400).hex()
            db.execute("UPDATE memories SET text = ? WHERE id = ?", (text, row))


async def test_a_database_with_scattered_edits_is_cut_finer_once_and_stays_whole(
    system: System,
) -> None:
    fill(system.notes)
    sizes, added, notes = [], [], []
    async with system.engine() as engine:
        for day in range(8):
            edit(system.notes, day)
            report = await engine.create(CreateRequest(BackupType.DATABASE, ("notes",)))
            assert report.verification == "passed"
            backup = await engine.catalog.find(report.backup_id)
            manifest = await engine.catalog.manifest(backup)
            assert manifest is not None
            record = manifest.source("notes", Component.DATABASES)
            assert record is not None
            assert record.evidence is not None
            sizes.append(record.chunk_size)
            added.append(record.added)
            notes.append(" ".join(record.evidence.notes))
            if day == 3:
                assert cut_of(record).pays
                (told, *_) = (await status(engine, around=False)).sources
                assert "of 4 KiB from the next backup on" in told.cut
        assert sizes == [16 << 10] * 4 + [4 << 10] * 4
        assert [day for day, note in enumerate(notes) if "cut into chunks of 4 KiB" in note] == [4]
        assert max(added[5:]) < min(added[1:4]) / 2
        assert (await engine.verify("latest", Level.RESTORE)).ok
        assert (await engine.check(Level.DATA)).findings == ()
        (told, *_) = (await status(engine, around=False)).sources
        assert told.cut == "chunks of 4 KiB"
