"""Examining: a source of a backup, staged and compared with what was seen at its capture."""

from collections.abc import Callable, Coroutine
from pathlib import Path

from anyio import to_thread
from msgspec import Struct
from msgspec.structs import replace

from mcp_backup.errors import StagingRejected
from mcp_backup.format.ids import BlobId
from mcp_backup.manifest import SourceRecord
from mcp_backup.progress import Listener, Progress, nobody
from mcp_backup.repository.pool import SealingPool
from mcp_backup.repository.repository import Repository
from mcp_backup.restore.stager import Write, in_bulk, one_by_one, stage, subtree
from mcp_backup.sources import capture, sqlite_digest
from mcp_backup.sources.digest import of_path
from mcp_backup.sources.kinds import OPENED
from mcp_backup.sources.source import Finding
from mcp_backup.tasks import task_group

_MOST_NAMED = 5  # findings in one message
_NOT_EXAMINED = "not-examined"  # says what nobody here can read; its bytes were compared


class Means(Struct, frozen=True):
    """What staging works with. Without a pool, blobs are fetched one by one: for small things.

    What the file `local` has, is taken from there: it is proven like what the repository has, and
    examined all the same. None where it is the repository that is to be proven.
    """

    repository: Repository
    pool: SealingPool | None = None
    listener: Listener = nobody
    local: Path | None = None

    @property
    def write(self) -> Write:
        """Return the writer of file contents."""
        if self.pool is None:
            return one_by_one(self.repository)
        return in_bulk(self.repository, self.pool, self.listener, self.local)

    def beside(self, local: Path | None) -> "Means":
        """Return the same with a file that may hold much of what is to be staged."""
        return replace(self, local=local)


class Staged(Struct, frozen=True):
    """A source, staged: the bytes of its files, and how it differs from what was captured.

    `findings` holds what the source itself had when it was backed up, `unexpected` does not.
    `content` is the content digest of a database where its bytes alone tell it, else "".
    """

    size: int
    findings: tuple[Finding, ...]
    unexpected: tuple[Finding, ...]
    content: str = ""


class _Read(Struct, frozen=True):
    """What one reading of a staged copy's bytes told."""

    findings: list[Finding]
    content: str = ""


async def nothing() -> None:
    """Do nothing meanwhile."""


async def stage_source(
    means: Means,
    root: BlobId,
    record: SourceRecord,
    directory: Path,
    meanwhile: Callable[[], Coroutine[object, object, None]] = nothing,
) -> Staged:
    """Stage one source of the snapshot with tree `root` into a new directory, and examine it.

    `meanwhile` is done while it is examined.

    Raises:
        StagingRejected, IntegrityError: what is stored is not what was captured, or hostile.
        RestoreError: the directory cannot be written.
    """
    await means.listener(Progress("stage", record.name, 0, record.read))
    tree = await subtree(means.repository, root, record.tree)
    size = await stage(means.repository, tree, directory, means.write)
    await means.listener(Progress("examine", record.name, 0, size))
    findings, content = await _examined(record, directory, meanwhile, proven=is_proven(record))
    known = {(finding.code, finding.subject) for finding in record.findings}
    unexpected = [
        item
        for item in findings
        if (item.code, item.subject) not in known and item.code != _NOT_EXAMINED
    ]
    return Staged(size, tuple(findings), tuple(unexpected), content)


def is_proven(record: SourceRecord) -> bool:
    """Tell whether a copy was examined at its backup, so that it need only be the same now."""
    return record.verified and record.evidence is not None and bool(record.evidence.files)


async def examined(record: SourceRecord, directory: Path) -> list[Finding]:
    """Compare a staged copy with what was seen at its capture: its bytes, and what they mean."""
    findings, _ = await _examined(record, directory, nothing)
    return findings


async def _examined(
    record: SourceRecord,
    directory: Path,
    meanwhile: Callable[[], Coroutine[object, object, None]],
    *,
    proven: bool = False,
) -> tuple[list[Finding], str]:
    findings: list[Finding] = []

    async def examine() -> None:
        findings.extend(
            await capture.examine(record.kind, directory, record.evidence, proven=proven)
        )

    async with task_group() as tasks:  # one reads the bytes, the other what they mean
        tasks.start_soon(examine)
        tasks.start_soon(meanwhile)
        read = await to_thread.run_sync(_read, record, directory)
    return read.findings + findings, read.content


def _read(record: SourceRecord, directory: Path) -> _Read:
    """Compare the bytes of a database, end to end; file sets do that in their examination."""
    if record.kind == "files" or record.evidence is None:
        return _Read([])
    findings, content = [], ""
    for file in record.evidence.files:
        path, found = directory / file.path, "no file"
        if path.is_file() and not path.is_symlink():
            if record.kind == "sqlite":
                image = sqlite_digest.of_image(path)
                found, content = image.bytes, image.content
            else:
                found = of_path(path)
        if found != file.digest:
            message = f"expected {file.digest}, got {found}"
            findings.append(Finding("digest", file.path, message))
    if record.kind in OPENED:  # a log that nobody captured would be replayed
        known = {file.path for file in record.evidence.files}
        findings += [
            Finding("extra", path, "is there and was not captured")
            for path in sorted(_files_below(directory) - known)
        ]
    return _Read(findings, content if len(record.evidence.files) == 1 else "")


def _files_below(directory: Path) -> set[str]:
    """Return the paths of all that is below a directory and is none itself."""
    return {
        path.relative_to(directory).as_posix()
        for path in directory.rglob("*")
        if path.is_symlink() or not path.is_dir()
    }


def refuse(record: SourceRecord, staged: Staged) -> None:
    """Let nothing live be exchanged for a copy that is not what was captured.

    Raises:
        StagingRejected: there are unexpected findings; the message names them.
    """
    if not staged.unexpected:
        return
    listed = "; ".join(
        f"{finding.code} {finding.subject}: {finding.message}"
        for finding in staged.unexpected[:_MOST_NAMED]
    )
    more = len(staged.unexpected) - _MOST_NAMED
    raise StagingRejected(
        f"{record.component}/{record.name}: {listed}{f' and {more} more' if more > 0 else ''}",
        hint="Use another backup, and run `mcp-backup verify --level data`. "
        "Nothing live was touched.",
    )
