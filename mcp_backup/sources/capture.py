"""Sources as the event loop sees them: each operation in a worker process of its own.

A worker's failure arrives here as the error it raised; one that crashes is `WorkerDied` and names
the source. A cancel kills the worker at once, so what an operation promises under a kill is what
it promises under a cancel.
"""

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
from anyio import to_thread
from msgspec import Struct

from mcp_backup.arena import Arena
from mcp_backup.channel import Frame
from mcp_backup.record import asdict
from mcp_backup.sources import glance, wire
from mcp_backup.sources.kinds import GLANCED, MODULES, SILENT, KeptCopy, Rehearsal
from mcp_backup.sources.source import Component, Entry, Evidence, Finding, Holder, SourceSpec
from mcp_backup.sources.sqlite_file import mark
from mcp_backup.workers import Worker, worker

_MODULE = "mcp_backup.sources.worker"
# What forked workers share: of the kinds the one that nearly every backup has. DuckDB's library
# begins threads when it is loaded, and no thread survives a fork.
CAPTURING = (_MODULE, MODULES["sqlite"])
_GLANCE = Path(glance.__file__)


class Filled(Struct, frozen=True):
    """A slot full of the last entry's bytes; the receiver owns it and gives it back after use.

    `offset` is where they belong in the file, a multiple of SLOT_SIZE; offsets ascend, except
    that an image's first slot comes last. `segments` are 32 bytes of BLAKE3 for each started
    64 KiB.
    """

    slot: int
    offset: int
    length: int
    segments: bytes


class FileEnd(Struct, frozen=True):
    """All bytes of the last entry have come: its size in bytes, and its digest (`digest.py`)."""

    size: int
    digest: str


class Capture:
    """A capture under way: one consistent point in time, told in the order it is read."""

    def __init__(self, child: Worker) -> None:
        """Wrap a worker that was asked to capture; use `captured` to start one."""
        self._child = child
        self._sending = anyio.Lock(fast_acquire=True)

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._child.pid

    async def next(self) -> Entry | Filled | FileEnd | Evidence:
        """Wait for what comes next; the evidence comes last.

        Raises:
            SourceError: the source could not be read.
        """
        frame = await _received(self._child)
        match frame.kind:
            case "entry":
                return wire.entry_of(frame.fields)
            case "filled":
                return Filled(segments=frame.payload, **frame.fields)
            case "file_end":
                return FileEnd(**frame.fields)
            case _:
                return wire.evidence_of(frame.fields["value"])

    async def give(self, slot: int) -> None:
        """Hand the worker a free slot of the arena to fill. Several tasks may do so at once."""
        async with self._sending:
            await self._child.send("give", slot=slot)


@asynccontextmanager
async def captured(spec: SourceSpec, arena: Arena, scratch: Path) -> AsyncIterator[Capture]:
    """Capture `spec` for the duration of the block.

    `scratch` is an empty directory for the temporary copy that some captures need; it is empty
    again afterwards unless the worker was killed. An image needs two slots at least, given before
    the first `next`. A cancel kills the worker, which changed nothing.
    """
    async with worker(_MODULE, f"capturing source {spec.name!r}", arena) as child:
        await child.send("capture", spec=asdict(spec), scratch=str(scratch))
        yield Capture(child)


async def database_bytes(specs: Sequence[SourceSpec]) -> int:
    """Return about how much captures of the databases will read, without opening any."""

    def measure() -> int:
        total = 0
        for spec in specs:
            if spec.component is Component.DATABASES:
                with suppress(OSError):  # what is missing, its capture will say
                    total += os.stat(spec.path).st_size
        return total

    return await to_thread.run_sync(measure)


async def fingerprints(specs: Sequence[SourceSpec]) -> list[str]:
    """Identify the live state of sources, in one worker; "" while nothing sound can be said of it.

    Where all that is needed is a glance, the worker is one that can do no more.
    """
    asked = [spec for spec in specs if spec.kind not in SILENT]
    if not asked:
        return [""] * len(specs)
    if all(spec.kind in GLANCED for spec in asked):
        async with worker(_GLANCE, "looking for changes") as child:
            await child.send("glance", b"".join(os.fsencode(spec.path) + b"\0" for spec in asked))
            lines = (await _received(child)).payload.decode().split("\n")
        found = [mark(line) for line in lines]
    else:
        told = [asdict(spec) for spec in asked]
        value = await _asked("looking for changes", "fingerprints", specs=told)
        found = [str(text) for text in value]
    marks = iter(found)
    return ["" if spec.kind in SILENT else next(marks) for spec in specs]


async def examine(
    kind: str, directory: Path, evidence: Evidence | None, *, proven: bool = False
) -> list[Finding]:
    """Compare a staged copy with what was seen at its capture, without changing its bytes.

    What is `proven` was examined before, to the same byte: it may only have to open.
    """
    value = await _asked(
        f"examining {directory}",
        "examine",
        kind=kind,
        directory=str(directory),
        evidence=asdict(evidence) if evidence is not None else None,
        proven=proven,
    )
    return [Finding(**finding) for finding in value]


async def holders(spec: SourceSpec) -> list[Holder]:
    """Find the processes that have the source's files open, as far as we may see."""
    value = await _asked(f"finding who holds source {spec.name!r}", "holders", spec=asdict(spec))
    return [Holder(**holder) for holder in value]


async def is_sound(spec: SourceSpec) -> bool:
    """Tell whether a live database opens and its schema can be read. Changes nothing.

    Raises:
        SourceMissing: there is none.
        SourceBusy: it cannot be read for now.
    """
    return bool(await _asked(f"looking at source {spec.name!r}", "is_sound", spec=asdict(spec)))


async def content_digest(name: str, path: Path, kind: str = "sqlite") -> str:
    """Identify the content of a database file, live or staged, by the digest of its image.

    Two files with the same tables, rows and page layout have the same digest, also when one was
    copied into the other: what such a copy changes in the header is masked. A transaction that a
    crash left unfinished is rolled back first, by the database's own means.

    Raises:
        SourceMissing: there is no such file.
        SourceUnreadable: it is damaged, or no database.
        SourceBusy: it cannot be read for now.
    """
    return str(
        await _asked(
            f"reading source {name!r}", "content_digest", kind=kind, name=name, path=str(path)
        )
    )


async def signature(spec: SourceSpec, paths: Sequence[str]) -> dict[str, str]:
    """Identify what is live at each of the paths of a source that is not files.

    Raises:
        SourceUnreadable: it cannot be asked.
    """
    value = await _asked(
        f"asking source {spec.name!r}", "signature", spec=asdict(spec), paths=list(paths)
    )
    return {str(path): str(mark) for path, mark in value.items()}


async def signature_of(spec: SourceSpec, directory: Path) -> dict[str, str]:
    """Identify what a staged copy of a source that is not files would make live, by path."""
    value = await _asked(
        f"examining {directory}", "signature_of", spec=asdict(spec), directory=str(directory)
    )
    return {str(path): str(mark) for path, mark in value.items()}


async def reach(spec: SourceSpec) -> str:
    """Say in a clause that everything a source that is not files needs is there.

    Raises:
        SourceUnreadable: something is not; it says what.
    """
    return str(await _asked(f"reaching source {spec.name!r}", "reach", spec=asdict(spec)))


async def prepare(spec: SourceSpec, staged: Path, evidence: Evidence | None) -> None:
    """Make of a staged copy, on its server, what `place` will exchange, and examine it.

    A cancel leaves what `discard` removes.

    Raises:
        StagingRejected: what was made is not what was captured.
        SourceError: the server refuses.
    """
    await _asked(
        f"restoring source {spec.name!r} beside itself",
        "prepare",
        spec=asdict(spec),
        staged=str(staged),
        evidence=asdict(evidence) if evidence is not None else None,
    )


async def rehearse(
    spec: SourceSpec, staged: Path, directory: Path, evidence: Evidence | None
) -> Rehearsal:
    """Make of a staged copy, on a server, one that never goes live, and examine it.

    It is noted in `directory`, and stays until `discard`; a cancel leaves what that removes.

    Raises:
        IntegrityError: what is staged is no copy of that kind.
    """
    value = await _asked(
        f"restoring source {spec.name!r} for a drill",
        "rehearse",
        spec=asdict(spec),
        staged=str(staged),
        directory=str(directory),
        evidence=asdict(evidence) if evidence is not None else None,
    )
    findings = tuple(Finding(**finding) for finding in value["findings"])
    return Rehearsal(findings, tuple(value["notes"]), value["unable"])


async def discard(spec: SourceSpec, directory: Path) -> None:
    """Remove from a server what is noted in `directory`: a staged copy's, a drill's or kept.

    What is live, or not ours, stays. Does nothing where nothing is noted; may be repeated.

    Raises:
        SourceError: the server cannot be asked.
    """
    await _asked(
        f"clearing away after source {spec.name!r}",
        "discard",
        spec=asdict(spec),
        directory=str(directory),
    )


async def look(spec: SourceSpec) -> tuple[str, int]:
    """Return the signature of what a server has live, and its bytes, 0 when there is nothing."""
    mark, size = await _asked(f"looking at source {spec.name!r}", "look", spec=asdict(spec))
    return str(mark), int(size)


async def keep(spec: SourceSpec, directory: Path, staged: Path | None = None) -> KeptCopy:
    """Save what placing `staged` would change into the empty `directory`, durably.

    A database is kept whole and needs no `staged`; a file set does, since what the backup does
    not name is neither changed nor kept. Changes nothing live. A cancel leaves a directory that
    `put_back` refuses.

    Raises:
        TargetBusy: a process holds the live file longer than we wait.
    """
    value = await _asked(
        f"keeping source {spec.name!r}",
        "keep",
        spec=asdict(spec),
        directory=str(directory),
        staged=str(staged) if staged is not None else "",
    )
    return KeptCopy(**value)


async def place(spec: SourceSpec, staged: Path) -> list[str]:
    """Put the copy in the directory `staged` live, at `spec.path`: the exchange itself.

    A database is exchanged in one transaction of its own: a cancel or a crash leaves the old
    content or the new. A file set is exchanged file by file. Returns notes for people.

    Raises:
        TargetBusy: a process holds the live file; nothing was changed.
        RestoreError: the live path cannot be written.
    """
    notes = await _asked(
        f"restoring source {spec.name!r}", "place", spec=asdict(spec), staged=str(staged)
    )
    return [str(note) for note in notes]


async def put_back(spec: SourceSpec, directory: Path) -> list[str]:
    """Make live again what `keep` saved in `directory`; return notes for people.

    A crash or a cancel may leave it half done where raw files are put back; do it again then.

    Raises:
        TargetBusy: a process holds the live file; nothing was changed.
        RestoreError: `directory` is not a complete undo point.
    """
    notes = await _asked(
        f"putting back source {spec.name!r}",
        "put_back",
        spec=asdict(spec),
        directory=str(directory),
    )
    return [str(note) for note in notes]


async def value_of(
    kind: str, directory: Path, query: str, seconds: float
) -> int | float | str | None:
    """Return the first value that a query gives on a staged copy of a database.

    It may only read, and takes at most about that many seconds. None is a value that is neither
    number nor text.

    Raises:
        SourceUnreadable: the query is refused, fails, gives no row, or takes too long.
    """
    value = await _asked(
        f"asking {directory}",
        "value_of",
        kind=kind,
        directory=str(directory),
        query=query,
        seconds=seconds,
    )
    return value if isinstance(value, int | float | str) else None


async def value_in(
    spec: SourceSpec, directory: Path, query: str, seconds: float
) -> int | float | str | None:
    """Do what `value_of` does on what `rehearse` made and noted in `directory`.

    Raises:
        SourceUnreadable: the query is refused, fails, gives no row, or takes too long.
    """
    value = await _asked(
        f"asking the copy of source {spec.name!r}",
        "value_in",
        spec=asdict(spec),
        directory=str(directory),
        query=query,
        seconds=seconds,
    )
    return value if isinstance(value, int | float | str) else None


async def export_sql(image: Path, out: Path) -> str:
    """Write a database image as SQL text to `out`; return how it was proven to be exact.

    A cancel leaves a part of `out`.

    Raises:
        NotExportable: the image holds what SQL cannot carry.
    """
    proof = await _asked(f"exporting {image.name}", "export_sql", image=str(image), out=str(out))
    return str(proof)


async def _asked(task: str, operation: str, **fields: Any) -> Any:
    async with worker(_MODULE, task) as child:
        await child.send(operation, **fields)
        return (await _received(child)).fields["value"]


async def _received(child: Worker) -> Frame:
    frame = await child.receive()
    if frame.kind == "error":
        raise wire.error_of(frame.fields["value"])
    return frame
