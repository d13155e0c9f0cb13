"""Captures of a real server: consistent, quiet about passwords, clear about what is refused."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from mcp_backup.errors import BackupError, SettingsInvalid, SourceMissing, SourceUnreadable
from mcp_backup.sources.postgres import capture, examine
from mcp_backup.sources.postgres_archive import read
from mcp_backup.sources.postgres_beside import prepare
from mcp_backup.sources.postgres_reach import reach
from mcp_backup.sources.postgres_swap import place
from mcp_backup.sources.sink import Sink
from mcp_backup.sources.source import SourceSpec
from tests.postgres.conftest import Live, Server
from tests.sources.collecting import Collected, collect

_FORGET_LARGE_OBJECTS = "SELECT lo_unlink(oid) FROM pg_largeobject_metadata"
PASSWORD = "pä:ss\\w0rd of guarded"  # noqa: S105 - of a role that a test makes


class Watched(Sink):
    """A sink that says when the first bytes arrive."""

    def __init__(self, sink: Sink, on_data: Callable[[], None]) -> None:
        self.__dict__.update(sink.__dict__)
        self._told = False
        self._on_data = on_data

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._told:
            self._told = True
            self._on_data()
        super().write(data)


def captured(
    spec: SourceSpec, scratch: Path, on_data: Callable[[], None] = lambda: None
) -> Collected:
    """Capture in this process; `on_data` is called when the first bytes of the dump arrive."""
    scratch.mkdir(exist_ok=True)

    def taken(sink: Sink) -> Any:
        return capture(spec, Watched(sink, on_data), scratch)

    found = collect(taken, slots=4)
    assert list(scratch.iterdir()) == []
    return found


def staged(found: Collected, directory: Path) -> Path:
    directory.mkdir()
    ((path, content),) = found.content.items()
    (directory / path).write_bytes(content)
    return directory


def test_the_evidence_is_what_the_dump_holds(live: Live, tmp_path: Path) -> None:
    found = captured(live.spec(), tmp_path / "scratch")
    assert found.paths == [f"{live.name}.dump"]
    facts = found.evidence.facts
    assert facts["tables"] == {
        "archive.part": 3,
        "public.accounts": 1000,
        "public.entries": 3000,
    }
    assert facts["large_objects"] == 1
    assert set(facts["extensions"]) == {"hstore", "pg_trgm", "plpgsql"}
    assert facts["constraints"]["public.entries.entries_account_fkey"].startswith("FOREIGN KEY")
    assert facts["sequences"]["public.entries_id_seq"] == [3000, 1]
    assert facts["owners"] == ["alice", "postgres"]
    assert "bob" in facts["grantees"]
    assert (
        "roles with their passwords (this one refers to alice, bob, postgres)"
        in (found.evidence.notes[-1])
    )
    assert examine(staged(found, tmp_path / "staged"), found.evidence) == []


def test_the_archive_is_read_as_pg_restore_reads_it(live: Live, tmp_path: Path) -> None:
    directory = staged(captured(live.spec(), tmp_path / "scratch"), tmp_path / "staged")
    (dump,) = directory.iterdir()
    pg_restore = str(live.server.bin_dir / "pg_restore")
    listed = subprocess.run(
        [pg_restore, "--list", dump], capture_output=True, text=True, check=True
    )
    entries = [line for line in listed.stdout.splitlines() if line and not line.startswith(";")]
    shown = sum(read(dump).entries.values())
    hidden = ("ENCODING", "STDSTRINGS", "SEARCHPATH", "DATABASE")
    assert len(entries) == shown - len(hidden)
    subprocess.run([pg_restore, "-f", os.devnull, dump], check=True)


def test_a_dump_that_is_cut_off_or_lacks_rows_is_found_out(live: Live, tmp_path: Path) -> None:
    found = captured(live.spec(), tmp_path / "scratch")
    directory = staged(found, tmp_path / "staged")
    (dump,) = directory.iterdir()
    whole = dump.read_bytes()
    for size in (3, 40, len(whole) // 3, len(whole) // 2, len(whole) - 1):
        dump.write_bytes(whole[:size])
        (finding,) = examine(directory, found.evidence)
        assert finding.code == "integrity", size
    dump.write_bytes(whole)
    facts = {**found.evidence.facts, "tables": {**found.evidence.facts["tables"]}}
    facts["tables"]["public.accounts"] += 1
    (finding,) = examine(directory, replace(found.evidence, facts=facts))
    assert finding.message == "expected 1001 rows, got 1000"


def test_excluded_tables_are_empty_in_the_dump(live: Live, tmp_path: Path) -> None:
    live.sql('CREATE TABLE "Log*" (line text)', "INSERT INTO \"Log*\" VALUES ('a planted secret')")
    spec = live.spec(exclude_tables=["Log*", "archive.part"])
    found = captured(spec, tmp_path / "scratch")
    assert found.evidence.facts["excluded"] == ["archive.part", "public.Log*"]
    assert found.evidence.facts["tables"]["public.Log*"] == 0
    assert b"planted" not in found.content[f"{live.name}.dump"]
    assert examine(staged(found, tmp_path / "staged"), found.evidence) == []
    with pytest.raises(SettingsInvalid, match="'nonsense', which is no table"):
        captured(live.spec(exclude_tables=["nonsense"]), tmp_path / "scratch")


def test_a_capture_under_pgbench_is_one_moment(live: Live, tmp_path: Path) -> None:
    live.server.program("pgbench", "-i", "-q", "-s", "2", database=live.name)
    home, port = str(live.server.home), str(live.server.port)
    program = [str(live.server.bin_dir / "pgbench"), "-h", home, "-p", port, "-U", "postgres"]
    busy = subprocess.Popen(
        [*program, "-n", "-c", "4", "-T", "600", live.name],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    more = "SELECT count(*) > 50 FROM pgbench_history"
    try:
        while live.sql(more) == [(False,)]:
            assert busy.poll() is None
        found = captured(live.spec(), tmp_path / "scratch")
        directory = staged(found, tmp_path / "staged")
        assert examine(directory, found.evidence) == []
        written = live.sql("SELECT count(*) FROM pgbench_history")[0][0]
        prepare(live.spec(), directory, found.evidence)
        (new,) = live.beside()
        place(live.spec(), directory)  # under the hands of those who write
    finally:
        busy.kill()
        busy.wait()
    accounts, tellers, branches, deltas, count = live.sql(
        "SELECT (SELECT sum(abalance) FROM pgbench_accounts), "
        "(SELECT sum(tbalance) FROM pgbench_tellers), "
        "(SELECT sum(bbalance) FROM pgbench_branches), "
        "(SELECT sum(delta) FROM pgbench_history), (SELECT count(*) FROM pgbench_history)"
    )[0]
    assert accounts == tellers == branches == deltas
    assert 50 <= count == found.evidence.facts["tables"]["public.pgbench_history"] < written
    assert new not in live.beside()


def test_a_server_killed_in_the_middle_is_an_error_and_leaves_nothing(
    live: Live, tmp_path: Path
) -> None:
    live.sql(
        "CREATE TABLE ballast AS SELECT n, repeat(md5(n::text), 40) AS text "
        "FROM generate_series(1, 4000) n"
    )
    try:
        with pytest.raises(SourceUnreadable) as refused:
            captured(live.spec(), tmp_path / "scratch", live.server.stop)
    finally:
        live.server.start()
    assert "pg_dump failed" in str(refused.value)
    assert list((tmp_path / "scratch").iterdir()) == []
    assert captured(live.spec(), tmp_path / "scratch").evidence.facts["tables"]["public.ballast"]


def test_a_server_that_is_away_and_a_database_that_is_not_there(live: Live, tmp_path: Path) -> None:
    with pytest.raises(SourceMissing, match="'nowhere'"):
        captured(live.spec(dbname="nowhere"), tmp_path / "scratch")
    with pytest.raises(SourceUnreadable, match="no server answers at"):
        captured(live.spec(port=9), tmp_path / "scratch")


def test_a_role_that_may_not_read_a_table_is_refused_by_name(live: Live, tmp_path: Path) -> None:
    spec = live.spec(user="reader")
    for asked in (lambda: captured(spec, tmp_path / "scratch"), lambda: reach(spec)):
        with pytest.raises(SourceUnreadable) as refused:
            asked()
        assert "accounts" in str(refused.value) or "archive" in str(refused.value)
        assert "pg_read_all_data" in refused.value.hint
    live.sql("GRANT pg_read_all_data TO reader")
    try:
        with pytest.raises(SourceUnreadable, match="permission denied for large object"):
            captured(spec, tmp_path / "scratch")
        live.sql(_FORGET_LARGE_OBJECTS)
        assert captured(spec, tmp_path / "scratch").evidence.facts["tables"]["public.accounts"]
        assert "restores go to scratch" in reach(spec)
    finally:
        live.sql("REVOKE pg_read_all_data FROM reader")


def test_rows_that_a_policy_hides_are_an_error_and_not_left_out(live: Live, tmp_path: Path) -> None:
    live.sql(
        "ALTER TABLE entries ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY few ON entries TO reader USING (id < 10)",
        _FORGET_LARGE_OBJECTS,
        "GRANT pg_read_all_data TO reader",
    )
    try:
        with pytest.raises(SourceUnreadable, match="row-level security"):
            captured(live.spec(user="reader"), tmp_path / "scratch")
    finally:
        live.sql("REVOKE pg_read_all_data FROM reader")


def test_programs_older_than_the_server_are_refused_with_what_to_install(
    newer: Server, server: Server, tmp_path: Path
) -> None:
    live = Live(newer, "postgres", tmp_path)
    with pytest.raises(SourceUnreadable) as refused:
        captured(live.spec(bin_dir=str(server.bin_dir)), tmp_path / "scratch")
    assert "the server is PostgreSQL 18, and pg_dump 15" in str(refused.value)
    assert "postgresql-client-18" in refused.value.hint
    with pytest.raises(SourceUnreadable, match="there is no pg_dump"):
        captured(live.spec(bin_dir=str(tmp_path)), tmp_path / "scratch")


def test_a_password_is_on_no_command_line_in_no_error_and_left_nowhere(
    live: Live, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quoted = PASSWORD.replace("'", "''")
    live.sql(
        "CREATE TABLE ballast AS SELECT repeat(md5(n::text), 40) FROM generate_series(1, 2000) n"
    )
    try:
        live.sql(
            f"CREATE ROLE guarded LOGIN PASSWORD '{quoted}'",
            "GRANT pg_read_all_data TO guarded",
            _FORGET_LARGE_OBJECTS,
        )
        secret = tmp_path / "secret"
        secret.write_text(PASSWORD + "\n")
        monkeypatch.setenv("PGPASSWORD", "not this one")
        monkeypatch.setenv("PGDATABASE", "template1")
        spec = live.spec(user="guarded", password_command=f"cat {secret}")
        scratch = tmp_path / "scratch"
        seen: list[bool] = []

        def look() -> None:
            lines = [line.read_bytes() for line in Path("/proc").glob("[0-9]*/cmdline")]
            seen.append(any(b"pg_dump" in line for line in lines))
            assert not any(PASSWORD.encode() in line for line in lines)
            assert (scratch / "pgpass").stat().st_mode & 0o777 == 0o600

        found = captured(spec, scratch, look)
        assert seen == [True]
        assert found.evidence.facts["tables"]["public.accounts"] == 1000
        assert PASSWORD not in repr(found.evidence)
        secret.write_text("wrong " + PASSWORD)
        refused = [failure(lambda: captured(spec, scratch)), failure(lambda: reach(spec))]
        secret.unlink()
        refused.append(failure(lambda: captured(spec, scratch)))
        passfile = tmp_path / "passfile"
        passfile.write_text("*:*:*:*:" + PASSWORD.replace("\\", "\\\\").replace(":", "\\:"))
        passfile.chmod(0o600)
        monkeypatch.setenv("PGPASSFILE", str(passfile))
        assert captured(live.spec(user="guarded"), scratch).evidence.facts["tables"]
    finally:
        live.sql("DROP ROLE IF EXISTS guarded")
    assert "password authentication failed" in refused[0]
    assert not any(PASSWORD in text for text in refused)


def failure(work: Callable[[], object]) -> str:
    with pytest.raises(BackupError) as refused:
        work()
    return f"{refused.value!r} {refused.value.hint}"
