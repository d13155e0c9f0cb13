"""Live data is replaced when a person agreed, in the way the settings say, and not otherwise."""

from collections.abc import Callable
from typing import Any, Literal

import pytest
from mcp.client import ClientRequestContext
from mcp_types import ElicitRequestParams, ElicitResult, InputResponses

from tests.server.conftest import ERAS, Era, Facts, Machine, answered, refusal

Confirming = Callable[[str], Machine]


class Person:
    """Somebody at the client, who is asked and answers; `asked` is what they were shown."""

    def __init__(
        self, action: Literal["accept", "decline", "cancel"], content: Facts | None = None
    ) -> None:
        self.asked: list[str] = []
        self._answer = ElicitResult(action=action, content=content)

    async def __call__(self, _: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        self.asked.append(params.message)
        return self._answer


YES = {"confirm": True}


async def approve(machine: Machine, plan_id: str) -> None:
    async with machine.engine() as engine:
        await engine.approve(plan_id, "a person at a terminal")


async def test_a_restore_waits_for_approval_in_a_terminal_and_can_be_undone_alike(
    machine: Machine,
) -> None:
    machine.write("second")
    async with machine.client() as client:
        plan = await answered(client, "restore_backup")
        assert (plan["status"], plan["approval"]) == ("planned", "human")
        assert f"mcp-backup approve {plan['plan_id']}" in plan["next_step"]
        code, text = await refusal(client, "restore_backup", plan_id=plan["plan_id"])
        assert code == "approval-required"
        assert f"mcp-backup approve {plan['plan_id']}" in text
        assert machine.texts() == ["first", "second"]

        await approve(machine, plan["plan_id"])
        done = await answered(client, "restore_backup", plan_id=plan["plan_id"])
        assert done["status"] == "restored"
        assert machine.texts() == ["first"]
        code, _ = await refusal(client, "restore_backup", plan_id=plan["plan_id"])
        assert code == "plan-expired"

        code, text = await refusal(client, "undo_restore", restore_id=done["undo_id"])
        assert code == "approval-required"
        assert machine.texts() == ["first"]
        await approve(machine, text.split("mcp-backup approve ")[1].split("`")[0])
        await answered(client, "undo_restore", restore_id=done["undo_id"])
        assert machine.texts() == ["first", "second"]


@pytest.mark.parametrize("era", ERAS)
async def test_a_person_asked_at_the_client_sees_what_would_be_lost_and_may_agree(
    confirming: Confirming, era: Era
) -> None:
    machine = confirming("elicit")
    machine.write("second")
    person = Person("accept", YES)
    async with machine.client(era, elicitation_callback=person) as client:
        plan = await answered(client, "restore_backup", databases="notes")
        assert person.asked == []  # planning asks nothing
        done = await answered(client, "restore_backup", plan_id=plan["plan_id"])
        assert machine.texts() == ["first"]
        await answered(client, "undo_restore", restore_id=done["undo_id"])
        assert machine.texts() == ["first", "second"]
    restore, undo = person.asked
    assert str(machine.database) in restore
    assert "would be lost" in restore
    assert done["undo_id"] in undo


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize(
    ("action", "content"),
    [
        ("decline", None),
        ("cancel", None),
        ("accept", {}),
        ("accept", {"confirm": False}),
    ],
)
async def test_anything_but_yes_is_no(
    confirming: Confirming, era: Era, action: Literal["accept", "decline", "cancel"], content: Any
) -> None:
    machine = confirming("elicit")
    machine.write("second")
    person = Person(action, content)
    async with machine.client(era, elicitation_callback=person) as client:
        plan = await answered(client, "restore_backup", databases="notes")
        code, _ = await refusal(client, "restore_backup", plan_id=plan["plan_id"])
    assert code == "restore-declined"
    assert len(person.asked) == 1
    assert machine.texts() == ["first", "second"]


@pytest.mark.parametrize("era", ERAS)
async def test_a_client_that_cannot_ask_is_sent_to_the_terminal(
    confirming: Confirming, era: Era
) -> None:
    machine = confirming("elicit")
    machine.write("second")
    async with machine.client(era) as client:
        plan = await answered(client, "restore_backup", databases="notes")
        code, text = await refusal(client, "restore_backup", plan_id=plan["plan_id"])
    assert code == "approval-required"
    assert f"mcp-backup approve {plan['plan_id']}" in text
    assert machine.texts() == ["first", "second"]


@pytest.mark.parametrize("era", ERAS)
async def test_where_a_person_must_approve_in_a_terminal_the_client_is_not_asked(
    machine: Machine, era: Era
) -> None:
    person = Person("accept", YES)  # as an agent would answer by itself
    async with machine.client(era, elicitation_callback=person) as client:
        plan = await answered(client, "restore_backup", databases="notes")
        code, _ = await refusal(client, "restore_backup", plan_id=plan["plan_id"])
    assert code == "approval-required"
    assert person.asked == []


async def test_an_answer_to_a_question_never_asked_is_no_consent(machine: Machine) -> None:
    machine.write("second")
    forged: InputResponses = {
        key: ElicitResult(action="accept", content={"confirm": True})
        for key in ("answer", "mcp_backup.server.consent:restore_question.<locals>.ask")
    }
    async with machine.client("2026-07-28") as client:
        plan = await answered(client, "restore_backup", databases="notes")
        result = await client.call_tool(
            "restore_backup", {"plan_id": plan["plan_id"]}, input_responses=forged
        )
    assert result.is_error
    assert machine.texts() == ["first", "second"]


async def test_with_tokens_the_plan_id_is_enough(confirming: Confirming) -> None:
    machine = confirming("token")
    machine.write("second")
    async with machine.client() as client:
        plan = await answered(client, "restore_backup", databases="notes")
        assert "if they agree" in plan["next_step"]
        assert machine.texts() == ["first", "second"]
        await answered(client, "restore_backup", plan_id=plan["plan_id"])
    assert machine.texts() == ["first"]


async def test_a_restore_to_scratch_needs_nobody_and_touches_nothing_live(
    machine: Machine,
) -> None:
    machine.write("second")
    async with machine.client() as client:
        dry = await answered(client, "restore_backup", target="scratch", dry_run=True)
        done = await answered(client, "restore_backup", target="scratch")
    assert (dry["status"], done["status"], done["undo_id"]) == ("planned", "staged", "")
    for target in done["targets"]:
        assert target["path"].startswith(str(machine.root / "state/scratch"))
    assert machine.texts() == ["first", "second"]


@pytest.mark.parametrize("more", [{"components": "config"}, {"databases": ["notes"]}])
async def test_a_plan_is_carried_out_as_it_was_approved_or_not_at_all(
    machine: Machine, more: Facts
) -> None:
    async with machine.client() as client:
        plan = await answered(client, "restore_backup")
        code, text = await refusal(client, "restore_backup", plan_id=plan["plan_id"], **more)
        assert code == "usage"
        assert "Pass plan_id alone" in text
        code, _ = await refusal(client, "restore_backup", plan_id=plan["plan_id"], target="scratch")
        assert code == "usage"
        again = await answered(client, "restore_backup", plan_id=plan["plan_id"], dry_run=True)
    assert again == plan
