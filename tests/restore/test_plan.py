"""What a request comes to: names from the backup, places from the settings."""

from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from mcp_backup.errors import IntegrityError, RestoreError, UnknownSource, UsageError
from mcp_backup.format.ids import BlobId, SnapshotId
from mcp_backup.manifest import Failure, Manifest, SourceRecord
from mcp_backup.restore.plan import Choice, Origin, cautions, choose, lost, planned
from mcp_backup.restore.seen import Seen
from mcp_backup.sources.source import (
    Component,
    Evidence,
    FileEvidence,
    Finding,
    Holder,
    SourceSpec,
)
from mcp_backup.verbs_restores import RestoreRequest

TAKEN = datetime(2026, 11, 22, 11, 0, tzinfo=UTC)


def record(name: str, component: Component = Component.DATABASES) -> SourceRecord:
    kind = "sqlite" if component is Component.DATABASES else "files"
    return SourceRecord(
        name=name,
        component=component,
        kind=kind,
        outcome="stored",
        original="/etc/shadow",  # what a hostile manifest would like to write over
        tree=f"{component}/{name}",
        chunk_size=4096,
        read=8192,
        added=100,
        duration_seconds=0.1,
        evidence=Evidence(kind, (FileEvidence(".env", "/srv/.env", 5, "segments:aa"),)),
        failure=None,
    )


def spec(name: str, component: Component = Component.DATABASES) -> SourceSpec:
    kind = "sqlite" if component is Component.DATABASES else "files"
    return SourceSpec(name, component, kind, f"/live/{name}")


def origin(*records: SourceRecord) -> Origin:
    manifest = Manifest("backup_1", "full", "completed", "", "", "", tuple(records))
    return Origin("backup_1", SnapshotId(bytes(32)), BlobId(bytes(32)), TAKEN, manifest)


EVERYTHING = origin(record("notes"), record("memory"), record("agent", Component.CONFIG))
SPECS = [spec("notes"), spec("memory"), spec("agent", Component.CONFIG)]


def keys(request: RestoreRequest, of: Origin = EVERYTHING) -> list[str]:
    return [choice.key for choice in choose(of, request, SPECS).choices]


def test_components_and_databases_select() -> None:
    everything = ["databases/notes", "databases/memory", "config/agent"]
    assert keys(RestoreRequest()) == everything
    assert keys(RestoreRequest(components=(Component.CONFIG,))) == ["config/agent"]
    assert keys(RestoreRequest(components=(Component.DATABASES,))) == everything[:2]
    assert keys(RestoreRequest(databases=("memory",))) == ["databases/memory"]
    both = RestoreRequest(components=(Component.CONFIG,), databases=("memory",))
    assert keys(both) == everything[1:]
    narrowed = RestoreRequest(components=(Component.DATABASES,), databases=("memory",))
    assert keys(narrowed) == ["databases/memory"]


def test_a_name_that_the_backup_does_not_have_is_refused_with_those_it_has() -> None:
    with pytest.raises(UnknownSource, match="'ghost'; there are: memory, notes"):
        choose(EVERYTHING, RestoreRequest(databases=("ghost",)), SPECS)


def test_a_place_comes_from_the_settings_and_never_from_the_backup() -> None:
    for choice in choose(EVERYTHING, RestoreRequest(), SPECS).choices:
        assert choice.spec is not None
        seen = Seen(choice.spec.kind, choice.spec.path, "absent")
        assert planned(choice, seen, 1, ()).original == f"/live/{choice.record.name}"


def test_a_source_no_longer_configured_goes_to_scratch_only() -> None:
    chosen = choose(EVERYTHING, RestoreRequest(), SPECS[1:])
    assert [choice.record.name for choice in chosen.choices] == ["memory", "agent"]
    assert "databases/notes has no place to go back to" in chosen.warnings[0]
    with pytest.raises(RestoreError, match="no place to go back to"):
        choose(EVERYTHING, RestoreRequest(databases=("notes",)), SPECS[1:])
    to_scratch = RestoreRequest(databases=("notes",), target="scratch")
    assert [choice.spec for choice in choose(EVERYTHING, to_scratch, SPECS[1:]).choices] == [None]


def test_a_source_of_another_kind_now_has_no_place() -> None:
    moved = [replace(SPECS[0], kind="duckdb")]
    with pytest.raises(RestoreError, match="now say it is of kind duckdb"):
        choose(EVERYTHING, RestoreRequest(databases=("notes",)), moved)


def test_a_source_that_failed_in_that_backup_is_named_with_its_reason() -> None:
    failed = replace(
        record("notes"),
        outcome="failed",
        tree="",
        evidence=None,
        failure=Failure("source-busy", "held by agent", ""),
    )
    partial = origin(failed, record("memory"))
    with pytest.raises(RestoreError, match="was not captured in backup_1: held by agent"):
        choose(partial, RestoreRequest(databases=("notes",)), SPECS)
    chosen = choose(partial, RestoreRequest(), SPECS)
    assert [choice.key for choice in chosen.choices] == ["databases/memory"]
    assert "held by agent" in chosen.warnings[0]
    with pytest.raises(UsageError, match="nothing of everything"):
        choose(origin(failed), RestoreRequest(), SPECS)


def test_a_component_of_which_there_is_nothing_is_told_beside_the_others() -> None:
    request = RestoreRequest(components=(Component.DATABASES, Component.WORKFLOWS))
    chosen = choose(EVERYTHING, request, SPECS)
    assert [choice.key for choice in chosen.choices] == ["databases/notes", "databases/memory"]
    assert chosen.warnings == ("backup_1 holds nothing of workflows",)


def test_nothing_of_a_component_is_an_error() -> None:
    with pytest.raises(UsageError, match="nothing of workflows"):
        choose(EVERYTHING, RestoreRequest(components=(Component.WORKFLOWS,)), SPECS)


@pytest.mark.parametrize("name", ["../../etc", "a/b", "", "..", "nul\0"])
def test_a_manifest_that_names_a_source_by_a_path_is_refused(name: str) -> None:
    with pytest.raises(IntegrityError, match="names a source"):
        choose(origin(record(name)), RestoreRequest(target="scratch"), SPECS)


def test_a_manifest_that_names_a_source_twice_is_refused() -> None:
    with pytest.raises(IntegrityError, match="twice"):
        choose(origin(record("notes"), record("notes")), RestoreRequest(), SPECS)


def test_a_snapshot_without_manifest_goes_to_scratch_as_a_whole() -> None:
    foreign = replace(EVERYTHING, manifest=None)
    assert choose(foreign, RestoreRequest(target="scratch"), SPECS).choices == ()
    for request in (
        RestoreRequest(),
        RestoreRequest(target="scratch", databases=("notes",)),
        RestoreRequest(target="scratch", components=(Component.CONFIG,)),
    ):
        with pytest.raises(UsageError, match="not made by mcp-backup"):
            choose(foreign, request, SPECS)


def test_what_would_be_lost_is_told() -> None:
    choice = Choice(record("notes"), SPECS[0])
    seen = Seen("sqlite", "/live/notes", "present", "1:2", {}, 4096)
    before, after = ((TAKEN.timestamp() + seconds) * 1e9 for seconds in (-60, 3600))
    assert lost(choice, replace(seen, changed_ns=int(before)), TAKEN) == ""
    told = lost(choice, replace(seen, changed_ns=int(after)), TAKEN)
    assert "changes since 2026-11-22 11:00:00 UTC would be lost" in told
    assert "last changed 2026-11-22 12:00:00 UTC" in told
    assert lost(choice, replace(seen, state="absent", changed_ns=int(after)), TAKEN) == ""


def test_tables_that_would_come_back_empty_are_told() -> None:
    evidence = Evidence("SQLite", (), {"excluded": ["secrets"]})
    choice = Choice(replace(record("notes"), evidence=evidence), SPECS[0])
    seen = Seen("sqlite", "/live/notes", "present", "1:2")
    assert lost(choice, seen, TAKEN) == "secrets would be empty: excluded from backups"


def test_files_that_differ_are_named_and_others_are_not() -> None:
    choice = Choice(record("agent", Component.CONFIG), SPECS[2])
    same = Seen("files", "/srv", "present", "1:2", {".env": "file:600:segments:aa"})
    other = replace(same, signature={".env": "file:600:segments:bb"})
    assert lost(choice, same, TAKEN) == ""
    assert lost(choice, other, TAKEN).endswith("would be replaced: .env")
    assert lost(choice, replace(same, signature={".env": "absent"}), TAKEN) == ""


def test_damage_holders_and_known_findings_are_cautions() -> None:
    finding = Finding("foreign-keys", "notes", "2 rows")
    choice = Choice(replace(record("notes"), findings=(finding,)), SPECS[0])
    seen = Seen("sqlite", "/live/notes", "damaged", "1:2")
    told = cautions(choice, seen, [Holder(7, "agent", "/live/notes")])
    assert "damaged" in told[0]
    assert "foreign-keys" in told[1]
    assert told[2] == "notes: in use by agent (7)"
