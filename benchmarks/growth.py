"""How cost grows: with the size of the database, and with the number of snapshots."""

import asyncio
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from statistics import median

from msgspec import structs

from benchmarks.life import day, held_open
from benchmarks.processes import tree_size
from benchmarks.programs import Ours
from benchmarks.server_session import server_session
from mcp_backup.format.blob import BlobKind
from mcp_backup.opening import opened
from mcp_backup.settings import load_settings

SNAPSHOTS = (10, 100, 1_000, 10_000)
_CALLS = 5  # short calls are several, since each is short and so noisy
_CHUNK_LIST = 35  # bytes stored for each chunk, in every tree that lists the file
_CHUNK_MOST = 1 << 18  # chunks of an image, beyond which they are made larger (format/chunking.py)


@dataclass(frozen=True, slots=True)
class SizePoint:
    """One database size: bytes, seconds, and the bytes of what grows with it."""

    database: int
    first: float
    changed: float
    repository: int
    added: int  # by a day's edits
    chunk_list: int  # of that, the tree that lists the file's chunks
    index: int  # of the first backup
    memory: int
    measured: bool = True


@dataclass(frozen=True, slots=True)
class CountPoint:
    """One number of snapshots: seconds."""

    snapshots: int
    terminal: float
    page: float
    unchanged: float


@dataclass(slots=True)
class Growth:
    """The measurements, each on its own repositories."""

    work: Path
    say: Callable[[str], None]
    sizes: list[SizePoint] = field(default_factory=list)
    counts: list[CountPoint] = field(default_factory=list)

    def measure_sizes(self, databases: Sequence[Path]) -> None:
        """Back up each database, edit it for a day, and back it up again."""
        for database in databases:
            self.say(f"growth: {database.stat().st_size / 1e6:,.0f} MB")
            memory = self._life(database, watch=True).memory
            self.sizes.append(replace(self._life(database, watch=False), memory=memory))

    def measure_counts(self, counts: Sequence[int] = SNAPSHOTS) -> None:
        """List a repository that gets more and more snapshots, and add one that is unchanged."""
        ours = small(self.work / "counting")
        there = 1
        for count in counts:
            self.say(f"growth: {count:,} snapshots")
            asyncio.run(add_snapshots(ours, there, count))
            there = count
            self.counts.append(_counted(ours, count))
        shutil.rmtree(ours.home.parent)

    def _life(self, database: Path, *, watch: bool) -> SizePoint:
        directory = fresh(self.work / "growing")
        live = directory / "live"
        live.mkdir()
        shutil.copyfile(database, live / "memory.db")
        with held_open(live / "memory.db"):
            ours = Ours(directory / "ours", live)
            ours.create_repository()
            ours.watch = watch
            first = ours.first()
            repository = ours.repository_size()
            index = tree_size(ours.home / "repository" / "index")
            day(live / "memory.db", 1)
            changed = ours.changed()
            chunk_list = asyncio.run(_chunk_list(ours))
        added = ours.repository_size() - repository
        shutil.rmtree(directory)
        return SizePoint(
            database=database.stat().st_size,
            first=first.seconds,
            changed=changed.seconds,
            repository=repository,
            added=added,
            chunk_list=chunk_list,
            index=index,
            memory=first.peak_memory,
        )


def extrapolated(points: Sequence[SizePoint], size: int) -> SizePoint:
    """Return what a database of `size` bytes would cost, by the two largest that were measured.

    The model: time is a constant and a share of the size; the repository, its index and the chunk
    list are shares of the size, until chunks grow so that there are at most 262,144 of 16 KiB or,
    from 16 GiB on, as many as there are of 64 KiB; a day's edits cost what they did, for each
    chunk that they touch, and the chunk list; memory is what it was, and 160 bytes a chunk.
    """
    small, large = sorted(points, key=lambda point: point.database)[-2:]
    grown = (size - large.database) / (large.database - small.database)
    chunks, before = _chunks(size), _chunks(large.database)
    coarser = (size / chunks) / (large.database / before)
    return SizePoint(
        database=size,
        first=large.first + grown * (large.first - small.first),
        changed=large.changed + grown * (large.changed - small.changed),
        repository=round(large.repository * size / large.database),
        added=round((large.added - large.chunk_list) * coarser + chunks * _CHUNK_LIST),
        chunk_list=chunks * _CHUNK_LIST,
        index=round(large.index * chunks / before),
        memory=large.memory + 160 * (chunks - before),
        measured=False,
    )


def _chunks(size: int) -> int:
    chunk = 16 << 10
    while chunk < 64 << 10 and size > chunk * _CHUNK_MOST:
        chunk *= 2
    return -(-size // chunk)


def small(directory: Path) -> Ours:
    """Set up a repository with one backup of a small database, in a fresh directory."""
    live = fresh(directory) / "live"
    live.mkdir()
    with closing(sqlite3.connect(live / "memory.db")) as connection:
        connection.execute("CREATE TABLE notes (text TEXT)")
        connection.execute("INSERT INTO notes VALUES ('one')")
        connection.commit()
    ours = Ours(directory / "ours", live)
    ours.create_repository()
    ours.first()
    return ours


def fresh(directory: Path) -> Path:
    """Return the directory, empty."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    return directory


async def add_snapshots(ours: Ours, there: int, count: int) -> None:
    """Add snapshots of the newest's tree, an hour apart, until there are `count`.

    `there` were added so far, so that each has a time and a backup id of its own.
    """
    settings = load_settings(ours.config, ours.environment, ours.home)
    async with opened(settings) as engine:
        newest = max((await engine.repository.snapshots()).values(), key=lambda each: each.time)
        for number in range(there, count):
            moment = newest.time - timedelta(hours=number)
            identity = f"backup_{moment:%Y%m%d_%H%M%S}"
            tags = (newest.tags[0], identity, *newest.tags[2:])
            await engine.repository.add_snapshot(structs.replace(newest, time=moment, tags=tags))


async def _chunk_list(ours: Ours) -> int:
    """Return the stored bytes of the tree that lists the database's chunks."""
    settings = load_settings(ours.config, ours.environment, ours.home)
    async with opened(settings) as engine:
        node = await engine.catalog.tree(await engine.catalog.find("latest"), "databases/memory")
        assert node.subtree is not None
        location = (await engine.repository.load_index()).find(BlobKind.TREE, node.subtree)
        assert location is not None
        return location.length


def _counted(ours: Ours, count: int) -> CountPoint:
    terminal = median(ours.run("list").seconds for _ in range(3))
    with server_session(ours.command("serve"), ours.environment, ours.home) as session:
        session.begin()
        session.call("list_backups")
        session.call("create_backup", backup_type="incremental", verify=False)
        page = [session.call("list_backups") for _ in range(_CALLS)]
        unchanged = [
            session.call("create_backup", backup_type="incremental", verify=False)
            for _ in range(_CALLS)
        ]
    return CountPoint(count, terminal, median(page), median(unchanged))
