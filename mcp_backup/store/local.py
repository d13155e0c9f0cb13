"""Objects as files in a local directory, in restic's layout, durable and all or nothing.

    put      <id>-tmp-<random>: write, chmod 0400, fsync; link to <id>; fsync directory; unlink
    get      open, pread
    delete   unlink; fsync directory

restic reads what this writes and the other way round; both ignore the other's temporary files.
Temporary files that a killed process left are removed by a later `put` into the same directory
once they are a day older than the object just written: by the filesystem's own clock, so that
no other machine's can make a live one look old.
"""

import os
import stat
from collections.abc import Collection, Iterator, Mapping, Set
from contextlib import contextmanager, suppress
from pathlib import Path

from anyio import to_thread

from mcp_backup import page_cache
from mcp_backup.durable import (
    create_durably,
    final_name,
    fsync_directory,
    make_directory_durably,
    remove_durably,
)
from mcp_backup.errors import IntegrityError
from mcp_backup.store.filesystems import is_own_disk
from mcp_backup.store.layout import (
    DIRECTORIES,
    PACK_DIRECTORIES,
    checked_name,
    checked_prefix,
    is_object_name,
)
from mcp_backup.store.os_errors import meaning_of, rootless

_LARGEST = 512 << 20  # bytes of an object read whole: an index file of a million blobs is less
_PASSING = 1 << 20  # bytes; packs are stored once and seldom read, and a proof reads the disk
_LEFTOVER_SECONDS = (
    24 * 3600
)  # no `put` takes that long, not even across a suspended laptop's night


class LocalStore:
    """A `Store` in the directory `root`. Safe to use from several tasks and processes at once."""

    def __init__(self, root: Path) -> None:
        """Speak for the directory `root`; nothing is looked at or made yet."""
        self._root = root
        self._swept: set[Path] = set()
        self._named: dict[str, Set[str]] = {}  # what was listed before needs no second look

    @property
    def location(self) -> str:
        """The directory's path."""
        return str(self._root)

    async def create_layout(self) -> None:
        """Make the root and the layout's directories where they are missing, as restic does.

        A cancel leaves some of them, which do no harm.

        Raises:
            StoreDenied, StoreFull, StoreUnavailable: the directory cannot be made.
        """
        await to_thread.run_sync(self._create_layout)

    async def put(self, name: str, data: bytes | bytearray | memoryview) -> None:
        """Store `data` under `name`. A cancel waits for the whole object.

        Raises:
            IntegrityError: the name is taken by other bytes, which were left as they are.
            StoreFull, StoreDenied, StoreUnavailable: nothing was stored, and nothing lost.
        """
        await to_thread.run_sync(self._put, checked_name(name), data)

    async def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Return `length` bytes from `offset`, or all that follows `offset`.

        Raises:
            ObjectMissing: there is no such object.
            IntegrityError: the object ends before that.
        """
        return await to_thread.run_sync(self._get, checked_name(name), offset, length)

    async def get_into(self, name: str, offset: int, out: memoryview) -> None:
        """Fill `out` with the bytes from `offset`: they are copied once, by the kernel.

        Raises what `get` does.
        """
        await to_thread.run_sync(self._get_into, checked_name(name), offset, out)

    async def size(self, name: str) -> int:
        """Return the object's size in bytes.

        Raises:
            ObjectMissing: there is no such object.
        """
        return await to_thread.run_sync(self._size, checked_name(name))

    async def objects(self, prefix: str) -> Mapping[str, int]:
        """Return name → size in bytes of what is under `prefix`, in the names' order.

        Raises:
            StoreUnavailable: the root itself is not there.
        """
        return await to_thread.run_sync(self._objects, checked_prefix(prefix))

    async def names(self, prefix: str) -> Collection[str]:
        """Return the names of what is under `prefix`, which takes no look at any file.

        Raises:
            StoreUnavailable: the root itself is not there.
        """
        return await to_thread.run_sync(self._names, checked_prefix(prefix))

    async def delete(self, name: str) -> None:
        """Remove the object, durably; removing what is not there succeeds."""
        await to_thread.run_sync(self._delete, checked_name(name))

    async def is_prompt(self) -> bool:
        """Tell whether a listing has all that was put before, as on a disk of our own.

        There a kernel answers for the directory itself: a name that was linked is in every
        listing opened afterwards (POSIX leaves open only what happens during one).
        """
        return await to_thread.run_sync(is_own_disk, self._root)

    def _create_layout(self) -> None:
        with self._translated("create", "the repository's directories"):
            make_directory_durably(self._root)
            for directory in (*DIRECTORIES, *PACK_DIRECTORIES):
                path = self._root / directory
                if not path.is_dir():
                    path.mkdir(mode=0o700)
                    path.chmod(0o700)  # whatever the umask took away
            fsync_directory(self._root / "data")
            fsync_directory(self._root)

    def _put(self, name: str, data: bytes | bytearray | memoryview) -> None:
        path = self._root / name
        with self._translated("put", name):
            try:
                self._create(path, data)
            except FileExistsError:
                if path.read_bytes() != data:
                    raise IntegrityError(
                        f"put {name}: {self.location} holds other bytes under that name",
                        hint="Run `mcp-backup check`. What is there was not changed.",
                    ) from None
            self._sweep(path)

    def _create(self, path: Path, data: bytes | bytearray | memoryview) -> None:
        file_mode, directory_mode = self._modes()
        cached = len(data) < _PASSING
        try:
            create_durably(path, data, file_mode, cached=cached)
        except FileNotFoundError:
            if not self._root.exists():  # an unmounted disk: do not fill its mount point
                raise rootless("put", self._root) from None
            make_directory_durably(path.parent, directory_mode)
            create_durably(path, data, file_mode, cached=cached)

    def _modes(self) -> tuple[int, int]:
        """Objects and directories are the group's too where `config` is, as restic has it."""
        try:
            shared = (self._root / "config").stat().st_mode & 0o040
        except FileNotFoundError:
            shared = 0
        return (0o440, 0o770) if shared else (0o400, 0o700)

    def _sweep(self, written: Path) -> None:
        if written.parent in self._swept:
            return
        self._swept.add(written.parent)
        with suppress(OSError):  # tidying may wait; what was asked for is done
            newest = written.stat().st_mtime
            for path in written.parent.iterdir():
                if self._is_temporary(path) and path.lstat().st_mtime < newest - _LEFTOVER_SECONDS:
                    path.unlink()

    def _is_temporary(self, path: Path) -> bool:
        name = final_name(path.relative_to(self._root).as_posix())
        return name is not None and is_object_name(name)

    def _get(self, name: str, offset: int, length: int | None) -> bytes:
        with self._opened(name) as descriptor:
            there = os.fstat(descriptor).st_size - offset
            if length is None and there > _LARGEST:
                raise IntegrityError(
                    f"get {name}: {there} bytes, and at most {_LARGEST} are read at once",
                    hint="No such object is that large; run `mcp-backup check`.",
                )
            if there < (length or 0):
                raise _cut_short(name, offset, max(there, 0), length or 0)
            data = _read_exactly(descriptor, name, offset, there if length is None else length)
            _pass(descriptor, offset, len(data))
            return data

    def _get_into(self, name: str, offset: int, out: memoryview) -> None:
        with self._opened(name) as descriptor:
            done = 0
            while done < len(out):
                read = os.preadv(descriptor, [out[done:]], offset + done)
                if not read:
                    raise _cut_short(name, offset, done, len(out))
                done += read
            _pass(descriptor, offset, done)

    @contextmanager
    def _opened(self, name: str) -> Iterator[int]:
        with self._translated("get", name):
            # O_NONBLOCK: a pipe put in an object's place must not hold us
            descriptor = os.open(self._root / name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                yield descriptor
            finally:
                os.close(descriptor)

    def _size(self, name: str) -> int:
        with self._translated("size", name):
            return (self._root / name).stat().st_size

    def _objects(self, prefix: str) -> dict[str, int]:
        found: list[tuple[str, int]] = []
        for directory in _directories(prefix):
            with self._translated("list", directory or "config"):
                for name, entry in self._files(directory):
                    with suppress(FileNotFoundError):  # deleted meanwhile
                        found.append((name, entry.stat().st_size))
        return dict(sorted(found))

    def _names(self, prefix: str) -> Set[str]:
        there: set[str] = set()
        with self._translated("list", prefix or self.location):
            for directory in _directories(prefix):
                there |= {directory + name for name in self._listed(directory)}
            known = self._named.get(prefix, frozenset())
            new = {name for name in there - known if is_object_name(name) and self._is_file(name)}
        if new or not known <= there:
            self._named[prefix] = known = (known & there) | new
        return known

    def _is_file(self, name: str) -> bool:
        try:
            return stat.S_ISREG(os.stat(f"{self._root}/{name}").st_mode)  # of thousands
        except FileNotFoundError:  # deleted meanwhile
            return False

    def _listed(self, directory: str) -> list[str]:
        try:
            return os.listdir(self._root / directory)
        except FileNotFoundError:
            self._refuse_rootless()
            return []

    def _files(self, directory: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
        try:
            entries = os.scandir(self._root / directory)
        except FileNotFoundError:
            self._refuse_rootless()
            return
        with entries:
            for entry in entries:
                name = directory + entry.name
                if is_object_name(name) and entry.is_file():
                    yield name, entry

    def _refuse_rootless(self) -> None:
        if not self._root.exists():  # an unmounted disk is not an empty repository
            raise rootless("list", self._root) from None

    def _delete(self, name: str) -> None:
        with self._translated("delete", name):
            remove_durably(self._root / name)

    @contextmanager
    def _translated(self, verb: str, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise meaning_of(error, verb, name, self._root) from error


def _directories(prefix: str) -> list[str]:
    """Return the directories to look in for what is under `prefix`."""
    pending = [prefix] if prefix else ["", *(f"{directory}/" for directory in DIRECTORIES)]
    if "data/" in pending:
        pending += (f"{directory}/" for directory in PACK_DIRECTORIES)
    return pending


def _read_exactly(descriptor: int, name: str, offset: int, wanted: int) -> bytes:
    data = os.pread(descriptor, wanted, offset)
    while len(data) < wanted:  # the kernel gives at most 2 GiB at a time
        more = os.pread(descriptor, wanted - len(data), offset + len(data))
        if not more:
            raise _cut_short(name, offset, len(data), wanted)
        data += more
    return data


def _pass(descriptor: int, offset: int, length: int) -> None:
    """Keep what was read out of the page cache, if it is much; see `_PASSING`."""
    if length >= _PASSING:
        page_cache.drop(descriptor, offset, length)


def _cut_short(name: str, offset: int, there: int, wanted: int) -> IntegrityError:
    return IntegrityError(
        f"get {name}: {there} bytes at {offset}, wanted {wanted}",
        hint="Run `mcp-backup check`: the object is shorter than it was when it was stored.",
    )
