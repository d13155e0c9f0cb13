"""restic opens what we make, and we open what restic makes."""

import os
from datetime import timedelta
from pathlib import Path

import pytest

from mcp_backup.errors import RepositoryExists, WrongPassword
from mcp_backup.format.blob import BlobKind
from mcp_backup.format.ids import BlobId
from mcp_backup.format.key import CHEAP
from mcp_backup.format.tree import Node
from mcp_backup.repository.check import check
from mcp_backup.repository.keys import add_key, key_files
from mcp_backup.repository.locks import locked
from mcp_backup.repository.repository import Repository, open_repository
from mcp_backup.store.location import create_store, open_store
from mcp_backup.verbs import Level
from tests.doubles import FrozenClock
from tests.interop.conftest import Restic
from tests.repository.packing import PASSWORD, new_repository, save_backup


async def created(restic: Restic) -> Repository:
    return await new_repository(await create_store(str(restic.location)))


async def opened(restic: Restic, password: str = PASSWORD) -> Repository:
    return await open_repository(
        open_store(str(restic.location)),
        password,
        now=FrozenClock(),
        hostname="here",
        username="tester",
    )


async def contents(repository: Repository, tree: BlobId, path: str = "") -> dict[str, bytes]:
    """Every file below a tree, by path."""
    found: dict[str, bytes] = {}
    for node in await repository.load_tree(tree):
        below = f"{path}/{node.name}"
        if node.subtree is not None:
            found |= await contents(repository, node.subtree, below)
        elif node.content is not None:
            found[below] = await content(repository, node)
    return found


async def content(repository: Repository, node: Node) -> bytes:
    blobs = [await repository.load_blob(BlobKind.DATA, blob) for blob in node.content or ()]
    return b"".join(blobs)


def live_files(root: Path) -> dict[str, bytes]:
    """Files for restic to back up: empty, small, and larger than one of its chunks."""
    (root / "sub").mkdir(parents=True)
    files = {
        root / "empty": b"",
        root / 'a "quoted" name': b"text " * 100,
        root / "sub" / "large": os.urandom(3 << 20),
    }
    for path, data in files.items():
        path.write_bytes(data)
    return {str(path): data for path, data in files.items()}


async def test_restic_opens_what_we_create(restic: Restic) -> None:
    repository = await created(restic)
    config = restic.json("cat", "config")
    assert (config["version"], config["id"]) == (2, repository.config.id)
    assert restic.json("snapshots") == []
    assert "no errors were found" in restic("check", "--read-data")


async def test_restic_reads_what_we_save(restic: Restic) -> None:
    repository = await created(restic)
    saved = await save_backup(repository, {"notes.db": [b"page " * 999, b"rest"], "empty": []})
    assert "no errors were found" in restic("check", "--read-data")
    (snapshot,) = restic.json("snapshots")
    assert snapshot["id"] == saved.hex()
    assert restic("dump", "latest", "/data/notes.db") == "page " * 999 + "rest"


async def test_restic_backs_up_into_our_repository_and_we_read_it(
    restic: Restic, tmp_path: Path
) -> None:
    repository = await created(restic)
    files = live_files(tmp_path / "live")
    restic("backup", tmp_path / "live")
    (snapshot,) = (await repository.snapshots()).values()
    assert snapshot.paths == (str(tmp_path / "live"),)
    assert await contents(repository, snapshot.tree) == files
    assert (await check(repository, Level.DATA)).findings == ()


async def test_we_open_what_restic_creates_and_read_all_of_it(
    restic: Restic, tmp_path: Path
) -> None:
    restic("init")
    files = live_files(tmp_path / "live")
    restic("backup", tmp_path / "live")
    repository = await opened(restic)
    ((identity, snapshot),) = (await repository.snapshots()).items()
    assert restic.json("snapshots")[0]["id"] == identity.hex()
    assert await contents(repository, snapshot.tree) == files
    assert (await check(repository, Level.DATA)).findings == ()
    with pytest.raises(WrongPassword):
        await opened(restic, "battery staple")
    with pytest.raises(RepositoryExists):
        await created(restic)


async def test_keys_added_by_one_open_for_the_other(restic: Restic, tmp_path: Path) -> None:
    repository = await created(restic)
    await add_key(
        repository.store,
        repository.key,
        "ours",
        created=repository.now(),
        username="ann",
        hostname="here",
        work=CHEAP,
        random=os.urandom,
    )
    (tmp_path / "theirs").write_text("theirs\n")
    restic("key", "add", "--new-password-file", tmp_path / "theirs")
    assert len(await key_files(repository.store)) == len(restic.json("key", "list")) == 3
    assert (await opened(restic, "theirs")).config == repository.config
    assert restic.with_password("ours").json("cat", "config")["id"] == repository.config.id


async def test_what_restic_prunes_we_still_read(restic: Restic) -> None:
    clock = FrozenClock()
    repository = await new_repository(await create_store(str(restic.location)), clock)
    for n in range(3):
        clock.advance(timedelta(days=1))
        kept = await save_backup(repository, {"a": [b"always", b"once %d" % n]})
    await repository.load_index()
    restic("forget", "--keep-last", "1", "--prune", "--max-unused", "0")
    ((left, snapshot),) = (await repository.snapshots()).items()
    assert left == kept
    await repository.load_index(refresh=True)
    assert await contents(repository, snapshot.tree) == {"/data/a": b"always" + b"once 2"}
    report = await check(repository, Level.DATA)
    assert (report.findings, report.snapshots, report.blobs) == ((), 1, 4)


async def test_what_we_forget_restic_no_longer_lists(restic: Restic) -> None:
    repository = await created(restic)
    first = await save_backup(repository, {"a": [b"one"]})
    second = await save_backup(repository, {"a": [b"two"]})
    async with locked(repository, exclusive=True):
        await repository.forget(first)
    assert [snapshot["id"] for snapshot in restic.json("snapshots")] == [second.hex()]
    assert "no errors were found" in restic("check", "--read-data")


async def test_restic_finds_the_damage_that_we_find(restic: Restic) -> None:
    repository = await created(restic)
    await save_backup(repository, {"a": [b"one"]})
    (pack, _) = sorted((restic.location / "data").glob("*/*"))
    pack.chmod(0o600)
    damaged = bytearray(pack.read_bytes())
    damaged[20] ^= 1
    pack.write_bytes(damaged)
    assert "damaged-pack" in {f.code for f in (await check(repository, Level.DATA)).findings}
    assert pack.name[:8] in restic.refuses("check", "--read-data")
