"""What agents are given besides tools: prompts, resources, completions, and news of changes."""

import json
from collections.abc import AsyncIterable
from typing import Any

import anyio
import pytest
from mcp import MCPError
from mcp.client import Client
from mcp.server.subscriptions import ResourceUpdated
from mcp_types import (
    PromptReference,
    ResourceTemplateReference,
    ResourceUpdatedNotification,
    TextContent,
    TextResourceContents,
)

from mcp_backup.proof.drill import drill
from mcp_backup.server import updates
from tests.server.conftest import ERAS, Era, Machine, answered
from tests.server.serving import daemon

PATIENCE = 30.0  # seconds; only a failure waits that long


async def read(client: Client, uri: str) -> str:
    (content,) = (await client.read_resource(uri)).contents
    assert isinstance(content, TextResourceContents)
    return content.text


async def first(events: AsyncIterable[object]) -> object:
    with anyio.fail_after(PATIENCE):
        async for event in events:
            return event
    return None


async def prompted(client: Client, name: str, **arguments: str) -> str:
    (message,) = (await client.get_prompt(name, arguments)).messages
    assert isinstance(message.content, TextContent)
    return message.content.text


@pytest.mark.parametrize("era", ERAS)
async def test_each_scenario_is_a_prompt_filled_in_for_this_installation(
    machine: Machine, era: Era
) -> None:
    async with machine.client(era) as client:
        listed = {each.name: each for each in (await client.list_prompts()).prompts}
        newest = (await answered(client, "list_backups"))["backups"][0]["backup_id"]
        text = await prompted(client, "recover-database-corruption", source="notes")
        rows = await prompted(client, "recover-data-loss", source="notes", table="notes")
        wrong = await prompted(client, "recover-single-server", source="nots")
    assert set(listed) == {
        "recover-single-server",
        "recover-database-corruption",
        "recover-complete-failure",
        "recover-data-loss",
        "post-incident-review",
    }
    arguments = listed["recover-data-loss"].arguments or []
    assert [(each.name, each.required) for each in arguments] == [
        ("source", False),
        ("table", False),
        ("backup_id", False),
    ]
    assert str(machine.database) in text
    assert f"mcp-backup restore {newest} --databases notes" in text
    assert "Never\napprove a plan yourself" in text
    assert 'SELECT count(*) FROM notes"' in rows
    assert "no source is named 'nots'" in wrong


async def test_arguments_complete_newest_first(machine: Machine) -> None:
    async with machine.client() as client:
        backup = (await answered(client, "create_backup"))["backup_id"]
        drilled = (await answered(client, "run_drill", sources="notes"))["drill_id"]
        prompt = PromptReference(type="ref/prompt", name="recover-single-server")
        template = ResourceTemplateReference(type="ref/resource", uri="backup://drills/{drill_id}")

        async def completed(ref: Any, name: str, value: str) -> list[str]:
            return list(
                (await client.complete(ref, {"name": name, "value": value})).completion.values
            )

        assert await completed(prompt, "source", "n") == ["notes"]
        assert await completed(prompt, "source", "") == ["notes", "app"]
        assert (await completed(prompt, "backup_id", "backup_"))[0] == backup
        assert await completed(prompt, "backup_id", "x") == []
        assert await completed(template, "drill_id", "") == [drilled]


@pytest.mark.parametrize("era", ERAS)
async def test_runbook_manifests_and_drills_can_be_read_and_hold_no_secret(
    machine: Machine, era: Era
) -> None:
    async with machine.client(era) as client:
        drilled = await answered(client, "run_drill")
        listed = {str(each.uri) for each in (await client.list_resources()).resources}
        assert "backup://runbook/complete-failure" in listed
        assert "{{kit}}" in await read(client, "backup://runbook/complete-failure")
        manifest = json.loads(await read(client, "backup://manifests/latest"))
        assert [each["name"] for each in manifest["sources"]] == ["notes", "app"]
        report = await read(client, "backup://drills/latest")
        assert "# Proven restorable" in report
        drills = json.loads(await read(client, "backup://drills"))
        assert [each["drill_id"] for each in drills["drills"]] == [drilled["drill_id"]]
        one = await read(client, f"backup://drills/{drilled['drill_id']}")
        assert drilled["seal"] in one
        password = (machine.root / "backups.key").read_text().strip()
        for uri in listed:
            assert password not in await read(client, uri)
        assert password not in one + report + json.dumps(manifest)
        for unknown in ("backup://drills/nothing", "backup://manifests/backup_20200101_000000"):
            with pytest.raises(MCPError):
                await client.read_resource(unknown)


async def test_a_modern_client_that_listens_hears_of_a_drill(machine: Machine) -> None:
    async with (
        machine.client("2026-07-28") as client,
        client.listen(resource_subscriptions=["backup://drills"]) as events,
    ):
        await answered(client, "run_drill", sources="notes")
        assert await first(events) == ResourceUpdated(uri="backup://drills")


async def test_an_older_client_is_told_on_its_session(machine: Machine) -> None:
    heard: list[str] = []

    async def listening(message: object) -> None:
        if isinstance(message, ResourceUpdatedNotification):
            heard.append(str(message.params.uri))

    async with machine.client("legacy", message_handler=listening) as client:
        await answered(client, "run_drill", sources="notes")
        with anyio.fail_after(PATIENCE):
            while len(heard) < 2:  # noqa: ASYNC110 - the client's own task
                await anyio.sleep(0.01)
    assert heard == list(updates.DRILLS)


async def test_what_another_process_did_is_news_too(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(updates, "_LOOK_SECONDS", 0.05)
    async with machine.client("2026-07-28") as client:
        await answered(client, "backup_status")  # opens the repository
        async with client.listen(resource_subscriptions=["backup://drills/latest"]) as events:
            await anyio.sleep(0.3)  # what there was is not news
            async with machine.engine() as another:
                await drill(another)
            assert await first(events) == ResourceUpdated(uri="backup://drills/latest")


async def test_a_client_that_listens_does_not_keep_the_daemon_from_stopping(
    machine: Machine,
) -> None:
    listens = anyio.Event()

    async def listen(address: str) -> None:
        async with (
            Client(f"{address}/mcp", mode="2026-07-28") as client,
            client.listen(resource_subscriptions=["backup://drills"]),
        ):
            listens.set()
            await anyio.sleep_forever()

    with daemon(machine) as running:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen, running.address)
            with anyio.fail_after(PATIENCE):
                await listens.wait()
                running.stop()
                while running.alive:  # noqa: ASYNC110 - another process
                    await anyio.sleep(0.05)
            tasks.cancel_scope.cancel()
