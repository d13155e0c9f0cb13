"""A PostgreSQL server, spoken to: the one place that knows its client library.

    connected    a connection, for a block; what goes wrong in it becomes an error of ours
    environment  what the programs `pg_dump` and `pg_restore` are given, and nothing else
    password     what the settings' command prints; never on a command line, in a log or an error

Where to connect is what the settings say, and nothing else: PGHOST or PGDATABASE of whoever
started us would put a restore over another database. What libpq reads by itself to find a
password or a certificate (.pgpass, service files, Kerberos) is left to it.
"""

import os
import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.rows import TupleRow

from mcp_backup.errors import BackupError, SourceMissing, SourceUnreadable
from mcp_backup.sources.source import SourceSpec

Connection = psycopg.Connection[TupleRow]

_CONNECT_SECONDS = 15
_COMMAND_SECONDS = 60  # a person may have to unlock a keyring
_PASSED = ("HOME", "PATH", "TMPDIR", "KRB5CCNAME", "KRB5_CONFIG")
_PASSED_OF_LIBPQ = ("PGPASSFILE", "PGSERVICEFILE", "PGSYSCONFDIR")
_SOCKETS = "/var/run/postgresql"  # Debian's; other builds of libpq look in /tmp


@contextmanager
def connected(spec: SourceSpec, database: str = "") -> Iterator[Connection]:
    """Connect to the source's database, or to another on its server; in autocommit mode.

    Raises:
        SourceMissing: there is no such database.
        SourceUnreadable: the server is away, refuses us, or refuses what is asked in the block.
    """
    words = arguments(spec, database)
    secret = password(spec)
    for name in [name for name in os.environ if name.startswith("PG")]:
        if name not in _PASSED_OF_LIBPQ:
            del os.environ[name]  # of this worker alone
    if secret:
        words["password"] = secret
    with worded(spec), _opened(spec, words) as connection:
        yield connection


def arguments(spec: SourceSpec, database: str = "") -> dict[str, str]:
    """Return what libpq is to connect by: the settings' words, but for a password."""
    words = {key: str(value) for key, value in spec.options["connection"].items()}
    if "host" not in words and "service" not in words and os.path.isdir(_SOCKETS):
        words["host"] = _SOCKETS
    if database:
        words["dbname"] = database
    return words | {"connect_timeout": str(_CONNECT_SECONDS), "application_name": "mcp-backup"}


def conninfo(spec: SourceSpec, database: str = "") -> str:
    """Return the same as one text, for a program's command line; no password is in it."""
    return psycopg.conninfo.make_conninfo("", **arguments(spec, database))


def environment(spec: SourceSpec, directory: Path) -> dict[str, str]:
    """Return the environment for a program; a password is written to a file in `directory`.

    The caller removes `directory`, or at least what is in it.
    """
    found = {name: os.environ[name] for name in (*_PASSED, *_PASSED_OF_LIBPQ) if name in os.environ}
    secret = password(spec)
    if secret:
        path = directory / "pgpass"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            escaped = secret.replace("\\", "\\\\").replace(":", "\\:")
            file.write(f"*:*:*:*:{escaped}\n")
        found["PGPASSFILE"] = str(path)
    return found | {"LC_ALL": "C.UTF-8"}  # messages in one language


def password(spec: SourceSpec) -> str:
    """Return what the source's `password_command` prints; "" when it has none.

    Raises:
        SourceUnreadable: the command fails, or prints nothing.
    """
    command = spec.options.get("password_command")
    if not command:
        return ""
    try:
        done = subprocess.run(
            shlex.split(command),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_COMMAND_SECONDS,
            check=True,
        )
        found = done.stdout.decode().rstrip("\r\n")
    except subprocess.CalledProcessError as error:
        why = f"exit status {error.returncode}"
    except subprocess.TimeoutExpired:
        why = f"no end after {_COMMAND_SECONDS} seconds"
    except OSError as error:
        why = error.strerror or type(error).__name__
    except ValueError:
        why = "its quotes do not pair, or it prints no UTF-8"
    else:
        if found and "\n" not in found and "\0" not in found:
            return found
        why = "it prints nothing, or more than a line"
    raise SourceUnreadable(
        f"source {spec.name!r}: its password command gave no password: {why}",
        hint="Run `password_command` of the source yourself: it must print the password and end "
        "with 0. Nothing was changed.",
    ) from None


@contextmanager
def worded(spec: SourceSpec) -> Iterator[None]:
    """Say in our words what the server refuses."""
    try:
        yield
    except psycopg.Error as error:
        raise refusal(spec, error) from error


def refusal(spec: SourceSpec, error: psycopg.Error) -> BackupError:
    """Return our error for one of the server's."""
    said = _first_line(error)
    match error:
        case psycopg.errors.InsufficientPrivilege():
            return SourceUnreadable(
                f"source {spec.name!r}: {spec.path}: {said}",
                hint="Let its role do that: for backups, GRANT pg_read_all_data TO it (and "
                "BYPASSRLS where rows are guarded); for restores, CREATEDB and the database's "
                "ownership. Nothing was changed.",
            )
        case psycopg.errors.DiskFull():
            return SourceUnreadable(
                f"source {spec.name!r}: {spec.path}: no space is left on the server's disk: {said}",
                hint="Free some space there, then try again. The live database is as it was.",
            )
        case psycopg.OperationalError() if error.sqlstate is None:
            return SourceUnreadable(
                f"source {spec.name!r}: no server answers at {spec.path}, or it went away: {said}",
                hint="Start the server, or correct the source in the settings; passwords come "
                "from .pgpass, a service file or `password_command`. Nothing was changed.",
            )
    return SourceUnreadable(
        f"source {spec.name!r}: {spec.path}: {said} ({type(error).__name__})",
        hint="Look at the server's log, then try again. Nothing was changed.",
    )


def rows(connection: Connection, query: str, *names: str, **values: str | int) -> list[TupleRow]:
    """Ask a question in which {} stand for names and {key} for values; return all of the answer."""
    return connection.execute(_composed(query, names, values)).fetchall()


def do(connection: Connection, statement: str, *names: str, **values: str | int) -> None:
    """Execute a statement in which {} stand for names and {key} for literal values."""
    connection.execute(_composed(statement, names, values))


def system(connection: Connection) -> str:
    """Return what tells this server's data from any other's."""
    return str(rows(connection, "SELECT system_identifier FROM pg_control_system()")[0][0])


def _composed(text: str, names: Sequence[str], values: Mapping[str, str | int]) -> sql.Composed:
    """Compose a statement of ours; what comes from elsewhere is quoted."""
    literals = {key: sql.Literal(value) for key, value in values.items()}
    return sql.SQL(text).format(*map(sql.Identifier, names), **literals)


@contextmanager
def _opened(spec: SourceSpec, words: Mapping[str, str]) -> Iterator[Connection]:
    try:
        connection = psycopg.connect(autocommit=True, **words)  # type: ignore[arg-type]
    except psycopg.OperationalError as error:
        if "does not exist" in str(error) and "database" in str(error):
            raise SourceMissing(spec.name, f"{spec.path} (database {words['dbname']!r})") from error
        raise
    try:
        for setting in ("statement_timeout", "idle_in_transaction_session_timeout"):
            do(connection, "SET {} = 0", setting)
        yield connection
    finally:
        connection.close()


def _first_line(error: psycopg.Error) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = error.diag.message_primary or (lines[-1] if lines else type(error).__name__)
    return f"{text:.300}"
