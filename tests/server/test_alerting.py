"""Alerts from real servers and real commands."""

import sqlite3
import subprocess
from contextlib import closing

import anyio
from mcp.client import Client

from tests.alerts.receiver import Receiver, receiver
from tests.server.conftest import Machine, answered, refusal
from tests.server.serving import daemon


def told(machine: Machine, http: Receiver) -> None:
    """Have the machine's settings name the receiver, twice."""
    with machine.config.open("a") as config:
        config.write(
            f'[schedule]\nenabled = false\n[[alerts]]\nkind = "webhook"\nurl = "{http.url}"\n'
        )


async def arrived(http: Receiver, count: int) -> None:
    with anyio.fail_after(60):
        while len(http.got) < count:  # noqa: ASYNC110 - another process's
            await anyio.sleep(0.05)


async def test_a_server_tells_of_a_backup_that_failed_and_of_the_one_that_did_not(
    machine: Machine,
) -> None:
    content = machine.database.read_bytes()
    with receiver() as http:
        told(machine, http)
        with daemon(machine) as running:
            async with Client(f"{running.address}/mcp") as client:
                machine.database.unlink()
                await refusal(client, "create_backup", backup_type="database")
                await arrived(http, 1)
                machine.database.write_bytes(content)
                await answered(client, "create_backup", backup_type="database")
                await arrived(http, 2)
        assert http.events == ["failure", "recovery"]


def test_a_command_tells_before_it_ends_and_the_next_what_it_could_not(machine: Machine) -> None:
    machine.database.unlink()
    with receiver() as http:
        told(machine, http)
        for words, code in ((("create",), 3), (("list",), 0), (("create",), 3)):
            ran = subprocess.run(
                machine.command(*words), capture_output=True, stdin=subprocess.DEVNULL, check=False
            )
            assert (ran.returncode, b"Traceback" in ran.stderr) == (code, False), ran.stderr
        assert http.events == ["failure"]
        (machine.root / "backups.key").write_text("another")
        ran = subprocess.run(
            machine.command("create"), capture_output=True, stdin=subprocess.DEVNULL, check=False
        )
        assert ran.returncode == 1
        assert http.events == ["failure", "failure"]
        assert http.got[1].facts["subject"] == "the repository"


def test_an_emptied_database_is_told_as_suspect_by_the_command_that_backs_it_up(
    machine: Machine,
) -> None:
    for number in range(200):
        machine.write(f"{number}")
    with receiver() as http:
        told(machine, http)
        command = machine.command("create", "--backup-type", "database")
        subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL)
        with closing(sqlite3.connect(machine.database)) as connection, connection:
            connection.execute("DELETE FROM notes")
        ran = subprocess.run(command, check=False, capture_output=True, stdin=subprocess.DEVNULL)
        assert ran.returncode == 3
        assert b"SUSPECT: notes: notes: 0 rows, 201 rows in the backup before" in ran.stdout
        subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL)
    assert http.events == ["suspect", "recovery"]
    assert http.got[0].facts["message"] == "notes: 0 rows, 201 rows in the backup before"
