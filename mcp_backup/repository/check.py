"""Check: is everything in the repository what it says, and is everything there that is needed?

    structure   keys and config; every snapshot; every index file; every indexed pack is there in
                the size that its entries add up to; every tree that a snapshot reaches, once;
                every blob of every file is in the index, and their sizes add up to the file's
    data        and every indexed pack, whole: its hash, its header against the index, each blob
                unsealed, decompressed and hashed

It never stops at what it finds, and changes nothing. Memory is a few packs, the index and a bit
per blob, however deep or wide the trees are. Packs that no index lists are not wrong: a backup
that was interrupted leaves them, and `prune` removes them.

Run it under a lock; a shared one will do. Snapshots are listed before the index is read and the
index before packs are listed, so backups that go on meanwhile are not mistaken for damage.
"""

from collections.abc import Iterable

import anyio
from anyio import from_thread, to_thread
from msgspec import Struct, field

from mcp_backup.errors import BackupError, IntegrityError, ObjectMissing, UnsupportedFormat
from mcp_backup.format.blob import BlobKind
from mcp_backup.format.config import decode_config
from mcp_backup.format.crypto import Sealer
from mcp_backup.format.ids import BlobId, IndexId, PackId, SnapshotId, short
from mcp_backup.format.pack import pack_size
from mcp_backup.format.snapshot import decode_snapshot
from mcp_backup.format.tree import Node, decode_tree, is_safe_name
from mcp_backup.progress import Listener, Progress, nobody
from mcp_backup.repository.blob_index import BlobIndex
from mcp_backup.repository.concurrency import aside, for_each
from mcp_backup.repository.keys import load_key_file
from mcp_backup.repository.objects import about, identity_in, pack_name
from mcp_backup.repository.pack_examining import PackExaminer, in_threads
from mcp_backup.repository.repository import Repository
from mcp_backup.tasks import task_group
from mcp_backup.verbs import CheckFinding, CheckReport, Level

_PACKS_AT_ONCE = 2  # one being examined, one being fetched
_TYPES = frozenset(("file", "dir", "symlink", "dev", "chardev", "fifo", "socket"))
_WRONG = (IntegrityError, UnsupportedFormat, ObjectMissing)


async def check(
    repository: Repository,
    level: Level = Level.STRUCTURE,
    listener: Listener = nobody,
    *,
    examine: PackExaminer | None = None,
) -> CheckReport:
    """Check the repository and report what is wrong. A cancel leaves nothing behind.

    `examine` reads one pack that is there and judges it; by default that happens in threads.
    """
    began = anyio.current_time()
    checker = _Checker(repository, listener, examine or in_threads(repository))
    await checker.openers()
    roots = await checker.snapshots()
    await checker.index_files()
    packs = await checker.packs(whole=level != Level.STRUCTURE)
    async with task_group() as tasks:  # trees keep this process busy, packs its workers
        tasks.start_soon(checker.trees, roots)
        if level != Level.STRUCTURE:
            await for_each(checker.pack, packs, _PACKS_AT_ONCE)
    return CheckReport(
        level=Level(level),
        findings=(*checker.findings, *checker.in_packs),
        snapshots=len(roots),
        packs=checker.index.pack_count,
        blobs=len(checker.index),
        read_bytes=checker.read_bytes,
        duration_seconds=anyio.current_time() - began,
    )


class _Place(Struct, frozen=True):
    """A tree to look at, and how the walk came to it first."""

    tree: BlobId
    snapshot: SnapshotId
    path: str


class _Checker(Struct):
    """One check under way."""

    repository: Repository
    listener: Listener
    examine: PackExaminer
    findings: list[CheckFinding] = field(default_factory=list)
    in_packs: list[CheckFinding] = field(default_factory=list)  # those of the packs' bytes
    index: BlobIndex = field(default_factory=BlobIndex)
    read_bytes: int = 0
    _seen: bytearray = field(default_factory=bytearray)  # a bit for each entry of the index
    _absent: set[BlobId] = field(default_factory=set)  # trees in no index, reported
    _sizes: dict[str, int] = field(default_factory=dict)  # packs in the store
    _judging: anyio.Lock = field(default_factory=anyio.Lock)  # a parsed tree is ten times its bytes
    _done: int = 0
    _total: int = 0

    def report(self, code: str, subject: str, error: BackupError | str) -> None:
        self.findings.append(CheckFinding(code, subject, str(error)))

    async def openers(self) -> None:
        """Look at what opens the repository: its keys and its config."""
        for name in await self.repository.store.objects("keys/"):
            try:
                await load_key_file(self.repository.store, name)
            except _WRONG as error:
                self.report("damaged-key", name, error)
        try:
            sealed = await self.repository.store.get("config")
            with about("config"):
                if decode_config(Sealer(self.repository.key).unseal(sealed)).id != (
                    self.repository.config.id
                ):
                    self.report("damaged-config", "config", "config: another repository's")
        except _WRONG as error:
            self.report("damaged-config", "config", error)

    async def snapshots(self) -> list[_Place]:
        """Read every snapshot, and return their trees."""
        roots: list[_Place] = []

        async def load(name: str) -> None:
            identity = SnapshotId(identity_in(name))
            try:
                document = await self.repository.load_unpacked("snapshots", identity)
                with about(name):
                    roots.append(_Place(decode_snapshot(document).tree, identity, "/"))
            except _WRONG as error:
                self.report("damaged-snapshot", name, error)

        await for_each(load, await self._listed("snapshots/"))
        return roots

    async def index_files(self) -> None:
        """Read every index file into an index of our own."""
        for name in await self._listed("index/"):
            try:
                listings = await self.repository.load_listings(IndexId(identity_in(name)))
            except _WRONG as error:
                self.report("damaged-index", name, error)
                continue
            for pack, listing in listings:
                self.index.add_packed(pack, listing)
        self._seen = bytearray(len(self.index) // 8 + 1)

    async def _listed(self, prefix: str) -> list[str]:
        objects = await self.repository.store.objects(prefix)
        self.read_bytes += sum(objects.values())
        return sorted(objects)

    async def packs(self, *, whole: bool) -> list[PackId]:
        """Compare the packs in the store with the index; return those that are there."""
        self._sizes = dict(await self.repository.store.objects("data/"))
        found, tree_bytes = await to_thread.run_sync(self._compare_packs)
        self._total = tree_bytes
        if whole:
            self._total += sum(self._sizes[pack_name(pack)] for pack in found)
        return found

    def _compare_packs(self) -> tuple[list[PackId], int]:
        found, tree_bytes = [], 0
        for pack in self.index.packs():
            from_thread.check_cancelled()
            name, entries = pack_name(pack), self.index.entries(pack)
            tree_bytes += sum(e.length for e in entries if e.kind is BlobKind.TREE)
            if name not in self._sizes:
                self.report("missing-pack", name, f"{name}: {len(entries)} blobs, and no such pack")
                continue
            found.append(pack)
            there, wanted = self._sizes[name], pack_size(entries)
            if there != wanted:
                code = "truncated-pack" if there < wanted else "damaged-pack"
                self.report(code, name, f"{name}: {there} bytes, wanted {wanted}")
        return found, tree_bytes

    async def trees(self, roots: Iterable[_Place]) -> None:
        """Walk all trees, each once, with a list of what is still to do instead of recursion."""
        pending = list(roots)

        async def visit(place: _Place) -> None:
            pending.extend(await self._visit(place))

        while pending:
            batch, pending[-8:] = pending[-8:], []
            await for_each(visit, batch)

    async def _visit(self, place: _Place) -> list[_Place]:
        position = self.index.position(BlobKind.TREE, place.tree)
        if position is None:
            if place.tree not in self._absent:
                self._absent.add(place.tree)
                subject = f"tree {place.tree.hex()}"
                self.report("missing-blob", subject, f"{_whose(place)}: {subject} is in no index")
            return []
        if self._seen[position >> 3] >> (position & 7) & 1:
            return []
        self._seen[position >> 3] |= 1 << (position & 7)
        data = await self._load(place)
        if data is None:
            return []
        async with self._judging:
            return await aside(len(data), lambda: self._judge(place, data))

    async def _load(self, place: _Place) -> bytes | None:
        problem: BackupError | None = None
        for location in self.index.find_all(BlobKind.TREE, place.tree):
            self.read_bytes += location.length
            await self._progress("trees", location.length)
            try:
                return await self.repository.load_at(BlobKind.TREE, place.tree, location)
            except _WRONG as error:
                problem = problem or error
        self.report("damaged-tree", f"tree {place.tree.hex()}", f"{_whose(place)}: {problem}")
        return None

    def _judge(self, place: _Place, data: bytes) -> list[_Place]:
        subject = f"tree {place.tree.hex()}"
        try:
            nodes = decode_tree(data)
        except IntegrityError as error:
            self.report("damaged-tree", subject, f"{_whose(place)}: {error}")
            return []
        names: set[str] = set()
        children = []
        for node in nodes:
            for code, fact in self._nonsense(node, names):
                self.report(code, subject, f"{_whose(place, node)}: {fact}")
            names.add(node.name)
            if node.subtree is not None:
                children.append(_Place(node.subtree, place.snapshot, _join(place.path, node)))
        return children

    def _nonsense(self, node: Node, names: set[str]) -> Iterable[tuple[str, str]]:
        if not is_safe_name(node.name):
            yield "damaged-tree", f"{node.name!r} cannot be a name in a directory"
        if node.name in names:
            yield "damaged-tree", "is there twice"
        if node.type not in _TYPES:
            yield "damaged-tree", f"is of unknown type {node.type!r:.40}"
        if node.content is None:
            return
        missing, size = [], 0
        for blob, found in self.index.find_each(BlobKind.DATA, node.content):
            if found is None:
                missing.append(blob)
            else:
                size += found.size
        if missing:
            first = f"first {missing[0].hex()}"
            total = len(node.content)
            yield "missing-blob", f"{len(missing)} of {total} blobs are in no index, {first}"
        elif size != node.size:
            yield "wrong-size", f"its blobs are {size} bytes, wanted {node.size}"

    async def pack(self, pack: PackId) -> None:
        """Have one pack examined, byte by byte."""
        name = pack_name(pack)
        try:
            self.in_packs += await self.examine(pack, self.index.entries(pack))
        except _WRONG as error:
            self.in_packs.append(CheckFinding("damaged-pack", name, str(error)))
        self.read_bytes += self._sizes[name]
        await self._progress("packs", self._sizes[name])

    async def _progress(self, subject: str, length: int) -> None:
        self._done = min(self._done + length, self._total)
        await self.listener(Progress("check", subject, self._done, self._total))


def _join(path: str, node: Node) -> str:
    return f"{path.rstrip('/')}/{node.name}"


def _whose(place: _Place, node: Node | None = None) -> str:
    path = place.path if node is None else _join(place.path, node)
    return f"{path!r} in snapshot {short(place.snapshot)}"
