"""Restores over a live database of a real server: exact, undoable, dropping nothing of others."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from msgspec.structs import replace

from mcp_backup.engine import Engine
from mcp_backup.errors import RestoreError, SourceUnreadable, StagingRejected, TargetBusy
from mcp_backup.opening import initialise, opened
from mcp_backup.sources.postgres_beside import discard, prepare
from mcp_backup.sources.postgres_swap import keep, place, put_back
from mcp_backup.verbs import CreateRequest
from mcp_backup.verbs_restores import RestoreReport, RestoreRequest
from tests.postgres.conftest import Live, Server
from tests.postgres.test_capture import captured, staged
from tests.restore.bench import bench
from tests.system import System


async def backed_up(live: Live, **more: Any) -> None:
    settings = live.settings(**more)
    if not (live.root / "backups").exists():
        await initialise(settings)
    async with opened(settings) as engine:
        await engine.create(CreateRequest(verify=False))


async def restored(engine: Engine) -> RestoreReport:
    plan = await engine.plan_restore(RestoreRequest())
    return await engine.restore(plan.plan_id, consent=True)


def wreck(live: Live) -> None:
    live.sql(
        "DELETE FROM entries",
        "DROP VIEW rich",
        "ALTER TABLE accounts DROP COLUMN balance",
        "SELECT lo_unlink(oid) FROM pg_largeobject_metadata",
        "SELECT setval('accounts_id_seq', 1)",
    )


ABOUT = (
    "SELECT pg_get_userbyid(datdba), encoding, datcollate, datctype, datconnlimit, datallowconn, "
    "(SELECT array_agg(a::text ORDER BY a::text) FROM unnest(datacl) a), "
    "shobj_description(d.oid, 'pg_database'), "
    "(SELECT array_agg(setrole || ' ' || array_to_string(setconfig, ',') ORDER BY setrole)::text "
    "FROM pg_db_role_setting WHERE setdatabase = d.oid) "
    "FROM pg_database d WHERE datname = current_database()"
)


def prepared(live: Live, place: Path, **more: Any) -> Path:
    """Capture, and make a database of the dump beside the live one; in this process."""
    place.mkdir()
    found = captured(live.spec(**more), place / "scratch")
    directory = staged(found, place / "staged")
    prepare(live.spec(**more), directory, found.evidence)
    return directory


async def test_a_restore_is_exact_an_undo_is_too_and_that_can_be_undone(
    live: Live, tmp_path: Path
) -> None:
    name = live.name
    live.sql(
        f"COMMENT ON DATABASE {name} IS 'of its owner'",
        f"ALTER DATABASE {name} SET search_path TO public, \"Archive of 'x'\"",
        f"ALTER ROLE bob IN DATABASE {name} SET work_mem TO '8MB'",
        f"ALTER DATABASE {name} OWNER TO alice",
        f"REVOKE CONNECT ON DATABASE {name} FROM PUBLIC",
        f"GRANT CONNECT ON DATABASE {name} TO bob WITH GRANT OPTION",
        f"ALTER DATABASE {name} CONNECTION LIMIT 50",
    )
    about, before = live.sql(ABOUT), live.server.text(name)
    first = captured(live.spec(), tmp_path / "scratch").evidence
    await backed_up(live)
    wreck(live)
    wrecked = live.server.text(name)
    user = live.server.connect(name, "alice")
    user.execute("SET application_name = 'the ledger'")
    async with opened(live.settings()) as engine:
        plan = await engine.plan_restore(RestoreRequest())
        (holder,) = plan.targets[0].holders
        assert holder.command == "the ledger as alice from a local socket"
        assert any("whose connections would be ended" in warning for warning in plan.warnings)
        assert plan.targets[0].lost.startswith("what was written since")
        report = await engine.restore(plan.plan_id, consent=True)
        assert report.targets[0].notes == (f"1 connections to {name} were ended",)
        with pytest.raises(psycopg.OperationalError, match="terminating connection"):
            user.execute("SELECT 1")
        assert live.server.text(name) == before
        assert live.sql(ABOUT) == about
        again = captured(live.spec(), tmp_path / "scratch").evidence
        assert again.facts == first.facts
        (kept,) = live.beside()
        with pytest.raises(psycopg.OperationalError, match="not currently accepting connections"):
            live.server.connect(kept)
        await engine.undo(report.undo_id, consent=True)
        assert live.server.text(name) == wrecked
        assert live.sql(ABOUT) == about
        (point,) = await engine.restores()
        await engine.undo(point.restore_id, consent=True)
        assert live.server.text(name) == before
        assert live.beside() == [kept]


async def test_forgotten_undo_points_drop_what_was_kept_unless_another_keeps_it_too(
    live: Live,
) -> None:
    await backed_up(live)
    wreck(live)
    settings = live.settings()
    rules = replace(settings.restore, undo_keep=1)
    async with opened(replace(settings, restore=rules)) as engine:
        report = await restored(engine)
        (first,) = live.beside()
        await engine.undo(report.undo_id, consent=True)
        (point,) = await engine.restores()
        await engine.undo(point.restore_id, consent=True)  # here the restore's own is forgotten
        assert live.beside() == [first]
        query = f"SELECT 1 FROM pg_database WHERE datname = '{first}'"
        await restored(engine)
        assert live.server.sql("postgres", query) == []  # nobody keeps it any more
        assert len(live.beside()) == 1


def test_a_database_that_is_gone_comes_back_and_its_undo_takes_it_away(
    live: Live, tmp_path: Path
) -> None:
    before = live.server.text(live.name)
    directory = prepared(live, tmp_path / "one")
    live.server.sql("postgres", f"DROP DATABASE {live.name}")
    (undo := tmp_path / "undo").mkdir()
    assert keep(live.spec(), undo, directory).state == "absent"
    place(live.spec(), directory)
    assert live.server.text(live.name) == before
    put_back(live.spec(), undo)
    put_back(live.spec(), undo)
    assert live.name not in live.server.databases()
    assert len(live.beside()) == 1
    discard(live.spec(), directory)
    assert live.beside() == []


def test_what_is_kept_is_dropped_only_while_it_is_ours(live: Live, tmp_path: Path) -> None:
    directory = prepared(live, tmp_path / "one")
    (undo := tmp_path / "undo").mkdir()
    keep(live.spec(), undo, directory)
    discard(live.spec(), undo)
    assert live.name in live.server.databases()  # it is live still
    place(live.spec(), directory)
    discard(live.spec(), directory)
    (kept,) = live.beside()
    for taken, given_back in (
        (
            f"ALTER DATABASE {kept} RENAME TO {live.name}_mine",
            f"ALTER DATABASE {live.name}_mine RENAME TO {kept}",
        ),
        (
            f"COMMENT ON DATABASE {kept} IS 'mine now'",
            f"COMMENT ON DATABASE {kept} IS 'mcp-backup: kept'",
        ),
    ):
        live.server.sql("postgres", taken)
        discard(live.spec(), undo)
        assert len(live.beside()) == 1
        live.server.sql("postgres", given_back)
    live.server.sql("postgres", f"CREATE DATABASE {live.name}_undo_1")
    discard(live.spec(), undo)
    assert live.beside() == [f"{live.name}_undo_1"]
    before = live.server.text(live.name)
    with pytest.raises(RestoreError, match="is gone"):
        put_back(live.spec(), undo)
    assert live.server.text(live.name) == before


def test_roles_that_are_missing_are_said_and_their_things_are_the_restorers(
    live: Live, tmp_path: Path
) -> None:
    live.sql("CREATE ROLE carol", "CREATE ROLE dave", "CREATE TABLE hers (n int)")
    live.sql("ALTER TABLE hers OWNER TO carol", "GRANT SELECT ON accounts TO dave")
    found = captured(live.spec(), tmp_path / "scratch")
    live.sql("DROP TABLE hers", "REVOKE ALL ON accounts FROM dave", "DROP ROLE carol, dave")
    directory = staged(found, tmp_path / "staged")
    prepare(live.spec(), directory, found.evidence)
    owner, grants = place(live.spec(), directory)
    assert "everything belongs to postgres now: carol own some of it" in owner
    assert grants == "no grants were restored: dave are not here"
    query = "SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = 'hers'"
    assert live.sql(query) == [("postgres",)]


def test_what_is_restored_beside_is_compared_and_dropped_when_it_differs(
    live: Live, tmp_path: Path
) -> None:
    found = captured(live.spec(), tmp_path / "scratch")
    directory = staged(found, tmp_path / "staged")
    facts = {**found.evidence.facts, "indexes": {"public.lost": "CREATE INDEX lost"}}
    with pytest.raises(StagingRejected, match=r"indexes public\.lost: expected CREATE INDEX lost"):
        prepare(live.spec(), directory, replace(found.evidence, facts=facts))
    assert len(live.beside()) == 1
    discard(live.spec(), directory)
    assert live.beside() == []


async def test_a_dump_that_does_not_load_leaves_no_database_behind(live: Live) -> None:
    """Constraint and data disagree, which a server allows that was made to forget it."""
    live.sql(
        "SET session_replication_role = replica", "UPDATE entries SET account = 5000 WHERE id = 7"
    )
    before = live.server.text(live.name)
    await backed_up(live)
    async with opened(live.settings()) as engine:
        with pytest.raises(SourceUnreadable, match="pg_restore failed") as refused:
            await restored(engine)
    assert "entries_account_fkey" in str(refused.value)
    assert "5000" not in str(refused.value)  # values of rows stay out of it
    assert (live.server.text(live.name), live.beside()) == (before, [])


def test_a_connection_that_cannot_be_ended_is_a_refusal_that_changes_nothing(
    live: Live, tmp_path: Path
) -> None:
    """It is a superuser's, and the source's role is none."""
    live.server.sql("postgres", "ALTER ROLE alice CREATEDB")
    (own := tmp_path / "own").mkdir()
    mine = Live(live.server, f"{live.name}_alice", own)
    live.server.sql("postgres", f"CREATE DATABASE {mine.name} OWNER alice")
    try:
        with live.server.connect(mine.name, "alice") as alice:
            alice.execute("CREATE TABLE notes AS SELECT 1 AS n")
        directory = prepared(mine, tmp_path / "one", user="alice")
        with live.server.connect(mine.name, "postgres") as user:
            with pytest.raises(TargetBusy, match="is in use by a program as postgres"):
                place(mine.spec(user="alice"), directory)
            assert user.execute("SELECT n FROM notes").fetchone() == (1,)
        assert len(mine.beside()) == 1
        place(mine.spec(user="alice"), directory)
    finally:
        live.server.sql("postgres", "ALTER ROLE alice NOCREATEDB")


def test_a_newer_server_and_its_vectors_go_through_all_of_it(newer: Server, tmp_path: Path) -> None:
    newer.sql("postgres", "CREATE DATABASE vectors")
    live = Live(newer, "vectors", tmp_path)
    live.sql(
        "CREATE EXTENSION vector",
        "CREATE TABLE memories (id int PRIMARY KEY, embedding vector(3))",
        "INSERT INTO memories SELECT n, ARRAY[n, 1, 2]::vector FROM generate_series(1, 100) n",
        "CREATE INDEX near ON memories USING hnsw (embedding vector_l2_ops)",
    )
    before = newer.text("vectors")
    programs = {"bin_dir": str(newer.bin_dir)}
    directory = prepared(live, tmp_path / "one", **programs)
    live.sql("DROP TABLE memories", "DROP EXTENSION vector")
    place(live.spec(**programs), directory)
    assert newer.text("vectors") == before
    nearest = "SELECT id FROM memories ORDER BY embedding <-> '[42, 1, 2]' LIMIT 1"
    assert live.sql(nearest) == [(42,)]


def test_programs_newer_than_the_server_dump_it_and_restore_into_it(
    live: Live, newer: Server, tmp_path: Path
) -> None:
    """They set what that server does not know; of that alone nothing is made."""
    before = live.server.text(live.name)
    programs = {"bin_dir": str(newer.bin_dir)}
    directory = prepared(live, tmp_path / "one", **programs)
    wreck(live)
    place(live.spec(**programs), directory)
    assert live.server.text(live.name) == before
    live.sql(
        "SET session_replication_role = replica", "UPDATE entries SET account = 5000 WHERE id = 7"
    )
    with pytest.raises(SourceUnreadable, match="entries_account_fkey"):
        prepared(live, tmp_path / "two", **programs)


@contextmanager
def no_larger_files(size: int) -> Iterator[None]:
    """Let this process write no file beyond so many bytes: a full disk that needs no root."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_disk_that_fills_up_while_staging_is_an_error_that_leaves_nothing(
    live: Live,
) -> None:
    """Ours, or the server's, on which a database is being made of the dump."""
    wide = "SELECT n, repeat(md5(n::text), 30) AS text FROM generate_series(1, 18500) n"
    live.sql(f"CREATE TABLE ballast AS {wide}")
    query = "SELECT count(*), sum(hashtext(b::text)) FROM ballast b"
    before = live.sql(query)
    await backed_up(live)
    full = pytest.raises(RestoreError, match=r"staging in .*: File too large")
    full_there = pytest.raises(SourceUnreadable, match=r"pg_restore failed: .*extend file")
    async with bench(System(live.root, live.settings())) as on:
        with no_larger_files(1 << 20), full as refused:
            await on.restore()
        assert refused.value.hint.startswith("Free some space there, or raise its limits")
        with live.server.no_larger_files(16 << 20), full_there:  # its log's files are as large
            await on.restore()
        assert list(on.restores.iterdir()) == []
        assert (live.sql(query), live.beside()) == (before, [])
        await on.restore()
        assert (live.sql(query), len(live.beside())) == (before, 1)
