"""Whether a copy of a DuckDB source is whole, and what its source saw when it was captured.

A copy is opened read-only: not a byte of it changes, and its write-ahead log is replayed in
memory alone. A file that a newer DuckDB wrote is stored all the same, and here it is said that it
could not be looked into.

Marks, by which a live database is recognised: `duckdb:<digest of all its values>`, "absent",
"damaged", or `unread:<digest of its bytes>`. Values and not bytes, since opening a database to
write, and closing it, moves them about.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from blake3 import blake3

from mcp_backup.errors import SourceBusy, SourceMissing, SourceUnreadable
from mcp_backup.sources.digest import of_path
from mcp_backup.sources.duckdb_asking import Fault, ask, require, unreadable
from mcp_backup.sources.duckdb_file import (
    FIRST_BLOCK,
    Shard,
    are_whole,
    below,
    beside,
    locked,
    refuse_foreign,
    shards_of,
)
from mcp_backup.sources.duckdb_layout import kept_shards, live_shard, staged_shards
from mcp_backup.sources.holders import holders_of, named
from mcp_backup.sources.shapes import either, mapped, number, record, rows_of, text, trusted
from mcp_backup.sources.source import Evidence, Finding, SourceSpec

ABSENT, DAMAGED = "absent", "damaged"
_SEEN = record({"storage_version": text, "schema": text, "content": text})
_FACTS = {
    "shards": mapped(either(record({"unread": text}), _SEEN)),
    "tables": mapped(number),
    "columns": mapped(rows_of(text, text)),
}
_Look = Callable[[str, Path, Evidence | None], Iterator[Finding]]  # at one database, by its key
_LOOKS = 5  # at headers that somebody is writing


def examine(directory: Path, evidence: Evidence | None) -> list[Finding]:
    """Examine every database in `directory`, and compare it with `evidence` if there is any.

    Raises:
        SourceUnreadable: there is none, or DuckDB is not installed.
        IntegrityError: the evidence is none.
    """
    return _compared(directory, evidence, _examined)


def opens(directory: Path, evidence: Evidence) -> list[Finding]:
    """See that DuckDB opens databases which were examined before, and that they are those.

    For bytes that are known to be those that `examine` was given: what it found, it would again.

    Raises:
        SourceUnreadable, IntegrityError: as of `examine`.
    """
    return _compared(directory, evidence, _opened)


def _compared(directory: Path, evidence: Evidence | None, look: _Look) -> list[Finding]:
    if evidence is not None:
        trusted(evidence.facts, _FACTS)
    found = {shard.key: shard.path for shard in below(directory)}
    if not found:
        raise SourceUnreadable(f"{directory} holds no DuckDB database")
    seen: Mapping[str, Any] = evidence.facts["shards"] if evidence else {}
    if set(seen) == {""} and len(found) == 1:
        found = {"": next(iter(found.values()))}
    findings = []
    for key in sorted(found.keys() | seen.keys()):
        if key not in found:
            findings.append(Finding("missing", key, "was captured and is not there"))
        elif evidence is not None and key not in seen:
            findings.append(Finding("extra", key, "is there and was not captured"))
        else:
            findings += look(key, found[key], evidence)
    return findings


def is_sound(spec: SourceSpec) -> bool:
    """Tell whether every live database opens, or, while somebody has it open, has whole headers."""
    try:
        shards = shards_of(spec.name, spec.path)
        for shard in shards:
            refuse_foreign(spec.name, shard)
    except SourceUnreadable:
        return False
    for shard in shards:
        if _is_held(shard):
            if not any(_has_whole_headers(shard) for _ in range(_LOOKS)):
                return False
        else:
            try:
                ask(spec.name, "peek", shard.path)
            except Fault as fault:
                if fault.why not in ("locked", "too-new"):
                    return False
    return True


def content_digest(name: str, path: Path) -> str:
    """Return the digest of all values in one database file, live or staged.

    Raises:
        SourceMissing, SourceUnreadable: as they say.
        SourceBusy: somebody has it open for writing.
    """
    shard = Shard("", path)
    mark = _mark(name, shard)
    if mark == ABSENT:
        raise SourceMissing(name, path)
    if mark == DAMAGED:
        raise SourceUnreadable(f"source {name!r}: {path} is damaged, or no DuckDB database")
    return mark


def signature(spec: SourceSpec, paths: Sequence[str]) -> dict[str, str]:
    """Return the marks of what is live at `paths`, keys of databases in the source.

    Raises:
        SourceBusy: somebody has one of them open for writing.
    """
    return {path: _mark(spec.name, live_shard(spec, path)) for path in paths}


def signature_of(spec: SourceSpec, directory: Path) -> dict[str, str]:
    """Return the marks of the databases that a staged copy, or an undo point, would make live."""
    kept = kept_shards(directory)
    shards = kept if kept is not None else staged_shards(spec, directory)
    return {shard.key: _mark(spec.name, shard) for shard in shards}


def reach(spec: SourceSpec) -> str:
    """Say in a clause what the source needs, and that it is there.

    Raises:
        SourceUnreadable: DuckDB is not installed, or what is there cannot be read.
    """
    require(spec.name)
    shards = shards_of(spec.name, spec.path)
    needs: set[str] = set()
    said: list[str] = []
    held = 0
    for shard in shards:
        refuse_foreign(spec.name, shard)
        if _is_held(shard):
            held += 1
            continue
        try:
            peeked = ask(spec.name, "peek", shard.path)
        except Fault as fault:
            if fault.why == "too-new":
                said.append(f"{shard.path} is stored and not looked into: {fault}")
                continue
            if fault.why != "locked":
                raise unreadable(spec.name, shard.path, fault) from fault
        else:
            needs |= set(peeked["extensions"])
    files = f"{len(shards)} DuckDB files below {spec.path}" if shards[0].key else spec.path
    parts = [f"{files} can be read"]
    if held:
        parts.append(f"{held} open for writing, of which proven copies are made")
    if needs:
        parts.append(f"to write to it a program needs {', '.join(sorted(needs))}")
    return "; ".join([*parts, *said])


def _examined(key: str, path: Path, evidence: Evidence | None) -> Iterator[Finding]:
    subject = key or path.name
    try:
        now = ask(subject, "look", path)
    except Fault as fault:
        yield _faulty(subject, fault)
        return
    if evidence is None or "unread" in evidence.facts["shards"][key]:
        return
    yield from _differences(key, subject, now, evidence)


def _opened(key: str, path: Path, _evidence: Evidence | None) -> Iterator[Finding]:
    subject = key or path.name
    try:
        ask(subject, "peek", path)
    except Fault as fault:
        yield _faulty(subject, fault)


def _faulty(subject: str, fault: Fault) -> Finding:
    if fault.why == "too-new":
        return Finding("not-examined", subject, f"its tables were not looked into: {fault}")
    return Finding("integrity", subject, f"not a whole DuckDB database: {fault}")


def _differences(
    key: str, subject: str, now: Mapping[str, Any], evidence: Evidence
) -> Iterator[Finding]:
    before = evidence.facts["shards"][key]
    if now["storage_version"] != before["storage_version"]:
        wanted = f"expected {before['storage_version']}, got {now['storage_version']}"
        yield Finding("storage-version", subject, wanted)
    differing = 0
    for fact, code in (("tables", "row-count"), ("columns", "types")):
        seen, found = _of_shard(key, evidence.facts[fact]), now[fact]
        for table in sorted(seen.keys() | found.keys()):
            then, is_now = seen.get(table, "no table"), found.get(table, "no table")
            if then != is_now:
                differing += 1
                yield Finding(code, table, f"expected {then}, got {is_now}")
    if differing or now["engine"] != evidence.engine:
        return  # another DuckDB may word a schema, and hash a value, in another way
    if now["schema"] != before["schema"]:
        yield Finding("schema", subject, "the schema is not the one that was captured")
    if now["content"] != before["content"]:
        yield Finding("content", subject, "the values are not those that were captured")


def _of_shard(key: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    if not key:
        return dict(facts)
    start = f"{key}:"
    return {name[len(start) :]: value for name, value in facts.items() if name.startswith(start)}


def _mark(name: str, shard: Shard) -> str:
    if not shard.path.exists():
        return ABSENT
    try:
        return f"duckdb:{ask(name, 'look', shard.path)['content']}"
    except Fault as fault:
        if fault.why == "locked":
            who = named(holders_of(str(path) for path in shard.family))
            raise SourceBusy(
                f"source {name!r}: {shard.path} is open in {who or 'another process'}",
                hint="Stop that program, then try again.",
            ) from fault
        return _unread(shard) if fault.why == "too-new" else DAMAGED


def _unread(shard: Shard) -> str:
    digests = [of_path(path) for path in (shard.path, beside(shard.path, ".wal")) if path.exists()]
    return f"unread:{blake3(' '.join(digests).encode()).hexdigest()}"


def _is_held(shard: Shard) -> bool:
    with locked(shard.path, alone=False) as descriptor:
        return descriptor is None


def _has_whole_headers(shard: Shard) -> bool:
    with open(shard.path, "rb", buffering=0) as file:
        return are_whole(file.read(FIRST_BLOCK))
