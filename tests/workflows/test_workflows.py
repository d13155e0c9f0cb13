"""Workflows of another MCP server are backed up, compared, and given back one by one."""

import json
from pathlib import Path
from typing import Any

import pytest

from mcp_backup.doctor import diagnose
from mcp_backup.engine import Engine
from mcp_backup.errors import NothingBackedUp, PlanExpired, RolledBack, SettingsInvalid, UsageError
from mcp_backup.opening import initialise, opened
from mcp_backup.settings import Settings
from mcp_backup.settings_table import checked
from mcp_backup.settings_workflows import WorkflowSettings
from mcp_backup.verbs import BackupType, CreateRequest
from mcp_backup.verbs_restores import RestorePlan, RestoreReport, RestoreRequest
from tests.workflows.conftest import Keeper, flow


async def backed_up(settings: Settings) -> str:
    await initialise(settings)
    async with opened(settings) as engine:
        report = await engine.create(CreateRequest(BackupType.WORKFLOW))
    assert report.status == "completed"
    assert not report.findings
    return report.backup_id


async def restored(engine: Engine) -> tuple[RestorePlan, RestoreReport]:
    plan = await engine.plan_restore(RestoreRequest())
    return plan, await engine.restore(plan.plan_id, consent=True)


def staged(report: RestoreReport) -> dict[str, bytes]:
    (target,) = report.targets
    return {path.name: path.read_bytes() for path in Path(target.path).iterdir()}


async def refusal(settings: Settings) -> str:
    """What is said about a source that cannot be captured."""
    await initialise(settings)
    async with opened(settings) as engine:
        with pytest.raises(NothingBackedUp) as refused:
            await engine.create(CreateRequest())
        assert (await engine.backups()).entries == ()
    return f"{refused.value} {refused.value.hint}"


async def test_documents_are_stored_one_by_one_as_canonical_json(child: Keeper) -> None:
    settings = child.settings()
    await backed_up(settings)
    async with opened(settings) as engine:
        plan = await engine.plan_restore(RestoreRequest(target="scratch"))
        found = staged(await engine.restore(plan.plan_id))
    assert sorted(found) == ["%2E.%2F..%2Fetc%2Fpasswd.json", "deploy.json", "nightly.json"]
    assert found["deploy.json"].decode() == (
        '{"done":false,"id":"deploy","state":{"big":1152921504606846976,'
        '"name":"Überprüfung","step":1}}\n'
    )


async def test_a_backup_of_unchanged_documents_stores_none_of_them_again(keeper: Keeper) -> None:
    settings = keeper.settings()
    await backed_up(settings)
    async with opened(settings) as engine:
        report = await engine.create(CreateRequest(verify=False))
    (outcome,) = report.outcomes
    assert (outcome.files, outcome.added_bytes) == (3, 0)


async def test_what_is_missing_or_changed_is_given_back_and_the_rest_is_left(
    keeper: Keeper,
) -> None:
    settings = keeper.settings()
    before = keeper.workflows()
    await backed_up(settings)
    keeper.put("deploy", None)
    keeper.put("nightly", flow("nightly", step=9))
    keeper.put("newer", flow("newer"))
    wrecked = keeper.workflows()
    async with opened(settings) as engine:
        plan, report = await restored(engine)
        (target,) = plan.targets
        assert target.lost == (
            "1 would be created: deploy.json; 1 would be changed: nightly.json; "
            "1 of 3 documents are as in the backup"
        )
        assert keeper.workflows() == before | {"newer": flow("newer")}
        assert keeper.document()["saves"] == 2
        assert "newer.json" in " ".join(report.targets[0].notes)
        await engine.undo(report.restore_id, consent=True)
        assert keeper.workflows() == wrecked
        (point, *_) = await engine.restores()
        await engine.undo(point.restore_id, consent=True)
    assert keeper.workflows() == before | {"newer": flow("newer")}


async def test_a_document_that_is_refused_takes_the_restore_back(keeper: Keeper) -> None:
    settings = keeper.settings()
    await backed_up(settings)
    keeper.put("deploy", None)
    keeper.put("nightly", flow("nightly", step=9))
    wrecked = keeper.workflows()
    keeper.change(refused=["nightly"])
    async with opened(settings) as engine:
        with pytest.raises(RolledBack, match="nightly is not wanted"):
            await restored(engine)
    assert keeper.workflows() == wrecked


async def test_without_a_tool_for_it_nothing_can_be_removed_and_that_is_said(
    keeper: Keeper,
) -> None:
    settings = keeper.settings(keeper.source(remove=None))
    await backed_up(settings)
    keeper.put("deploy", None)
    async with opened(settings) as engine:
        _, report = await restored(engine)
        await engine.undo(report.restore_id, consent=True)
    assert "deploy" in keeper.workflows()


async def test_without_a_restore_tool_documents_go_to_scratch_only(keeper: Keeper) -> None:
    settings = keeper.settings(keeper.source(restore=None))
    await backed_up(settings)
    async with opened(settings) as engine:
        with pytest.raises(UsageError, match="the settings name no tool"):
            await engine.plan_restore(RestoreRequest())
        plan = await engine.plan_restore(RestoreRequest(target="scratch"))
        assert len(staged(await engine.restore(plan.plan_id))) == 3


async def test_a_plan_no_longer_holds_when_a_document_has_changed(keeper: Keeper) -> None:
    settings = keeper.settings()
    await backed_up(settings)
    async with opened(settings) as engine:
        plan = await engine.plan_restore(RestoreRequest())
        keeper.put("deploy", flow("deploy", step=5))
        with pytest.raises(PlanExpired, match=r"deploy\.json changed"):
            await engine.restore(plan.plan_id, consent=True)
    assert keeper.workflows()["deploy"]["state"]["step"] == 5


@pytest.mark.parametrize(
    ("mood", "told"),
    [
        ("error in a success", "list_workflows failed: the [31m database is locked Look at"),
        ("crash", "list_workflows failed: Error executing tool"),
        ("endless", "its pages do not end: '0' came twice"),
        ("twins", "two documents are named "),
        ("nameless", "a document has no usable 'id'; it has: title"),
    ],
)
async def test_a_server_that_misbehaves_is_a_failed_source(
    keeper: Keeper, mood: str, told: str
) -> None:
    keeper.change(mood=mood)
    assert told in await refusal(keeper.settings())


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"cursor": None}, "it has 3 documents and gave 2"),
        ({"items": "flows"}, "the answer has no 'flows'; it has: next_cursor, status, total"),
        ({"tool": "prose"}, "the answer is text, not documents: 'I have a few"),
        ({"tool": "no_such"}, "no_such failed: Unknown tool: no_such"),
        ({"url": None, "command": ("/no/such/program",)}, "/no/such/program: "),
    ],
)
async def test_wrong_settings_are_told_with_what_to_correct(
    keeper: Keeper, settings: dict[str, Any], told: str
) -> None:
    assert told in await refusal(keeper.settings(keeper.source(**settings)))


async def test_a_server_that_is_down_is_named(away: Keeper) -> None:
    told = await refusal(away.settings())
    assert "source 'flows': http://127.0.0.1:9/mcp: " in told
    assert "Start that server" in told


async def test_a_server_that_is_down_does_not_sink_the_other_sources(
    keeper: Keeper, away: Keeper
) -> None:
    settings = keeper.settings(away.source(name="away"), keeper.source())
    await initialise(settings)
    async with opened(settings) as engine:
        report = await engine.create(CreateRequest())
    assert report.status == "partial"
    assert [(item.name, item.outcome) for item in report.outcomes] == [
        ("away", "failed"),
        ("flows", "stored"),
    ]


async def test_the_doctor_says_what_a_source_has_and_lacks(keeper: Keeper) -> None:
    lacking = keeper.source(name="lacking", restore={"tool": "import_workflow"})
    settings = keeper.settings(keeper.source(), lacking)
    await initialise(settings)
    async with opened(settings) as engine:
        told = {item.subject: item for item in await diagnose(engine)}
    assert "keeper 1.0" in told["workflows flows"].message
    assert told["workflows flows"].level == "ok"
    assert told["workflows lacking"].level == "problem"
    assert "has no tool 'import_workflow'" in told["workflows lacking"].message


async def test_a_directory_of_json_files_is_a_source_too(keeper: Keeper) -> None:
    flows = keeper.root / "flows"
    (flows / "done").mkdir(parents=True)
    (flows / "done" / "a.json").write_text(json.dumps(flow("a")))
    (flows / "notes.txt").write_text("not a workflow")
    source = checked(WorkflowSettings, {"name": "files", "path": flows})
    settings = keeper.settings(source)
    await backed_up(settings)
    (flows / "done" / "a.json").unlink()
    async with opened(settings) as engine:
        await restored(engine)
    assert json.loads((flows / "done" / "a.json").read_text()) == flow("a")


async def test_the_token_reaches_the_server_and_no_message(
    away: Keeper, caplog: pytest.LogCaptureFixture
) -> None:
    token = away.root / "token"
    token.write_text("s3cret-token\n")
    settings = away.settings(away.source(token_file=token))
    assert "s3cret-token" not in await refusal(settings) + caplog.text


async def test_a_token_that_cannot_be_had_is_told(away: Keeper) -> None:
    source = away.source(token_file=away.root / "nothing")
    assert "no token could be had: No such file" in await refusal(away.settings(source))


async def test_capture_restore_capture_gives_equal_evidence(keeper: Keeper) -> None:
    settings = keeper.settings()
    await backed_up(settings)
    keeper.change(workflows={})
    async with opened(settings) as engine:
        await restored(engine)
        await engine.create(CreateRequest())
        two, one = (await engine.catalog.backups())[:2]
        records = [(await engine.catalog.manifest(backup)) for backup in (one, two)]
        marks = [record.sources[0].evidence for record in records if record]
    found = [evidence.facts["documents"] for evidence in marks if evidence]
    assert found[0] == found[1]
    assert len(found[0]) == 3


def test_settings_of_a_place_that_is_none_are_refused() -> None:
    for wrong, told in (
        ({"tool": "t"}, "one of `url`, `command` and `path`"),
        ({"url": "http://h/mcp", "path": "/x", "tool": "t"}, "one of `url`"),
        ({"url": "http://h/mcp"}, "must have `tool`"),
        ({"path": "/x", "tool": "t"}, "must not have `tool` beside `path`"),
        ({"url": "http://me:pw@h/mcp", "tool": "t"}, "must not hold a password"),
        ({"url": "ftp://h", "tool": "t"}, "http:// or https://"),
    ):
        with pytest.raises(SettingsInvalid, match=told):
            checked(WorkflowSettings, {"name": "w", **wrong})
