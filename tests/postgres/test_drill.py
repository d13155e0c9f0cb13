"""Drills of a real server's database: loaded for real beside it, examined, asked, and dropped."""

import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import psycopg
import pytest
from msgspec.structs import replace

from mcp_backup.drill_facts import DrilledSource, DrillReport, DrillRequest
from mcp_backup.errors import SettingsInvalid
from mcp_backup.manifest import Manifest
from mcp_backup.opening import opened
from mcp_backup.proof.drill import drill
from mcp_backup.proof.objectives import recovery
from mcp_backup.proof.report import gathered, rendered
from mcp_backup.settings_drills import CheckSettings
from mcp_backup.settings_postgres import for_drills
from mcp_backup.settings_sections import DatabaseSettings
from mcp_backup.settings_table import checked
from mcp_backup.sources.postgres_beside import discard
from mcp_backup.sources.postgres_ours import Made, write_record
from mcp_backup.sources.postgres_server import connected, system
from mcp_backup.status import status
from tests.postgres.conftest import Live
from tests.postgres.test_restore import backed_up
from tests.proof.conftest import rewritten

NEWEST = DrillRequest(scenario="single-server")
_OURS_ALONE = """
    SELECT count(*) FROM pg_database d WHERE datname = current_database()
    AND datname ~ '^{name}_drill_[0-9a-f]{{16}}$'
    AND NOT has_database_privilege('bob', oid, 'CONNECT')
    AND shobj_description(oid, 'pg_database') LIKE 'mcp-backup: a drill%not live%'
"""
_WAITING = (
    "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'CREATE DATABASE%' "
    "AND wait_event_type = 'Lock'"
)
_FORGET_LARGE_OBJECTS = "SELECT lo_unlink(oid) FROM pg_largeobject_metadata"
_HANGING = (  # in an index, so that a load of the dump hangs while there is a role of that name
    "CREATE FUNCTION waiting(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN "
    "IF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'sleepy') THEN "
    "PERFORM pg_catalog.pg_sleep(600); END IF; RETURN $1; END $$",
    "CREATE INDEX slowly ON accounts (waiting(id))",
)


@contextmanager
def hanging(live: Live) -> Iterator[None]:
    live.server.sql("postgres", "CREATE ROLE sleepy")
    try:
        yield
    finally:
        live.server.sql("postgres", "DROP ROLE sleepy")


async def drilled(live: Live, **more: Any) -> tuple[DrillReport, DrilledSource]:
    async with opened(live.settings(**more)) as engine:
        report = await drill(engine, NEWEST)
        measured = await recovery(engine)
    (result,) = report.results
    assert (measured.seconds is None) is (result.outcome != "proven")
    assert noted(live) == []
    return report, result


def noted(live: Live) -> list[Path]:
    """What is on record as made for drills."""
    return [path for path in (live.root / "state").rglob("drilling/*") if path.is_dir()]


def check(query: str, expect: int | str) -> CheckSettings:
    return CheckSettings(query=query, expect=expect)


async def test_a_dump_is_loaded_examined_and_asked_while_the_live_database_stays_as_it_is(
    live: Live,
) -> None:
    checks = (
        check("SELECT count(*) FROM accounts", 1000),
        check("SELECT sum(balance) FROM accounts", ">= 500500"),
        check(_OURS_ALONE.format(name=live.name), 1),
    )
    wrong = (
        check("SELECT count(*) FROM accounts", "> 1000"),
        check("DELETE FROM accounts", 0),
        check("SELECT 1; COMMIT; DELETE FROM accounts", 1),
        check("SELECT setval('accounts_id_seq', 9)", 9),
        check("SELECT owner::int FROM accounts", 1),
        check("SELECT nothing FROM accounts", 1),
    )
    live.sql(f"GRANT CONNECT ON DATABASE {live.name} TO bob")
    await backed_up(live)
    before = live.server.text(live.name), live.server.databases()
    report, result = await drilled(live, checks=checks)
    assert (report.outcome, result.outcome, result.checks) == ("proven", "proven", 3)
    assert [phase.name for phase in result.phases] == ["restore", "examine", "load", "checks"]
    report, result = await drilled(live, checks=wrong)
    assert (report.outcome, result.checks) == ("failed", 0)
    told = {each.subject: each.message for each in result.findings}
    assert told["check 1"] == "expected > 1000, got 1000"
    assert told["check 2"].startswith("it fails: syntax error")
    assert told["check 3"].startswith("it fails: cannot insert multiple commands")
    assert told["check 4"] == "it is refused, as it does more than read"
    assert told["check 5"] == "it fails: InvalidTextRepresentation"  # its words hold a value
    assert told["check 6"] == 'it fails: column "nothing" does not exist'
    assert (live.server.text(live.name), live.server.databases()) == before


async def test_a_dump_that_is_whole_and_does_not_load_fails_the_drill_and_is_named(
    live: Live,
) -> None:
    live.sql(
        "SET session_replication_role = replica", "UPDATE entries SET account = 5000 WHERE id = 7"
    )
    await backed_up(live)
    report, result = await drilled(live)
    assert (report.outcome, result.outcome) == ("failed", "failed")
    (finding,) = result.findings
    assert finding.subject == f"{live.name}.dump"
    assert "entries_account_fkey" in finding.message
    assert "5000" not in str(report)
    assert live.beside() == []


async def test_what_is_loaded_is_compared_with_the_evidence(live: Live) -> None:
    def lie(manifest: Manifest) -> Manifest:
        (record,) = manifest.sources
        assert record.evidence is not None
        facts = {**record.evidence.facts, "extensions": {"hstore": "1.8", "lost": "1.0"}}
        evidence = replace(record.evidence, facts=facts)
        return replace(manifest, sources=(replace(record, evidence=evidence),))

    await backed_up(live)
    async with opened(live.settings()) as engine:
        await rewritten(engine, lie)
    report, result = await drilled(live)
    assert report.outcome == "failed"
    assert {(each.code, each.subject) for each in result.findings} >= {("extensions", "lost")}
    assert live.beside() == []


async def test_a_damaged_dump_is_not_loaded_at_all(live: Live) -> None:
    await backed_up(live)
    packs = [path for path in (live.root / "backups" / "data").rglob("*") if path.is_file()]
    pack = max(packs, key=lambda path: path.stat().st_size)
    content = bytearray(pack.read_bytes())
    content[len(content) // 2] ^= 1
    pack.chmod(0o600)
    pack.write_bytes(content)
    report, result = await drilled(live)
    assert report.outcome == "failed"
    assert "load" not in {phase.name for phase in result.phases}


async def test_a_dump_that_cannot_be_loaded_is_not_proven_and_what_is_missing_is_said(
    live: Live,
) -> None:
    live.sql(
        "GRANT pg_read_all_data TO reader", "SELECT lo_unlink(oid) FROM pg_largeobject_metadata"
    )
    await backed_up(live, user="reader")
    report, result = await drilled(live, user="reader")
    assert (report.outcome, result.outcome) == ("incomplete", "skipped")
    assert "its dump is whole, and was not loaded" in result.reason
    assert "role 'reader' may not create databases" in result.reason
    assert 'ALTER ROLE "reader" CREATEDB' in result.reason
    assert "`drill_dsn`" in result.reason
    async with opened(live.settings(user="reader")) as engine:
        stood = await status(engine, around=False)
        page = rendered(await gathered(engine), "md")
    assert stood.health == "at risk"
    assert f"the last drill could not prove databases/app: {result.reason}" in stood.reasons
    assert page.startswith("# Proven in part\n\nThe last drill could not prove databases/app: its")
    nowhere = f"postgresql://postgres@/postgres?host={live.root}"
    report, result = await drilled(live, user="reader", drill_dsn=nowhere)
    assert (report.outcome, result.outcome) == ("incomplete", "skipped")
    assert f"no server answers at postgresql://postgres@[{live.root}]" in result.reason
    there = f"postgresql://postgres@/postgres?host={live.server.home}&port={live.server.port}"
    report, result = await drilled(live, user="reader", drill_dsn=there)
    assert (report.outcome, result.reason) == ("proven", "")
    assert live.beside() == []


async def test_a_killed_drill_leaves_what_the_next_one_drops_and_a_cancelled_one_nothing(
    live: Live,
) -> None:
    live.sql(*_HANGING)
    await backed_up(live)
    mine = f"{live.name}_drill_0123456789abcdef"
    live.server.sql("postgres", f"CREATE DATABASE {mine}")  # somebody else's, of such a name
    with hanging(live):
        place = [str(live.root), str(live.server.home), str(live.server.port), live.name]
        command = [sys.executable, "-m", "tests.postgres.drilling", *place]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as killed:
            try:
                left = await another(live, {mine})
            finally:
                killed.kill()
        (note,) = noted(live)
        await let_go(note)
        assert left in live.beside()
        async with opened(live.settings()) as engine, anyio.create_task_group() as tasks:
            tasks.start_soon(drill, engine, NEWEST)
            await another(live, {mine, left})
            assert left not in live.beside()
            tasks.cancel_scope.cancel()
        assert live.beside() == [mine]
        assert noted(live) == []
    _report, result = await drilled(live)
    assert result.outcome == "proven"
    assert live.beside() == [mine]


async def let_go(directory: Path) -> None:
    """Wait for the end of a killed drill's worker, which comes within a second."""
    descriptor = os.open(directory, os.O_RDONLY)
    with anyio.fail_after(60):
        await anyio.to_thread.run_sync(fcntl.flock, descriptor, fcntl.LOCK_EX)
    os.close(descriptor)


async def another(live: Live, known: set[str]) -> str:
    """Wait until a database is made beside the live one that is none of those known."""
    with anyio.fail_after(60):
        while not (made := set(live.beside()) - known):  # noqa: ASYNC110 - a server
            await anyio.sleep(0.05)
    return made.pop()


def test_what_a_server_is_still_making_for_a_killed_worker_is_ended(live: Live) -> None:
    name = f"{live.name}_drill_0123456789abcdef"
    (directory := live.root / "note").mkdir()
    with connected(live.spec(), "postgres") as connection:
        write_record(directory, Made(system(connection), name, 0))

    def make() -> None:
        with live.server.connect() as maker, suppress(psycopg.errors.AdminShutdown):
            maker.execute(f'CREATE DATABASE "{name}" TEMPLATE template0'.encode())

    with closing(live.server.connect()) as other:
        other.execute("BEGIN")
        other.execute("LOCK TABLE pg_database IN SHARE MODE")  # nobody can finish making one
        making = threading.Thread(target=make)
        making.start()
        while not live.server.sql("postgres", _WAITING):
            pass
        discard(live.spec(), directory)
    making.join()
    assert live.beside() == []


def test_the_server_for_drills_is_named_without_a_password_and_gets_none_of_the_sources() -> None:
    fields = {"name": "app", "kind": "postgres", "dbname": "app", "password_command": "pass show"}
    there = "postgresql://drills@db2.example:5433/maintenance"
    spec = checked(DatabaseSettings, {**fields, "drill_dsn": there}).spec()
    drilled_at = for_drills(spec)
    assert drilled_at.path == there
    assert drilled_at.options["connection"] == {
        "host": "db2.example",
        "port": "5433",
        "user": "drills",
        "dbname": "app",
    }
    assert drilled_at.options["maintenance_dbname"] == "maintenance"
    assert drilled_at.options["password_command"] is None
    assert spec.options["password_command"] == fields["password_command"]
    own = checked(DatabaseSettings, fields).spec()
    assert for_drills(own) is own
    with pytest.raises(SettingsInvalid, match="must not hold a password"):
        checked(DatabaseSettings, {**fields, "drill_dsn": "postgresql://me:pw@h/db"})
    with pytest.raises(SettingsInvalid, match="must not have `drill_dsn` unless"):
        checked(DatabaseSettings, {"name": "n", "path": "/n.db", "drill_dsn": there})
