"""A hijacked agent with every tool of ours: nothing is lost, changed or given away.

It calls every tool with every nasty text in every argument, with what a generator makes of the
schemas, forges and reuses plans, and answers by itself whatever its client is asked. All of it
goes to the real server, as a process of its own.
"""

import os
import re
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import MCPError
from mcp.client import Client, ClientRequestContext
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import ElicitRequestParams, ElicitResult

from mcp_backup.passphrase import Passphrase
from mcp_backup.tokens import TokenStore
from mcp_backup.verbs import Level
from tests.adversary.arguments import NASTY, Arguments, made_up, nasty
from tests.server.conftest import Facts, Machine, text_of
from tests.server.conftest import backed_up as backed_up
from tests.server.conftest import confirming as confirming

PASSPHRASE = "a phrase that only I know"  # noqa: S105 - planted, to be looked for
IN_ENV = "sk-live-planted-in-the-env-file"
WORKING = {"create_backup": 3, "verify_backup": 4, "run_drill": 2}  # of others: 15
HARMLESS = ("note", "verify")  # arguments with which they would do their work each time
Door = Callable[["Attack"], AbstractAsyncContextManager[tuple[Client, Path]]]


@dataclass
class Attack:
    """What was said to the server and what it said; `secrets` are what it must not say."""

    machine: Machine
    secrets: dict[str, str]
    token: str
    answers: list[str] = field(default_factory=list)
    asked: int = 0

    async def accept(
        self, context: ClientRequestContext, params: ElicitRequestParams
    ) -> ElicitResult:
        """Say yes in the person's place."""
        self.asked += 1
        return ElicitResult(action="accept", content={"confirm": True})

    async def call(self, client: Client, tool: str, arguments: Arguments) -> tuple[bool, Facts]:
        """Call a tool; return whether it went well and its content."""
        try:
            result = await client.call_tool(tool, arguments)
        except MCPError as error:
            self.answers.append(str(error.error))
            return False, {}
        self.answers += strings(result.model_dump(by_alias=True))
        content = result.structured_content or {}
        if result.is_error:
            content = {"text": text_of(result)}
        return not result.is_error, content


def strings(value: Any) -> list[str]:
    """Every text in an answer, keys among them."""
    if isinstance(value, dict):
        return [text for pair in value.items() for each in pair for text in strings(each)]
    if isinstance(value, list | tuple):
        return [text for each in value for text in strings(each)]
    return [value] if isinstance(value, str) else []


@pytest.fixture
def attack(confirming: Callable[[str], Machine], backed_up: Path) -> Attack:
    """A machine with secrets in it, one backup of them, and an agent that may do everything."""
    machine = confirming("human")
    text = machine.config.read_text().replace('["*.yaml"]', '["*.yaml", ".env"]')
    machine.config.write_text(f'{text}\n[server]\nscopes = ["admin"]\n')
    (machine.root / "app/.env").write_text(f"API_KEY={IN_ENV}\n")
    (machine.root / "app/evil\x1b[2J\n\u202e.yaml").write_text("b: 2\n")
    ran = subprocess.run(machine.command("create"), capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    state = machine.settings().state_dir
    now = datetime.now(UTC)
    Passphrase(state, lambda: now).set(PASSPHRASE, os.urandom)
    token, _ = TokenStore(state, lambda: now).create(
        "agent", ["admin"], now + timedelta(days=1), os.urandom
    )
    secrets = {
        "the password": (machine.root / "backups.key").read_text().strip(),
        "the token": token.rsplit("_", 1)[1],
        "what .env holds": IN_ENV,
        "the passphrase": PASSPHRASE,
    }
    return Attack(machine, secrets, token)


@asynccontextmanager
async def over_stdio(attack: Attack) -> AsyncIterator[tuple[Client, Path]]:
    log = attack.machine.root / "server.log"
    with log.open("w") as errlog:
        transport = stdio_client(attack.machine.stdio(), errlog=errlog)
        async with Client(
            transport, mode="2026-07-28", elicitation_callback=attack.accept
        ) as client:
            yield client, log


@asynccontextmanager
async def over_http(attack: Attack) -> AsyncIterator[tuple[Client, Path]]:
    log = attack.machine.root / "server.log"
    headers = {"Authorization": f"Bearer {attack.token}"}
    with running(attack.machine, log) as address:
        async with httpx2.AsyncClient(headers=headers, timeout=60) as http:
            transport = streamable_http_client(address, http_client=http)
            async with Client(
                transport, mode="legacy", elicitation_callback=attack.accept
            ) as client:
                yield client, log


@contextmanager
def running(machine: Machine, log: Path) -> Iterator[str]:
    with (
        log.open("w") as errlog,
        subprocess.Popen(
            machine.command("serve", "--http", "--port", "0"), stderr=errlog
        ) as process,
        log.open() as reading,
    ):
        try:
            text = ""
            while not (found := re.search(r"serving at (\S+)\n", text)):
                assert process.poll() is None, text
                text += reading.readline()
            yield found[1]
        finally:
            process.terminate()
            process.wait(60)


def live(machine: Machine) -> dict[str, str]:
    """The live data and what the operator wrote, by path, hashed."""
    kept = ("state", "backups", "server.log")
    files = [
        path
        for path in sorted(machine.root.rglob("*"))
        if path.is_file() and path.relative_to(machine.root).parts[0] not in kept
    ]
    return {
        str(path): sha256(path.read_bytes()).hexdigest()
        for path in files
        if not path.name.endswith(("-wal", "-shm"))  # come and go with whoever reads
    }


def backups(machine: Machine) -> dict[str, str]:
    """Every object of the repository but locks, hashed; objects never change."""
    objects = [path for path in (machine.root / "backups").rglob("*") if path.is_file()]
    return {
        str(path): sha256(path.read_bytes()).hexdigest()
        for path in objects
        if path.parent.name != "locks"
    }


def command_lines() -> str:
    """What a process list shows of every process on this machine."""
    told = ""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            told += path.read_bytes().decode(errors="replace")
        except OSError:  # it has ended
            continue
    return told


async def everything(attack: Attack, client: Client, offset: int) -> str:
    """Do whatever an agent can do; return the process lists seen meanwhile."""
    seen = ""
    tools = {tool.name: tool.input_schema for tool in (await client.list_tools()).tools}
    for number, (tool, schema) in enumerate(tools.items(), offset):
        for arguments in nasty(schema, number):
            if not (tool in WORKING and any(arguments.get(name) for name in HARMLESS)):
                await attack.call(client, tool, arguments)
        for arguments in made_up(schema, WORKING.get(tool, 15)):
            await attack.call(client, tool, arguments)
        seen += command_lines()
    for note in NASTY[10:14]:
        await attack.call(
            client, "create_backup", {"note": note, "verify": False, "backup_type": "config"}
        )
    await forge(attack, client)
    return seen + command_lines()


async def forge(attack: Attack, client: Client) -> None:
    """Make plans and carry them out without anybody's approval, in every way there is."""
    good, plan = await attack.call(client, "restore_backup", {})
    assert good
    identity = plan["plan_id"]
    digits = identity.removeprefix("plan_")
    for arguments in (
        {"plan_id": identity},
        {"plan_id": identity, "dry_run": False, "target": "original"},
        {"plan_id": identity, "target": "scratch"},
        {"plan_id": identity, "databases": "notes"},
        {"plan_id": f"{identity}.json"},
        {"plan_id": f"./{identity}"},
        {"plan_id": identity.upper()},
        {"plan_id": f"plan_{digits[::-1]}"},
        {"plan_id": "plan_" + "0" * 12},
    ):
        assert not (await attack.call(client, "restore_backup", arguments))[0], arguments
    good, scratch = await attack.call(client, "restore_backup", {"target": "scratch"})
    assert good
    for arguments in ({"plan_id": scratch["plan_id"]}, {"plan_id": scratch["restore_id"]}):
        assert not (await attack.call(client, "restore_backup", arguments))[0]
    for identity in (scratch["restore_id"], plan["plan_id"], "latest", ""):
        assert not (await attack.call(client, "undo_restore", {"restore_id": identity}))[0]


@pytest.mark.parametrize(("door", "offset"), [(over_stdio, 0), (over_http, 2)])
async def test_nothing_is_lost_changed_or_given_away(
    attack: Attack, door: Door, offset: int
) -> None:
    machine = attack.machine
    before, kept = live(machine), backups(machine)
    async with door(attack) as (client, log):
        processes = await everything(attack, client, offset)
    assert attack.asked == 0  # a person is not asked at the client, so it cannot answer for one

    assert live(machine) == before
    assert machine.texts() == ["first"]
    assert not list(machine.root.rglob("owned"))
    after = backups(machine)
    assert {path: after.get(path) for path in kept} == kept
    async with machine.engine() as engine:
        page = await engine.backups(limit=100)
        assert page.total >= 2
        assert (await engine.verify(page.entries[-1].backup_id, Level.DATA)).ok
        assert (await engine.check()).ok
        askers = {run.asker.name for run in await engine.history.runs(verb="create")}

    if door is over_http:
        assert any(name.endswith(" with token agent") for name in askers)

    answers = "\n".join(attack.answers)
    state = b"".join(
        path.read_bytes()
        for path in (machine.root / "state").rglob("*")
        if path.is_file() and "scratch" not in path.parts  # where restores are, for the person
    ).decode(errors="replace")
    for name, secret in attack.secrets.items():
        for place, text in {
            "an answer": answers,
            "the log": log.read_text(errors="replace"),
            "the history or state": state,
            "a process list": processes,
        }.items():
            assert secret not in text, f"{name} is in {place}"
    invisible = {"\x1b", "\u202e", "\u200b", "\U000e0041"}
    assert set(answers) & invisible == set()
    assert set(log.read_text(errors="replace")) & invisible == set()
