"""Small enough for a model's context: about four characters are a token."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from mcp_types import CallToolResult

from mcp_backup.manifest import Failure
from mcp_backup.server.closed import told
from mcp_backup.server.list_reply import BackupsReply
from mcp_backup.server.replies import (
    BackupReply,
    RestoreReply,
    UndoReply,
    VerifyReply,
)
from mcp_backup.server.status_reply import StatusReply, status_summary
from mcp_backup.server.summaries import (
    backup_summary,
    backups_summary,
    restore_summary,
    undo_summary,
    verify_summary,
)
from mcp_backup.server.tools import DEFAULT_LIMIT
from mcp_backup.sources.source import Component, Holder
from mcp_backup.status_report import NextRun, SourceStatus, Statistics, StatusReport
from mcp_backup.verbs import (
    BackupEntry,
    BackupPage,
    BackupReport,
    BackupType,
    Level,
    SourceFinding,
    SourceOutcome,
    VerifyReport,
)
from mcp_backup.verbs_restores import PlannedTarget, RestoredTarget, RestorePlan, UndoReport
from tests.server.conftest import Machine, text_of

TOOL_LIST_TOKENS = 4000
ANSWER_TOKENS = 2000
MANY = 60  # sources: far more than anyone has
NOW = datetime(2026, 11, 22, 20, 30, tzinfo=UTC)
NAMES = tuple(f"a-source-with-a-long-name-{number:02}" for number in range(MANY))
PATHS = {name: f"/home/somebody/Projects/{name}/data/{name}.db" for name in NAMES}
HELD_BY = (
    *("latest", "latest good", "latest proven", "daily 10/30", "weekly 10/12", "monthly 6/6"),
    *(
        f"{reason} of {', '.join(NAMES)}"
        for reason in ("minimum of 3", "good before a suspect one")
    ),
)
LONG = "the disk image is malformed in a way that takes many words to tell. " * 10
SNAPSHOT = "63ef3bb1cb27a42ad5aa24dad9401474605a30cb52582c402700a801322f7111"

OUTCOMES = tuple(
    SourceOutcome(
        name=name,
        component=Component.DATABASES,
        kind="sqlite",
        outcome="failed" if number % 2 else "stored",
        files=1,
        read_bytes=10**9,
        added_bytes=10**8,
        duration_seconds=12.3456,
        failure=Failure("source-unreadable", LONG, LONG) if number % 2 else None,
        notes=(LONG, LONG),
    )
    for number, name in enumerate(NAMES)
)
FINDINGS = tuple(SourceFinding(name, "integrity", "notes", LONG) for name in NAMES)
BACKUP = BackupReport(
    backup_id="backup_20261122_203000",
    snapshot_id=SNAPSHOT,
    backup_type=BackupType.FULL,
    status="partial",
    started=NOW,
    duration_seconds=99.9,
    read_bytes=10**11,
    added_bytes=10**10,
    verification="findings",
    outcomes=OUTCOMES,
    findings=FINDINGS,
    note=LONG,
    suspect=FINDINGS,
)
PAGE = BackupPage(
    entries=tuple(
        BackupEntry(
            backup_id=f"backup_20261122_2030{number:02}",
            snapshot_id=SNAPSHOT,
            backup_type="incremental",
            status="partial",
            time=NOW,
            note=LONG,
            sources=NAMES,
            failed=NAMES,
            total_bytes=10**12,
            added_bytes=10**11,
            hostname="a-host-with-a-name",
            ours=True,
            held_by=HELD_BY,
            suspect=NAMES,
            verified=NOW,
            drilled=NOW,
        )
        for number in range(DEFAULT_LIMIT)
    ),
    next_cursor=SNAPSHOT,
    total=1000,
)
VERIFIED = VerifyReport(
    backup_id="backup_20261122_203000",
    snapshot_id=SNAPSHOT,
    level=Level.RESTORE,
    findings=FINDINGS,
    sources=NAMES,
    read_bytes=10**11,
    duration_seconds=99.9,
)
PLAN = RestorePlan(
    plan_id="plan_1a151310b46a",
    backup_id="backup_20261122_203000",
    snapshot_id=SNAPSHOT,
    created=NOW,
    expires=NOW + timedelta(hours=1),
    target="original",
    targets=tuple(
        PlannedTarget(
            source=name,
            component=Component.DATABASES,
            kind="sqlite",
            original=PATHS[name],
            live_state="present",
            live_bytes=10**9,
            backup_bytes=10**9,
            action="replace",
            holders=tuple(Holder(pid, "python3", PATHS[name]) for pid in range(MANY)),
            lost=LONG,
        )
        for name in NAMES
    ),
    scratch="",
    needed_bytes=10**11,
    free_bytes=10**12,
    approval="human",
    approved=False,
    warnings=(LONG,) * MANY,
)
STATUS = StatusReport(
    health="failing",
    reasons=tuple(f"{name}: {LONG}" for name in NAMES),
    target_rpo_hours=24,
    sources=tuple(
        SourceStatus(
            name, "databases", NOW, 30.25, 24, 99.75, overdue=True, failure=LONG, suspect=LONG
        )
        for name in NAMES
    ),
    backups=10_000,
    newest=NOW,
    age_distribution=dict.fromkeys(
        ("< 1 day", "1-7 days", "1-4 weeks", "1-3 months", "> 3 months"), 2000
    ),
    statistics=Statistics(9000, 900, 90, 10, 10**12, 10**11, 10**10, 10.01, 12.345, 99.876),
    retention="30 daily, 12 weekly, 6 monthly",
    surplus=None,
    next_runs=tuple(NextRun(f"databases {name}", "database", NOW) for name in NAMES),
    missed=NAMES,
    unprotected=tuple(f"database {path}" for path in PATHS.values()),
    undelivered=(LONG,) * MANY,
)
UNDONE = UndoReport(
    restore_id="restore_20261122_211841_1ed2c86d",
    targets=tuple(RestoredTarget(name, Component.DATABASES, PATHS[name], 10**9) for name in NAMES),
    duration_seconds=9.9,
)


def tokens(result: CallToolResult) -> float:
    return (len(text_of(result)) + len(json.dumps(result.structured_content))) / 4


async def test_the_list_of_tools_is_small(machine: Machine) -> None:
    async with machine.client() as client:
        listed = await client.list_tools()
        instructions = client.instructions or ""
    wire = listed.model_dump_json(by_alias=True, exclude_none=True)
    assert (len(wire) + len(instructions)) / 4 < TOOL_LIST_TOKENS


@pytest.mark.parametrize(
    "answer",
    [
        lambda: told(BACKUP, BackupReply.of, backup_summary),
        lambda: told(PAGE, BackupsReply.of, backups_summary),
        lambda: told(VERIFIED, VerifyReply.of, verify_summary),
        lambda: told(PLAN, RestoreReply.planned, restore_summary),
        lambda: told(UNDONE, UndoReply.of, undo_summary),
        lambda: told(STATUS, StatusReply.of, status_summary),
    ],
    ids=["create", "list", "verify", "plan", "undo", "status"],
)
def test_an_answer_stays_small_however_much_there_is_to_tell(answer: object) -> None:
    assert callable(answer)
    assert tokens(answer()) < ANSWER_TOKENS


def test_what_was_left_out_is_counted_and_what_failed_is_shown_first() -> None:
    reply = BackupReply.of(BACKUP, rows=5)
    assert [outcome.outcome for outcome in reply.outcomes] == ["failed"] * 5
    assert reply.omitted == (len(OUTCOMES) - 5) + 2 * (len(FINDINGS) - 5)
    assert "(165 more left out)" in backup_summary(reply)


def test_without_a_limit_everything_is_told() -> None:
    reply = RestoreReply.planned(PLAN)
    assert len(reply.targets) == MANY
    assert len(reply.targets[0].holders) == MANY
    assert reply.omitted == 0


def test_a_small_answer_leaves_nothing_out() -> None:
    report = VerifyReport(
        "backup_1", SNAPSHOT, Level.DATA, FINDINGS[:3], NAMES[:9], read_bytes=1, duration_seconds=1
    )
    content = told(report, VerifyReply.of, verify_summary).structured_content
    assert content is not None
    assert (len(content["findings"]), len(content["sources"]), content["omitted"]) == (3, 9, 0)
