"""The approval passphrase: kept as a hash, asked for at a terminal, and slow to guess."""

import json
import os
import pty
import stat
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from mcp_types import Implementation

from mcp_backup.approval_advice import approval_diagnosis
from mcp_backup.errors import ApprovalRefused, UsageError
from mcp_backup.passphrase import Passphrase
from tests.server.conftest import Machine, answered, refusal
from tests.server.conftest import backed_up as backed_up
from tests.server.conftest import confirming as confirming
from tests.server.conftest import machine as machine

SECRET = "four words of mine"  # noqa: S105 - looked for where it must not be
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def kept(tmp_path: Path, clock: Clock) -> Passphrase:
    passphrase = Passphrase(tmp_path, clock)
    passphrase.set(SECRET, os.urandom)
    return passphrase


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def refused(kept: Passphrase, text: str = "something else") -> str:
    with pytest.raises(ApprovalRefused) as told:
        kept.check(text, "somebody", "approve plan_1")
    return str(told.value)


@pytest.mark.usefixtures("open_umask")
def test_it_is_kept_as_a_hash_in_files_of_their_owner_alone(
    kept: Passphrase, tmp_path: Path
) -> None:
    kept.check(SECRET, "somebody", "approve plan_1")
    refused(kept)
    files = list(tmp_path.iterdir())
    assert len(files) == 3
    for file in files:
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
        assert SECRET not in file.read_text()
        assert "something else" not in file.read_text()


def test_the_fourth_wrong_one_has_to_wait_and_each_later_one_longer(
    kept: Passphrase, clock: Clock, tmp_path: Path
) -> None:
    for _ in range(3):
        assert "not the approval passphrase" in refused(kept)
    another = Passphrase(tmp_path, clock)  # as in another process
    assert "3 times in a row" in refused(another, SECRET)  # even the right one
    clock.now += timedelta(seconds=5)
    assert "not the approval passphrase" in refused(another)
    clock.now += timedelta(seconds=5)
    assert "4 times in a row" in refused(kept, SECRET)
    clock.now += timedelta(seconds=5)
    kept.check(SECRET, "somebody", "approve plan_1")
    assert "not the approval passphrase" in refused(kept)  # counted from the start again
    outcomes = [each.outcome for each in another.attempts()]
    wrong, soon = "refused", "too soon"
    assert outcomes == [wrong, "accepted", soon, wrong, soon, wrong, wrong, wrong]
    assert {each.by for each in another.attempts()} == {"somebody"}


def test_nobody_waits_longer_than_an_hour(kept: Passphrase, clock: Clock) -> None:
    for _ in range(14):
        refused(kept)
        clock.now += timedelta(hours=1)
    kept.check(SECRET, "somebody", "approve plan_1")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"hash": "00", "salt": "", "scrypt": {}}'])
def test_what_is_damaged_opens_nothing(kept: Passphrase, tmp_path: Path, content: str) -> None:
    (tmp_path / "approval.json").write_text(content)
    assert "cannot be read" in refused(kept, SECRET)
    kept.set(SECRET, os.urandom)
    for _ in range(3):
        (tmp_path / "approval-attempts.json").write_text("damaged")
        assert "in a row" in refused(kept, SECRET)


def test_a_short_one_is_none(kept: Passphrase) -> None:
    with pytest.raises(UsageError, match="shorter"):
        kept.set("1234567", os.urandom)
    kept.check(SECRET, "somebody", "approve plan_1")


def at_terminal(machine: Machine, answers: dict[bytes, str], *arguments: str) -> tuple[int, str]:
    """Run with a terminal of its own, where each question is answered once."""
    child, ours = pty.fork()
    if child == 0:
        command = machine.command(*arguments)
        os.execv(command[0], command)  # noqa: S606 - one of ours, with a list of arguments
    seen, waiting = b"", dict(answers)
    while True:
        try:
            read = os.read(ours, 65536)
        except OSError:  # how Linux ends a terminal
            break
        if not read:
            break
        seen += read
        for question in [each for each in waiting if each in seen]:
            os.write(ours, waiting.pop(question).encode() + b"\n")
    os.close(ours)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), seen.decode()


async def test_an_approval_and_an_undo_ask_for_it_at_the_terminal_and_nowhere_else(
    machine: Machine,
) -> None:
    machine.write("second")
    code, seen = at_terminal(
        machine, {b"New passphrase: ": SECRET, b"The same again: ": SECRET}, "passphrase", "set"
    )
    assert code == 0, seen
    async with machine.client() as client:
        plan = (await answered(client, "restore_backup", databases="notes"))["plan_id"]
        for arguments in (("approve", plan, "--yes"), ("restore", "--yes")):
            ran = subprocess.run(
                machine.command(*arguments),
                input=f"{SECRET}\n{SECRET}\n",
                capture_output=True,
                text=True,
                start_new_session=True,
                check=False,
            )
            assert ran.returncode == 5
            assert "approval-refused" in ran.stderr
        code, seen = at_terminal(machine, {b"passphrase: ": "a guess"}, "approve", plan, "--yes")
        assert (code, "not the approval passphrase" in seen) == (5, True)
        assert (await refusal(client, "restore_backup", plan_id=plan))[0] == "approval-required"
        assert machine.texts() == ["first", "second"]

        code, seen = at_terminal(machine, {b"passphrase: ": SECRET}, "approve", plan, "--yes")
        assert code == 0, seen
        assert SECRET not in seen
        done = await answered(client, "restore_backup", plan_id=plan)
        assert machine.texts() == ["first"]
    undo = ("undo", done["undo_id"], "--yes")
    assert at_terminal(machine, {b"passphrase: ": "a guess"}, *undo)[0] == 5
    assert machine.texts() == ["first"]
    assert at_terminal(machine, {b"passphrase: ": SECRET}, *undo)[0] == 0
    assert machine.texts() == ["first", "second"]
    assert at_terminal(machine, {b"passphrase: ": "a guess"}, "passphrase", "remove")[0] == 5
    async with machine.engine() as engine:
        runs = await engine.history.runs(limit=100)
    refused = [(run.verb, run.subject) for run in runs if run.error_code == "approval-refused"]
    assert ("approve", plan) in refused
    assert ("undo", done["undo_id"]) in refused
    assert len(refused) == 4  # without a terminal: approve, restore; guesses: approve, undo


async def test_an_approval_is_for_the_plan_that_was_shown_and_for_no_other(
    machine: Machine,
) -> None:
    machine.write("second")
    async with machine.client() as client:
        plan = (await answered(client, "restore_backup", databases="notes"))["plan_id"]
        async with machine.engine() as engine:
            await engine.approve(plan, "a person at a terminal")
            file = engine.state / "plans" / f"{plan}.json"
        told = json.loads(file.read_bytes())
        told["plan"]["expires"] = "2099-01-01T00:00:00+00:00"
        before = file.read_bytes()
        file.write_text(json.dumps(told, indent=1))
        assert (await refusal(client, "restore_backup", plan_id=plan))[0] == "approval-required"
        file.write_bytes(before)
        file.with_suffix(".approved").write_text("{}")
        assert (await refusal(client, "restore_backup", plan_id=plan))[0] == "approval-required"
    assert machine.texts() == ["first", "second"]


async def test_the_doctor_asks_for_one_where_a_client_that_has_a_shell_was_here(
    machine: Machine,
) -> None:
    async def advice() -> tuple[str, str]:
        async with machine.engine() as engine:
            found = await approval_diagnosis(engine)
        return found.level, found.message

    assert (await advice())[0] == "ok"
    info = Implementation(name="claude-code", version="2.0")
    async with machine.client(client_info=info) as client:
        await answered(client, "verify_backup", level="structure")
    level, message = await advice()
    assert level == "warning"
    assert "claude-code can run commands" in message
    Passphrase(machine.settings().state_dir, lambda: NOW).set(SECRET, os.urandom)
    assert (await advice())[0] == "ok"
    text = machine.config.read_text()
    machine.config.write_text(text.replace('confirmation = "human"', 'confirmation = "token"'))
    assert (await advice())[0] == "warning"
