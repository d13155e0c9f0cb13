import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path

import anyio
import pytest

from mcp_backup.errors import (
    IntegrityError,
    ObjectMissing,
    StoreDenied,
    StoreError,
    StoreFull,
    StoreUnavailable,
)
from mcp_backup.store.layout import is_object_name
from mcp_backup.store.local import LocalStore
from mcp_backup.store.os_errors import meaning_of
from tests.store.contract import StoreContract, named

DAY = 24 * 3600


@pytest.fixture
async def store(tmp_path: Path) -> LocalStore:
    store = LocalStore(tmp_path / "r")
    await store.create_layout()
    return store


class TestLocalStore(StoreContract):
    """The promises; the fixture is the module's."""


def program(verb: str, root: Path | str, *rest: object) -> list[str]:
    return [sys.executable, "-m", "tests.store.processes", verb, str(root), *map(str, rest)]


def run(verb: str, root: Path | str, *rest: object) -> str:
    done = subprocess.run(
        program(verb, root, *rest), check=True, capture_output=True, text=True, timeout=30
    )
    return done.stdout


def files_below(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())


async def test_objects_are_read_only_files_named_as_restic_names_them(
    store: LocalStore, tmp_path: Path
) -> None:
    name = named(b"pack", "data")
    await store.put(name, b"pack")
    await store.put("config", b"config")
    assert files_below(tmp_path) == sorted([tmp_path / "r" / "config", tmp_path / "r" / name])
    assert (tmp_path / "r" / name).stat().st_mode & 0o777 == 0o400
    assert (tmp_path / "r" / name).stat().st_nlink == 1


async def test_a_missing_directory_is_made_on_demand(store: LocalStore, tmp_path: Path) -> None:
    name = named(b"pack", "data")
    (tmp_path / "r" / name).parent.rmdir()
    assert await store.objects("") == {}
    await store.put(name, b"pack")
    assert await store.get(name) == b"pack"
    assert (tmp_path / "r" / name).parent.stat().st_mode & 0o777 == 0o700


async def test_what_a_group_may_read_stays_readable_for_the_group(
    store: LocalStore, tmp_path: Path
) -> None:
    await store.put("config", b"config")
    (tmp_path / "r" / "config").chmod(0o440)
    await store.put(named(b"x"), b"x")
    assert (tmp_path / "r" / named(b"x")).stat().st_mode & 0o777 == 0o440


async def test_foreign_and_temporary_names_are_not_listed(
    store: LocalStore, tmp_path: Path
) -> None:
    await store.put(named(b"x"), b"x")
    name = tmp_path / "r" / named(b"x")
    for foreign in (
        name.with_name(name.name + "-tmp-12345"),
        name.with_name("README"),
        name.with_name("B" * 64),
        tmp_path / "r" / "config.bak",
        tmp_path / "r" / "data" / "00" / ("11" * 32),  # a pack in another pack's directory
    ):
        foreign.write_bytes(b"foreign")
    (tmp_path / "r" / "keys" / ("a" * 64)).mkdir()
    (tmp_path / "r" / "keys" / ("b" * 64)).symlink_to("nowhere")
    assert await store.objects("") == {named(b"x"): 1}


async def test_an_absent_root_is_called_absent_and_is_not_made(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "unmounted")
    with pytest.raises(ObjectMissing):  # "there is no repository" is what this means above
        await store.get("config")
    with pytest.raises(StoreUnavailable, match="does not exist"):
        await store.get(named(b"x"))
    with pytest.raises(StoreUnavailable, match="does not exist"):
        await store.objects("data/")
    with pytest.raises(StoreUnavailable, match="does not exist"):
        await store.put(named(b"x"), b"x")
    await store.delete(named(b"x"))
    assert not (tmp_path / "unmounted").exists()


async def test_a_root_that_is_a_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    store = LocalStore(tmp_path / "file")
    for call in (store.get("config"), store.put("config", b"x"), store.objects("keys/")):
        with pytest.raises(StoreError, match=r"file: .*not a directory"):
            await call
    with pytest.raises(StoreError, match="exists"):
        await store.create_layout()
    assert (tmp_path / "file").read_text() == "mine"


async def test_an_object_cut_short_on_the_disk_is_told_not_returned(
    store: LocalStore, tmp_path: Path
) -> None:
    await store.put("config", b"0123456789")
    os.truncate(tmp_path / "r" / "config", 5)
    with pytest.raises(IntegrityError, match="get config: 3 bytes at 2, wanted 8"):
        await store.get("config", 2, 8)


async def test_old_leftovers_of_killed_processes_are_swept_and_nothing_else_is(
    store: LocalStore, tmp_path: Path
) -> None:
    final = tmp_path / "r" / named(b"x")
    old = {
        "ours": final.with_name("a" * 64 + "-tmp-0123456789abcdef"),
        "restic's": final.with_name("a" * 64 + "-tmp-123456789"),
        "foreign": final.with_name("notes-tmp-0123456789abcdef"),
        "an object": final.with_name("c" * 64),
    }
    young = final.with_name("b" * 64 + "-tmp-0123456789abcdef")
    for path in (*old.values(), young):
        path.write_bytes(b"left")
    now = young.stat().st_mtime
    for path in old.values():
        os.utime(path, (now - DAY - 60, now - DAY - 60))
    os.utime(young, (now - DAY + 60, now - DAY + 60))
    await store.put(named(b"x"), b"x")
    left = {path.name for path in final.parent.iterdir()}
    del old["ours"]
    assert left == {path.name for path in (final, young, *old.values())}


async def test_a_full_disk_is_told_with_what_is_free_and_loses_nothing(small_disk: Path) -> None:
    store = LocalStore(small_disk / "r")
    await store.create_layout()
    kept = bytes(1 << 20)
    await store.put(named(kept, "data"), kept)
    with pytest.raises(StoreFull, match=r"no space left on device; \d+ bytes are free") as refused:
        await store.put("config", bytes(8 << 20))
    assert "intact" in refused.value.hint
    assert files_below(small_disk) == [small_disk / "r" / named(kept, "data")]
    assert await store.get(named(kept, "data")) == kept
    await store.delete(named(kept, "data"))
    await store.put("config", bytes(3 << 19))  # there is room again


async def test_a_disk_without_room_for_the_directories_is_told_so(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,nr_inodes=100", str(small_disk)], check=True)
    with pytest.raises(StoreFull, match="the repository's directories"):
        await LocalStore(small_disk / "r").create_layout()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 2 MiB. Where mounting is not permitted, RLIMIT_FSIZE has to do."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)],
        capture_output=True,
        text=True,
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount ({mounted.stderr.strip()}); RLIMIT_FSIZE stands in for it")
    with ExitStack() as stack:
        stack.callback(subprocess.run, ["umount", str(disk)], check=True)
        yield disk


async def test_a_file_that_may_not_grow_is_a_full_store_too(
    store: LocalStore, tmp_path: Path
) -> None:
    told = run("put_one_limited", tmp_path / "r", 1 << 20)
    assert told.startswith("StoreFull: put config in ")
    assert files_below(tmp_path) == []


async def test_a_directory_that_may_not_be_written_is_named_with_the_user(
    store: LocalStore, tmp_path: Path
) -> None:
    (tmp_path / "r").chmod(0o500)
    told = run("put_one_as_nobody", tmp_path / "r", 1)
    assert told.startswith(f"StoreDenied: put config in {tmp_path / 'r'}: permission denied, as")
    assert "Give this user access" in told


async def test_a_read_only_disk_is_a_refusal(small_disk: Path) -> None:
    store = LocalStore(small_disk / "r")
    await store.create_layout()
    await store.put(named(b"x"), b"x")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(StoreDenied, match="read-only file system"):
        await store.put("config", b"x")
    with pytest.raises(StoreDenied, match="read-only file system"):
        await store.delete(named(b"x"))
    assert await store.get(named(b"x")) == b"x"


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.EIO, StoreUnavailable),
        (errno.ESTALE, StoreUnavailable),
        (errno.EMFILE, StoreUnavailable),
        (errno.ENOSPC, StoreFull),
        (errno.EDQUOT, StoreFull),
        (errno.EROFS, StoreDenied),
        (errno.EPERM, StoreDenied),
        (errno.ENOTDIR, StoreError),
        (errno.ELOOP, StoreError),
    ],
    ids=lambda value: errno.errorcode[value] if isinstance(value, int) else "",
)
def test_what_the_system_answers_has_one_meaning(
    number: int, expected: type[StoreError], tmp_path: Path
) -> None:
    meaning = meaning_of(OSError(number, os.strerror(number)), "put", "config", tmp_path)
    assert type(meaning) is expected
    assert os.strerror(number).lower() in str(meaning)
    assert meaning.hint


@pytest.mark.parametrize("verb", ["race", "race_without_links"])
async def test_of_processes_that_create_one_name_exactly_one_succeeds(
    verb: str, store: LocalStore, tmp_path: Path
) -> None:
    names = 50
    with ExitStack() as stack:
        racers = {
            who: stack.enter_context(
                subprocess.Popen(
                    program(verb, tmp_path / "r", who, names),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for who in "ABCD"
        }
        for racer in racers.values():
            assert racer.stdout is not None
            assert racer.stdout.readline() == "ready\n"
        won = {who: racer.communicate("go\n", timeout=30)[0] for who, racer in racers.items()}
    winners = {int(line): who for who, lines in won.items() for line in lines.split()}
    assert sum(len(lines.split()) for lines in won.values()) == names
    for number, who in winners.items():
        assert await store.get(f"locks/{number:064x}") == who.encode() * 1000
    assert len(files_below(tmp_path)) == names  # and no temporary file is left


async def test_without_hard_links_a_put_waits_for_the_one_before_it_and_then_yields(
    store: LocalStore, tmp_path: Path
) -> None:
    directory = os.open(tmp_path / "r", os.O_RDONLY)
    fcntl.flock(directory, fcntl.LOCK_EX)
    with subprocess.Popen(
        program("put_one_without_links", tmp_path / "r", 10), stdout=subprocess.PIPE, text=True
    ) as second:
        with anyio.fail_after(5):
            while f"-> FLOCK  ADVISORY  WRITE {second.pid} " not in Path("/proc/locks").read_text():
                await anyio.lowlevel.checkpoint()
        (tmp_path / "r" / "config").write_bytes(b"first")
        os.close(directory)
        told, _ = second.communicate(timeout=5)
    assert told.startswith("IntegrityError: put config: ")
    assert (tmp_path / "r" / "config").read_bytes() == b"first"


async def test_a_killed_writer_leaves_whole_objects_and_at_most_a_temporary_file(
    store: LocalStore, tmp_path: Path
) -> None:
    told: set[str] = set()
    for kill_after in (1, 2, 5, 11, 23):
        with subprocess.Popen(
            program("put_forever", tmp_path / "r", kill_after), stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            told |= {writer.stdout.readline().strip() for _ in range(kill_after)}
            writer.kill()
            told |= {line.strip() for line in writer.stdout if line.endswith("\n")}
    held = await store.objects("data/")
    assert told <= set(held)
    assert len(held) <= len(told) + 5
    for name in held:
        data = await store.get(name)
        assert name.endswith(sha256(data).hexdigest())
    strays = [path.relative_to(tmp_path / "r").as_posix() for path in files_below(tmp_path)]
    strays = [name for name in strays if not is_object_name(name)]
    assert all(is_object_name(name.split("-tmp-")[0]) for name in strays)
    assert len(strays) <= 5
