"""Files come back exactly, or not at all and with the name of what is wrong."""

import os
import resource
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from mcp_backup.arena import SLOT_SIZE
from mcp_backup.errors import BackupError, IntegrityError, ObjectMissing, StoreFull
from mcp_backup.format.blob import BlobKind
from mcp_backup.format.ids import BlobId, digest
from mcp_backup.progress import Progress
from mcp_backup.repository import reader
from mcp_backup.repository.reader import file_size, prove_blobs, stage_file
from mcp_backup.store.local import LocalStore
from tests.doubles import FOREVER, Fault, FaultyStore, How
from tests.repository.packing import save_index, save_pack
from tests.repository.pooling import PROCESSES, THREAD, Bench, bench, noise, words

CHUNK = 16 << 10
HOW = pytest.mark.parametrize("thread_bytes", [THREAD, PROCESSES], ids=["thread", "processes"])


@dataclass(frozen=True)
class Saved:
    """A file in a repository, and the directory to stage it in."""

    data: bytes
    content: Sequence[BlobId]
    path: Path


def cut(data: bytes) -> list[bytes]:
    return [data[at : at + CHUNK] for at in range(0, len(data), CHUNK)]


async def save(it: Bench, tmp_path: Path, data: bytes) -> Saved:
    slots = [cut(data[at : at + SLOT_SIZE]) for at in range(0, len(data), SLOT_SIZE)]
    content = [blob for part in await it.save_all(slots) for blob in part]
    (tmp_path / "out").touch()
    return Saved(data, content, tmp_path / "out")


@HOW
@pytest.mark.parametrize("own_disk", [True, False], ids=["own disk", "another's"])
async def test_a_large_file_comes_back_on_any_disk(
    thread_bytes: int, *, own_disk: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "_MANY", 8)
    monkeypatch.setattr(reader, "is_own_disk", lambda _: own_disk)
    async with bench(thread_bytes) as it:
        saved = await save(it, tmp_path, noise(2 * SLOT_SIZE + 100))
        assert await stage_file(it.repository, it.pool, saved.content, saved.path) == len(
            saved.data
        )
    assert saved.path.read_bytes() == saved.data


async def test_a_disk_that_cannot_hold_a_large_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "_MANY", 8)
    monkeypatch.setattr(reader, "is_own_disk", lambda _: True)
    async with bench(THREAD) as it:
        saved = await save(it, tmp_path, noise(SLOT_SIZE))
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (SLOT_SIZE // 2, before[1]))
        try:
            with pytest.raises(StoreFull, match=f"writing {saved.path}: File too large") as full:
                await stage_file(it.repository, it.pool, saved.content, saved.path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "Nothing live was touched" in full.value.hint
    assert saved.path.read_bytes() == b""


async def damage(it: Bench, name: str, data: bytes) -> None:
    """Replace an object by other bytes, which no store of ours would do."""
    await it.repository.store.delete(name)
    await it.repository.store.put(name, data)


async def only_pack(it: Bench) -> tuple[str, bytes]:
    (name,) = await it.repository.store.objects("data/")
    return name, await it.repository.store.get(name)


async def refused(it: Bench, saved: Saved) -> BackupError:
    """Stage and prove: both must refuse, with the same error."""
    with pytest.raises((IntegrityError, ObjectMissing)) as staging:
        await stage_file(it.repository, it.pool, saved.content, saved.path)
    with pytest.raises(type(staging.value)) as proving:
        await prove_blobs(it.repository, it.pool, saved.content, "it")
    assert str(proving.value) == str(staging.value)
    assert staging.value.hint
    return staging.value


@HOW
async def test_a_file_comes_back_whatever_order_and_packs_its_blobs_lie_in(
    thread_bytes: int, tmp_path: Path
) -> None:
    async with bench(thread_bytes) as it:
        chunks = cut(words(SLOT_SIZE // 2, 1) + noise(SLOT_SIZE, 1))
        for part in (chunks[::-2], chunks[::2]):  # two packs, one of them backwards
            await save_index(it.repository, await save_pack(it.repository, BlobKind.DATA, part))
        await it.repository.load_index(refresh=True)
        content = [BlobId(digest(chunk)) for chunk in [*chunks, *chunks[3:9], chunks[0]]]
        (tmp_path / "out").touch()
        await stage_file(it.repository, it.pool, content, tmp_path / "out")
        wanted = b"".join([*chunks, *chunks[3:9], chunks[0]])
        assert (tmp_path / "out").read_bytes() == wanted
        assert file_size(await it.repository.load_index(), content) == len(wanted)


@HOW
async def test_blobs_larger_than_a_slot_come_back_too(thread_bytes: int, tmp_path: Path) -> None:
    """restic makes them, up to 8 MiB."""
    blobs = [noise(8 << 20, 1), b"small", words(8 << 20, 2), noise(SLOT_SIZE, 3)]
    async with bench(thread_bytes) as it:
        await save_index(it.repository, await save_pack(it.repository, BlobKind.DATA, blobs))
        await it.repository.load_index(refresh=True)
        (tmp_path / "out").touch()
        content = [BlobId(digest(blob)) for blob in blobs]
        await stage_file(it.repository, it.pool, content, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"".join(blobs)


async def test_a_blob_in_no_index_is_named(tmp_path: Path) -> None:
    async with bench() as it:
        saved = await save(it, tmp_path, words(100_000, 1))
        missing = BlobId(digest(b"never stored"))
        error = await refused(it, Saved(b"", [*saved.content, missing], saved.path))
        assert isinstance(error, IntegrityError)
        assert f"blob {missing.hex()[:8]}" in str(error)


@HOW
async def test_a_flipped_byte_anywhere_in_a_blob_is_found_and_its_pack_named(
    thread_bytes: int, tmp_path: Path
) -> None:
    async with bench(thread_bytes) as it:
        saved = await save(it, tmp_path, noise(4 * CHUNK, 1))
        name, whole = await only_pack(it)
        length = CHUNK + 32
        for at in (0, 15, 16, length // 2, length - 1, length, 4 * length - 1):
            await damage(it, name, whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
            error = await refused(it, saved)
            assert isinstance(error, IntegrityError)
            assert str(error).startswith(f"{name}: ")
        await damage(it, name, whole)
        await stage_file(it.repository, it.pool, saved.content, saved.path)
        assert saved.path.read_bytes() == saved.data


async def test_a_truncated_pack_is_named(tmp_path: Path) -> None:
    async with bench() as it:
        saved = await save(it, tmp_path, noise(4 * CHUNK, 1))
        name, whole = await only_pack(it)
        for size in (0, 100, 4 * (CHUNK + 32) - 1):
            await damage(it, name, whole[:size])
            error = await refused(it, saved)
            assert isinstance(error, IntegrityError)
            assert name in str(error)


async def test_a_pack_that_is_gone_is_named(tmp_path: Path) -> None:
    async with bench() as it:
        saved = await save(it, tmp_path, noise(4 * CHUNK, 1))
        name, _ = await only_pack(it)
        await it.repository.store.delete(name)
        assert name in str(await refused(it, saved))


async def test_packs_in_each_others_place_are_found(tmp_path: Path) -> None:
    """Every blob in them is in order; only not where the index says."""
    async with bench() as it:
        first = await save(it, tmp_path, noise(4 * CHUNK, 1))
        (one,) = await it.repository.store.objects("data/")
        await save(it, tmp_path, noise(4 * CHUNK, 2))
        (two,) = set(await it.repository.store.objects("data/")) - {one}
        held = await it.repository.store.get(one)
        await damage(it, one, await it.repository.store.get(two))
        await damage(it, two, held)
        error = await refused(it, first)
        assert isinstance(error, IntegrityError)
        assert one in str(error)


async def test_blobs_in_each_others_place_are_found(tmp_path: Path) -> None:
    async with bench() as it:
        saved = await save(it, tmp_path, noise(4 * CHUNK, 1))
        name, whole = await only_pack(it)
        length = CHUNK + 32
        swapped = whole[length : 2 * length] + whole[:length] + whole[2 * length :]
        await damage(it, name, swapped)
        error = await refused(it, saved)
        assert isinstance(error, IntegrityError)
        assert "do not hash to its id" in str(error)
        assert name in str(error)


@HOW
@pytest.mark.parametrize("how", [How.LIE, How.TRUNCATE])
async def test_a_store_that_answers_with_other_bytes_is_not_believed(
    thread_bytes: int, how: How, tmp_path: Path
) -> None:
    async with bench(thread_bytes) as it:
        saved = await save(it, tmp_path, words(3 * SLOT_SIZE, 1) + noise(SLOT_SIZE, 1))
        inner = it.repository.store
        it.repository.store = FaultyStore(inner, Fault("get", 1, how, FOREVER, under="data/"))
        with pytest.raises(IntegrityError):
            await stage_file(it.repository, it.pool, saved.content, saved.path)


async def test_a_full_disk_under_the_file_is_told_with_the_file(tmp_path: Path) -> None:
    async with bench() as it:
        saved = await save(it, tmp_path, words(100_000, 1))
        with pytest.raises(StoreFull, match="/dev/full"):
            await stage_file(it.repository, it.pool, saved.content, Path("/dev/full"))


async def test_neighbours_are_fetched_together_and_progress_ends_at_the_whole(
    tmp_path: Path,
) -> None:
    told: list[Progress] = []

    async def remember(progress: Progress) -> None:
        told.append(progress)

    async with bench() as it:
        saved = await save(it, tmp_path, words(2 * SLOT_SIZE, 1))
        store = FaultyStore(it.repository.store)
        it.repository.store = store
        await stage_file(it.repository, it.pool, saved.content, saved.path, remember)
    assert len([verb for verb, _ in store.calls if verb == "get"]) <= 2
    assert [p.done for p in told] == sorted(p.done for p in told)
    assert told[-1].done == told[-1].total == len(saved.data)


async def test_what_is_on_the_disk_of_a_local_store_is_read_the_same_way(tmp_path: Path) -> None:
    async with bench() as it:
        store = LocalStore(tmp_path / "r")
        await store.create_layout()
        it.repository.store = store
        saved = await save(it, tmp_path, noise(5 * CHUNK, 1))
        (name,) = await store.objects("data/")
        path = tmp_path / "r" / name
        path.chmod(0o600)
        os.truncate(path, path.stat().st_size // 2)
        assert name in str(await refused(it, saved))
