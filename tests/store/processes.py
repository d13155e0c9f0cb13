"""Programs that tests of the local store run in processes of their own, to kill or to race them.

    python -m tests.store.processes VERB ROOT ...

Each tells on stdout how far it is. `race` waits for a line on stdin, so that all begin at once.
"""

import ctypes
import os
import platform
import resource
import struct
import sys
from collections.abc import Callable
from hashlib import sha256
from itertools import count
from pathlib import Path

import anyio

from mcp_backup.errors import BackupError, IntegrityError
from mcp_backup.store.local import LocalStore


async def race(store: LocalStore, who: str, names: str) -> None:
    """Put own bytes under `names` names, and tell the number of each that was won."""
    _tell("ready")
    sys.stdin.readline()
    for number in range(int(names)):
        try:
            await store.put(f"locks/{number:064x}", who.encode() * 1000)
            _tell(str(number))
        except IntegrityError:
            pass


async def put_forever(store: LocalStore, seed: str) -> None:
    """Put ever new packs, and tell the name of each when it is stored."""
    for number in count():
        data = f"{seed} {number} ".encode() * 8000
        digits = sha256(data).hexdigest()
        await store.put(f"data/{digits[:2]}/{digits}", data)
        _tell(f"data/{digits[:2]}/{digits}")


async def put_one(store: LocalStore, size: str) -> None:
    """Put one object of `size` zeros and tell how it went."""
    try:
        await store.put("config", bytes(int(size)))
    except BackupError as error:
        _tell(f"{type(error).__name__}: {error}; {error.hint}")
    else:
        _tell("stored")


async def put_one_limited(store: LocalStore, size: str) -> None:
    """Put where no file may grow above 64 KiB."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
    await put_one(store, size)


async def put_one_as_nobody(store: LocalStore, size: str) -> None:
    """Put as a user who does not own the directory."""
    if os.geteuid() == 0:
        os.setgid(65534)
        os.setuid(65534)
    await put_one(store, size)


async def race_without_links(store: LocalStore, who: str, names: str) -> None:
    """Race on a filesystem without hard links, as far as this process can tell."""
    _forbid_links()
    await race(store, who, names)


async def put_one_without_links(store: LocalStore, size: str) -> None:
    """Put on such a filesystem."""
    _forbid_links()
    await put_one(store, size)


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _forbid_links() -> None:
    """Let the kernel answer EPERM to link and linkat, as it does on FAT.

    A seccomp filter of five instructions; each is code, jump if true, if false, operand.
    """
    calls = {"x86_64": (86, 265), "aarch64": (37, 37)}[platform.machine()]
    load, equal, give = 0x20, 0x15, 0x06
    program = b"".join(
        struct.pack("=HBBI", *instruction)
        for instruction in (
            (load, 0, 0, 0),  # the system call's number
            (equal, 1, 0, calls[0]),
            (equal, 0, 1, calls[1]),
            (give, 0, 0, 0x00050000 | 1),  # SECCOMP_RET_ERRNO, EPERM
            (give, 0, 0, 0x7FFF0000),  # SECCOMP_RET_ALLOW
        )
    )
    buffer = ctypes.create_string_buffer(program, len(program))
    filters = ctypes.create_string_buffer(struct.pack("@HP", 5, ctypes.addressof(buffer)))
    libc = ctypes.CDLL(None, use_errno=True)
    no_new_privileges, set_seccomp, mode_filter = 38, 22, 2
    if libc.prctl(no_new_privileges, 1, 0, 0, 0) or libc.prctl(set_seccomp, mode_filter, filters):
        raise OSError(ctypes.get_errno(), "no seccomp")
    try:
        os.link(__file__, __file__ + ".link")
    except PermissionError:
        return
    raise AssertionError("links are still allowed")


VERBS: dict[str, Callable[..., object]] = {
    verb.__name__: verb
    for verb in (
        race,
        put_forever,
        put_one,
        put_one_limited,
        put_one_as_nobody,
        race_without_links,
        put_one_without_links,
    )
}


def main() -> None:
    verb, root, *rest = sys.argv[1:]
    anyio.run(VERBS[verb], LocalStore(Path(root)), *rest)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
