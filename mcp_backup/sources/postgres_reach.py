"""Whether a PostgreSQL source has all that its backups and restores need, looked at beforehand."""

from typing import Any

from mcp_backup.errors import SourceUnreadable
from mcp_backup.sources.postgres_evidence import held
from mcp_backup.sources.postgres_server import Connection, connected, rows
from mcp_backup.sources.postgres_tools import fitting
from mcp_backup.sources.source import SourceSpec


def reach(spec: SourceSpec) -> str:
    """See that the server answers, and that all is there that backups and restores need.

    Raises:
        SourceError: something is not; it says what.
    """
    with connected(spec) as connection:
        info = connection.info
        major, role, database = info.server_version // 10000, info.user, info.dbname
        version = str(_one(connection, "SELECT current_setting('server_version')"))
        what = f"the server is PostgreSQL {major}"
        dump = fitting(spec, "pg_dump", major, what)
        restore = fitting(spec, "pg_restore", dump.major, f"pg_dump is {dump.version}")
        with held(connection):
            closed = [
                str(row[0])
                for row in rows(
                    connection,
                    "SELECT n.nspname || '.' || c.relname FROM pg_class c "
                    "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'r' "
                    "AND n.nspname !~ '^pg_' AND NOT has_table_privilege(c.oid, 'SELECT')",
                )
            ]
        may_restore = _one(
            connection,
            "SELECT rolsuper OR (rolcreatedb AND (SELECT pg_has_role(datdba, 'USAGE') "
            "FROM pg_database WHERE datname = current_database())) "
            "FROM pg_roles WHERE rolname = current_user",
        )
    if closed:
        raise SourceUnreadable(
            f"source {spec.name!r}: role {role!r} may not read {', '.join(closed[:3])}"
            f"{f' and {len(closed) - 3} more tables' if len(closed) > 3 else ''}",
            hint=f'GRANT pg_read_all_data TO "{role}", or exclude the tables.',
        )
    told = f"PostgreSQL {version} has {database!r} at {spec.path}"
    told += f"; {dump.path} ({dump.version}) and {restore.path} ({restore.version}) fit"
    if not may_restore:
        told += (
            f"; role {role!r} has no CREATEDB or does not own it, so restores go to scratch, and "
        )
        told += "drills load the dump only where `drill_dsn` says"
    return told


def _one(connection: Connection, query: str) -> Any:
    return rows(connection, query)[0][0]
