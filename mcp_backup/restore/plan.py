"""The plan: what a restore would do, worked out without doing any of it.

Names come from the backup, places from the settings: a manifest says which sources a backup
holds and where they lay then, and never where they go. So a hostile repository cannot choose
what is written over.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from msgspec import Struct

from mcp_backup.errors import IntegrityError, RestoreError, UnknownSource, UsageError
from mcp_backup.format.ids import BlobId, SnapshotId
from mcp_backup.format.tree import is_safe_name
from mcp_backup.manifest import Manifest, SourceRecord
from mcp_backup.restore.seen import Seen, named
from mcp_backup.restore.signatures import ABSENT
from mcp_backup.sources import documents
from mcp_backup.sources.source import SERVED, Component, Holder, SourceSpec
from mcp_backup.verbs_restores import PlannedTarget, RestoreRequest

_FILES = frozenset({"sqlite", "duckdb"})  # kinds of one file, most of which a restore leaves alone


class Origin(Struct, frozen=True):
    """The backup to restore from. `manifest` is None when another program made the snapshot."""

    backup_id: str
    snapshot_id: SnapshotId
    tree: BlobId
    time: datetime
    manifest: Manifest | None


class Choice(Struct, frozen=True):
    """One source to restore. `spec` is what the settings say of it now, if they do."""

    record: SourceRecord
    spec: SourceSpec | None

    @property
    def key(self) -> str:
        """Return the name under which plans and journals know it: "databases/notes"."""
        return f"{self.record.component}/{self.record.name}"


def live_file(choice: Choice) -> Path | None:
    """Return the live file that may hold much of what is restored; None for what is no file."""
    if choice.spec is None or choice.spec.kind not in _FILES:
        return None
    return Path(choice.spec.path)


class Chosen(Struct, frozen=True):
    """What a request comes to: the sources, and what a person should know about the others."""

    choices: tuple[Choice, ...]
    warnings: tuple[str, ...]


def choose(origin: Origin, request: RestoreRequest, specs: Sequence[SourceSpec]) -> Chosen:
    """Select what to restore. What was asked for by name and cannot be is an error, else a warning.

    Database names alone mean those databases; with components, these as well.

    Raises:
        UnknownSource: a name that the backup does not have.
        RestoreError: a named source failed in that backup, or is no longer in the settings.
        UsageError: nothing is left to restore; components of a snapshot that has none.
        IntegrityError: the manifest names a source twice, or by what is no name.
    """
    if origin.manifest is None:
        return _foreign(origin, request)
    _judge(origin.manifest)
    wanted = _wanted(origin.manifest, request)
    by_name = frozenset(request.databases)
    configured = {(spec.component, spec.name): spec for spec in specs}
    choices: list[Choice] = []
    warnings: list[str] = []
    for record in wanted:
        spec = configured.get((record.component, record.name))
        trouble = _trouble(record, spec, request, origin)
        if trouble is None:
            choices.append(Choice(record, spec))
        elif record.component is Component.DATABASES and record.name in by_name:
            raise trouble
        else:
            warnings.append(f"{trouble}; it is left out")
    held = {record.component for record in wanted}
    warnings += [
        f"{origin.backup_id} holds nothing of {component}"
        for component in request.components
        if component not in held
    ]
    if not choices:
        raise _nothing(origin, request, warnings)
    return Chosen(tuple(choices), tuple(warnings))


def planned(choice: Choice, seen: Seen, size: int, holders: Sequence[Holder]) -> PlannedTarget:
    """Word what a restore would do to one live source. `size` is the backup's, in bytes."""
    record = choice.record
    return PlannedTarget(
        source=record.name,
        component=record.component,
        kind=record.kind,
        original=seen.path,
        live_state=seen.state,
        live_bytes=seen.size,
        backup_bytes=size,
        action="create" if seen.state == "absent" else "replace",
        holders=tuple(holders),
    )


def staged_only(record: SourceRecord, size: int) -> PlannedTarget:
    """Word a source that only goes to scratch."""
    return PlannedTarget(
        source=record.name,
        component=record.component,
        kind=record.kind,
        original=record.original,
        live_state="absent",
        live_bytes=0,
        backup_bytes=size,
        action="stage",
    )


def lost(choice: Choice, seen: Seen, taken: datetime) -> str:
    """Say in a sentence what the live side holds that the backup, taken then, does not; or ""."""
    if choice.record.kind == "workflows":
        return _changed_documents(choice.record, seen)
    if seen.state == "absent":
        return ""
    if choice.record.kind == "files":
        return _lost_files(choice.record, seen)
    sentences = []
    if seen.changed_ns > taken.timestamp() * 1e9:
        changed = datetime.fromtimestamp(seen.changed_ns // 10**9, UTC)
        sentences.append(
            f"changes since {taken:%Y-%m-%d %H:%M:%S} UTC would be lost: "
            f"the live file last changed {changed:%Y-%m-%d %H:%M:%S} UTC"
        )
    elif choice.record.kind in SERVED:
        sentences.append(f"what was written since {taken:%Y-%m-%d %H:%M:%S} UTC would be lost")
    excluded = _excluded(choice.record)
    if excluded:
        sentences.append(f"{named('would be empty', excluded)}: excluded from backups")
    return "; ".join(sentences)


def cautions(choice: Choice, seen: Seen, holders: Sequence[Holder]) -> list[str]:
    """Return what a person should know about one target before approving."""
    found = []
    record = choice.record
    if seen.state == "damaged":
        found.append(
            f"{record.name}: the live file is damaged; it is kept as it is in the undo point"
        )
    if record.findings:
        codes = ", ".join(sorted({finding.code for finding in record.findings}))
        found.append(f"{record.name}: the source itself had findings when backed up: {codes}")
    if holders:
        who = ", ".join(sorted({f"{holder.command} ({holder.pid})" for holder in holders}))
        ended = ", whose connections would be ended" if record.kind in SERVED else ""
        found.append(f"{record.name}: in use by {who}{ended}")
    return found


def _judge(manifest: Manifest) -> None:
    keys = [(record.component, record.name) for record in manifest.sources]
    if len(set(keys)) != len(keys):
        raise IntegrityError("manifest.json names a source twice")
    for _component, name in keys:
        if not is_safe_name(name):
            raise IntegrityError(f"manifest.json names a source {name!r:.80}")


def _wanted(manifest: Manifest, request: RestoreRequest) -> list[SourceRecord]:
    databases = {
        record.name for record in manifest.sources if record.component is Component.DATABASES
    }
    for name in request.databases:
        if name not in databases:
            raise UnknownSource(name, sorted(databases))
    components = set(request.components)
    if not components and not request.databases:
        components = set(Component)
    if request.databases:
        components.discard(Component.DATABASES)
    return [
        record
        for record in manifest.sources
        if record.component in components
        or (record.component is Component.DATABASES and record.name in request.databases)
    ]


def _trouble(
    record: SourceRecord, spec: SourceSpec | None, request: RestoreRequest, origin: Origin
) -> RestoreError | None:
    if record.outcome == "failed" or not record.tree or record.evidence is None:
        why = f": {record.failure.message}" if record.failure else ""
        return RestoreError(
            f"{record.component}/{record.name} was not captured in {origin.backup_id}{why}",
            hint=f"Choose another backup: list_backups with source={record.name}. "
            "Nothing was touched.",
        )
    if request.target == "scratch":
        return None
    if spec is not None and spec.kind == "workflows" and not spec.options["restore"]:
        return RestoreError(
            f"{record.component}/{record.name} cannot be given back: the settings name no tool",
            hint="Name one as `restore` of the source, or restore with target=scratch and give "
            "the documents back yourself. Nothing was touched.",
        )
    if spec is None or spec.kind != record.kind:
        says = "no longer have it" if spec is None else f"now say it is of kind {spec.kind}"
        return RestoreError(
            f"{record.component}/{record.name} has no place to go back to: the settings {says}",
            hint="Add it to the settings again, or restore with target=scratch. "
            "Nothing was touched.",
        )
    return None


def _foreign(origin: Origin, request: RestoreRequest) -> Chosen:
    if request.target != "scratch" or request.components or request.databases:
        raise UsageError(
            f"snapshot {origin.backup_id} was not made by mcp-backup, "
            "so nothing tells which sources are in it",
            hint="Restore all of it with target=scratch and without components or databases. "
            "Nothing was touched.",
        )
    return Chosen((), ("made by another program: there is no evidence to compare it with",))


def _nothing(origin: Origin, request: RestoreRequest, warnings: Sequence[str]) -> UsageError:
    asked = ", ".join(request.components) or "everything"
    why = f" ({'; '.join(warnings)})" if warnings else ""
    return UsageError(
        f"{origin.backup_id} holds nothing of {asked} that can be restored{why}",
        hint="Choose another backup, or other components. Nothing was touched.",
    )


def _lost_files(record: SourceRecord, seen: Seen) -> str:
    """Name the files that differ from the backup; what is only live is left alone."""
    stored: Mapping[str, str] = (
        {file.path: file.digest for file in record.evidence.files} if record.evidence else {}
    )
    other = [
        path
        for path, what in sorted(seen.signature.items())
        if path in stored and what != ABSENT and not what.endswith(stored[path])
    ]
    of = f"of {len(stored)} files differ from the backup and would be replaced"
    return f"{len(other)} {of}: {named('', other).strip()}" if other else ""


def _changed_documents(record: SourceRecord, seen: Seen) -> str:
    """Say which documents would be created, changed and left."""
    stored = documents.marks(record.evidence)
    created = [path for path in sorted(stored) if seen.signature.get(path, ABSENT) == ABSENT]
    changed = [
        path
        for path, mark in sorted(stored.items())
        if path not in created and seen.signature[path] != mark
    ]
    parts = [
        f"{len(paths)} would be {what}: {named('', paths).strip()}"
        for what, paths in (("created", created), ("changed", changed))
        if paths
    ]
    same = len(stored) - len(created) - len(changed)
    return "; ".join([*parts, f"{same} of {len(stored)} documents are as in the backup"])


def _excluded(record: SourceRecord) -> list[str]:
    facts = record.evidence.facts if record.evidence else {}
    excluded = facts.get("excluded", [])
    return sorted(map(str, excluded)) if isinstance(excluded, list) else []
