"""Compression bombs: some kilobytes that promise, and hold, gigabytes. The process may not grow."""

import json
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import anyio
import pytest
from msgspec.structs import replace

from mcp_backup.catalog import Backup
from mcp_backup.format.blob import MAX_BLOB, BlobKind
from mcp_backup.format.crypto import Sealer
from mcp_backup.format.ids import BlobId, PackId, digest
from mcp_backup.format.index import PackListing
from mcp_backup.format.pack import PackEntry, encode_header, encode_trailer
from mcp_backup.format.snapshot import encode_snapshot
from mcp_backup.format.tree import encode_tree, file_node
from mcp_backup.format.zstd import stream_compressor
from mcp_backup.manifest import PATH as MANIFEST
from mcp_backup.repository.objects import object_name, pack_name
from mcp_backup.repository.repository import Repository
from mcp_backup.verbs import CreateRequest
from tests.hostile.forging import save
from tests.repository.packing import MTIME, save_index
from tests.system import System, make_system, settings_of

GROWTH = 1500 << 20  # of address space: a tree of 512 MiB, what threads reserve, and no bomb
BOMB = 3 << 30
MEBIBYTE = 1 << 20


def bomb() -> bytes:
    """One zstd frame of three gigabytes of spaces, which JSON may begin with."""
    compressor = stream_compressor(1)
    piece = b" " * MEBIBYTE
    return b"".join(compressor.compress(piece) for _ in range(BOMB // MEBIBYTE)) + (
        compressor.flush()
    )


async def planted(repository: Repository, kind: BlobKind, frame: bytes) -> BlobId:
    """Store a frame as a blob, with an index that promises as much as an index may."""
    sealer, identity = Sealer(repository.key), BlobId(digest(frame))
    sealed = sealer.seal(frame)
    entry = PackEntry(kind, identity, 0, len(sealed), MAX_BLOB[kind])
    data = sealed + encode_trailer(sealer.seal(encode_header([entry])))
    listing = PackListing(PackId(digest(data)), (entry,))
    await repository.store.put(pack_name(listing.pack), data)
    await save_index(repository, listing)
    return identity


async def backup_with(repository: Repository, backup: Backup, tree: BlobId) -> None:
    document = encode_snapshot(replace(backup.snapshot, tree=tree))
    await repository.save_unpacked("snapshots", document)


async def made(root: Path) -> None:
    """A repository of one genuine backup, and every bomb."""
    system = await make_system(root, rows=3)
    frame = bomb()
    assert len(frame) < MEBIBYTE
    async with system.engine() as engine:
        await engine.create(CreateRequest(verify=False))
        (backup,) = await engine.catalog.backups()
        repository = engine.repository
        await backup_with(repository, backup, await planted(repository, BlobKind.TREE, frame))
        content = (await planted(repository, BlobKind.DATA, frame),)
        node = file_node(MANIFEST, content, BOMB, mode=0o600, mtime_ns=MTIME)
        await backup_with(repository, backup, await save(repository, encode_tree([node])))
        words = b" " * (8 * MEBIBYTE)
        node = file_node(
            MANIFEST, (BlobId(digest(words)),) * 500, 4 << 30, mode=0o600, mtime_ns=MTIME
        )
        tree = await save(repository, encode_tree([node]), data=(words,))
        await backup_with(repository, backup, tree)
        sealed = Sealer(repository.key).seal(b"\x02" + frame)
        await repository.store.put(object_name("snapshots", digest(sealed)), sealed)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("bombs") / "live"
    anyio.run(made, found)
    return found


def reader(root: str) -> None:
    """List, verify and check within `GROWTH`; print what was told of each, as JSON."""
    from mcp_backup.errors import BackupError

    async def told() -> list[str]:
        found = []
        async with System(Path(root), settings_of(Path(root))).engine() as engine:
            size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (size + GROWTH, size + GROWTH))
            page = await engine.backups(limit=50)
            found.append(f"listed {len(page.entries)}")
            for entry in page.entries:
                try:
                    report = await engine.verify(entry.snapshot_id)
                    found.append(f"verified {len(report.findings)}")
                except BackupError as error:
                    found.append(f"{error.code}: {error}")
            checked = await engine.check()
            found += [f"check: {each.code}" for each in checked.findings]
        return found

    sys.stdout.write(json.dumps(anyio.run(told)))


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_bombs_are_refused_within_a_bounded_memory_and_the_rest_is_read(root: Path) -> None:
    code = f"from tests.hostile.test_bombs import reader; reader({str(root)!r})"
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert "MemoryError" not in ran.stderr
    told: Sequence[str] = json.loads(ran.stdout)
    assert told[0] == "listed 4"
    assert "verified 0" in told
    assert sum("hold more than the" in each for each in told) >= 2, told
    assert any("has more than" in each for each in told), told
