"""Hostile repositories: written with the repository's own key, so that nothing but care helps.

A forged backup is one of ours in which documents were exchanged: its manifest, a source's tree,
the snapshot itself. Everything around is genuine, and every seal is in order.
"""

import json
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from mcp_backup.catalog import Backup
from mcp_backup.doctor import diagnose
from mcp_backup.engine import Engine
from mcp_backup.errors import BackupError
from mcp_backup.export import export_backup
from mcp_backup.forgetting import forget, prune
from mcp_backup.format.blob import BlobKind
from mcp_backup.format.ids import BlobId, digest
from mcp_backup.format.snapshot import encode_snapshot
from mcp_backup.format.tree import Node, dir_node, encode_tree, file_node
from mcp_backup.manifest import PATH as MANIFEST
from mcp_backup.recording import told_by_repository
from mcp_backup.repository.repository import Repository
from mcp_backup.status import status
from mcp_backup.verbs import Level
from mcp_backup.verbs_restores import RestoreRequest
from tests.repository.packing import MTIME, save_index, save_pack
from tests.system import System

Raw = dict[str, Any]
Verb = Callable[[], Awaitable[object]]


async def document_of(repository: Repository, backup: Backup) -> Raw:
    """The manifest of a backup, as JSON."""
    (node,) = [n for n in await repository.load_tree(backup.snapshot.tree) if n.name == MANIFEST]
    parts = [await repository.load_blob(BlobKind.DATA, blob) for blob in node.content or ()]
    document: Raw = json.loads(b"".join(parts))
    return document


async def save(repository: Repository, *trees: bytes, data: tuple[bytes, ...] = ()) -> BlobId:
    """Store trees, and data that files in them have; the last tree is returned."""
    listings = [await save_pack(repository, BlobKind.TREE, trees)]
    if data:
        listings.append(await save_pack(repository, BlobKind.DATA, data))
    await save_index(repository, *listings)
    return BlobId(digest(trees[-1]))


async def forged(  # noqa: PLR0913 - what is exchanged
    repository: Repository,
    backup: Backup,
    *,
    manifest: bytes | None = None,
    source: bytes | None = None,
    nodes: tuple[Node, ...] = (),
    data: tuple[bytes, ...] = (),
    snapshot: Callable[[Raw], object] | None = None,
) -> str:
    """Store a backup like `backup`, with other documents in it, and nothing else; its id.

    `source` is the tree in the place of config/project, `nodes` come on top of the root's.
    """
    root = {node.name: node for node in await repository.load_tree(backup.snapshot.tree)}
    trees: list[bytes] = []
    if manifest is not None:
        content = (BlobId(digest(manifest)),)
        root[MANIFEST] = file_node(MANIFEST, content, len(manifest), mode=0o600, mtime_ns=MTIME)
        data = (*data, manifest)
    if source is not None:
        config = encode_tree([below_root("project", source)])
        trees += [source, config]
        root["config"] = below_root("config", config)
    encoded = encode_tree([*root.values(), *nodes])
    tree = await save(repository, *trees, encoded, data=data)
    document: Raw = json.loads(encode_snapshot(replace(backup.snapshot, tree=tree)))
    if snapshot is not None:
        document = snapshot(document) or document  # type: ignore[assignment]
    identity = await repository.save_unpacked("snapshots", json.dumps(document).encode())
    return identity.hex()


def below_root(name: str, encoded: bytes) -> Node:
    return dir_node(name, BlobId(digest(encoded)), mode=0o700, mtime_ns=MTIME)


def everything(engine: Engine, backup_id: str, out: Path) -> Iterator[tuple[str, Verb]]:
    """Every verb that reads a backup, by name."""
    request = RestoreRequest(backup_id, target="scratch")
    live = RestoreRequest(backup_id)

    async def restore(wanted: RestoreRequest) -> object:
        plan = await engine.plan_restore(wanted)
        if wanted.target == "original":
            await engine.approve(plan.plan_id, "the test")
        return await engine.restore(plan.plan_id)

    yield "list", lambda: engine.backups(source="notes")
    yield "status", lambda: status(engine)
    yield "doctor", lambda: diagnose(engine)
    yield "history", lambda: told_by_repository(engine.catalog, engine.hostname)
    for level in Level:
        yield f"verify {level}", lambda level=level: engine.verify(backup_id, level)  # type: ignore[misc]
    yield "check", lambda: engine.check(Level.DATA)
    yield "forget", lambda: forget(engine, dry_run=True)
    yield "prune", lambda: prune(engine, dry_run=True)
    yield "tar", lambda: export_backup(engine, backup_id, "", out / "all.tar", wanted="tar")
    yield "sql", lambda: export_backup(engine, backup_id, "notes", out / "n.sql", wanted="sql")
    yield "scratch", lambda: restore(request)
    yield "restore", lambda: restore(live)


async def refusals(engine: Engine, backup_id: str, out: Path, *verbs: str) -> dict[str, str]:
    """Call verbs (all, if none is named); what each refused, by name. Nothing but that may fail."""
    refused, unhelpful = {}, list[str]()
    for name, verb in everything(engine, backup_id, out):
        if verbs and name not in verbs:
            continue
        try:
            answer = await verb()
        except BackupError as error:
            refused[name] = str(error)
            unhelpful += [] if error.hint else [f"{name}: {error}"]
        else:
            found = getattr(answer, "findings", ())
            if found:
                refused[name] = "; ".join(str(finding.message) for finding in found)
    assert unhelpful == []
    return refused


def everything_outside(system: System) -> dict[str, tuple[int, int, bytes]]:
    """All there is around, but for what the program keeps for itself: mode, inode, content."""
    ours = {system.root / name for name in ("state", "backups")}
    found = {}
    for place, directories, files in os.walk(system.root.parent):
        here = Path(place)
        directories[:] = [name for name in directories if here / name not in ours]
        for name in (*directories, *files):
            path = here / name
            status = path.lstat()
            content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
            found[str(path)] = (status.st_mode, status.st_ino, content)
    return found
