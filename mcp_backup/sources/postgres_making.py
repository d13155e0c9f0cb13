"""A new PostgreSQL database made of a dump, beside the live one.

What belongs to a database and is in no dump of it is given to it from the evidence: encoding,
locale, owner, connection limit, comment, settings and grants. Roles are never made: a role that
is missing loses what it owned or was granted, and that is said.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg

from mcp_backup.errors import IntegrityError
from mcp_backup.sources.postgres_archive import NoArchive, program_of
from mcp_backup.sources.postgres_server import Connection, connected, conninfo, do, rows
from mcp_backup.sources.postgres_tools import Tool, fitting, run
from mcp_backup.sources.source import SourceSpec

_TIMEOUTS = 17  # since this version pg_restore does this first, and older servers do not know it
_TIMEOUT = "SET transaction_timeout = 0;"
_PRIVILEGES = frozenset({"CREATE", "CONNECT", "TEMPORARY"})


def made(
    connection: Connection, spec: SourceSpec, name: str, live: str, seen: Mapping[str, Any]
) -> list[str]:
    """Create the empty database; return notes for people."""
    about: Mapping[str, Any] = seen.get("database", {})
    owner, notes = _owner(connection, live, about)
    words = ["CREATE DATABASE {} TEMPLATE template0"]
    values: dict[str, str | int] = {}
    if about:
        words.append("ENCODING {encoding} LC_COLLATE {collate} LC_CTYPE {ctype}")
        values = {key: str(about[key]) for key in ("encoding", "collate", "ctype")}
        provider = {"i": "icu", "b": "builtin"}.get(about.get("provider", "c"))
        if provider and about.get("locale"):
            locale = "ICU_LOCALE" if provider == "icu" else "BUILTIN_LOCALE"
            words.append(f"LOCALE_PROVIDER {provider} {locale} {{locale}}")
            values["locale"] = str(about["locale"])
    do(connection, " ".join(words), name, **values)
    if owner:
        do(connection, "ALTER DATABASE {} OWNER TO {}", name, owner)
    return notes


def load(
    spec: SourceSpec, dump: Path, name: str, seen: Mapping[str, Any], directory: Path
) -> list[str]:
    """Restore the dump into the database `name`; return notes for people."""
    with connected(spec, name) as connection:
        flags, notes = _roles(connection, seen)
        major = connection.info.server_version // 10000
    tool = fitting_restorer(spec, dump)
    older = tool.major >= _TIMEOUTS > major
    run(
        spec,
        [
            tool.path,
            *(() if older else ("--exit-on-error",)),
            "--no-password",
            "--no-subscriptions",  # they would keep the database from being dropped
            *flags,
            f"--dbname={conninfo(spec, name)}",
            str(dump),
        ],
        directory,
        forgiven=_TIMEOUT if older else "",
    )
    return notes


def fitting_restorer(spec: SourceSpec, dump: Path) -> Tool:
    """Return the `pg_restore` for a dump.

    Raises:
        IntegrityError: it is no dump.
        SourceUnreadable: there is none that can do it; says which to install.
    """
    try:
        program = program_of(dump)
    except NoArchive as error:
        raise IntegrityError(f"{dump.name} is no archive of pg_dump: {error}") from error
    return fitting(spec, "pg_restore", program, f"the dump was made by pg_dump {program}")


def settle(connection: Connection, name: str, about: Mapping[str, Any]) -> list[str]:
    """Give the database the settings, grants and limit it had; return what it could not have."""
    roles = {str(row[0]) for row in rows(connection, "SELECT rolname FROM pg_roles")}
    lost = []
    if about.get("granted"):
        do(connection, "REVOKE ALL ON DATABASE {} FROM PUBLIC", name)
    for role, privilege, grantable in about.get("grants", ()):
        if privilege not in _PRIVILEGES or (role and role not in roles):
            lost.append(f"{privilege} of {role}")
            continue
        text = f"GRANT {privilege} ON DATABASE {{}} TO {'{}' if role else 'PUBLIC'}"
        names = (name, role) if role else (name,)
        do(connection, text + (" WITH GRANT OPTION" if grantable else ""), *names)
    for role, setting in about.get("settings", ()):
        known = not role or role in roles
        if not known or not _set(connection, name, str(role), str(setting)):
            lost.append(f"the setting {str(setting).partition('=')[0]}")
    if about.get("connection_limit", -1) >= 0:
        limit = int(about["connection_limit"])
        do(connection, "ALTER DATABASE {} CONNECTION LIMIT {limit}", name, limit=limit)
    return [f"the database could not be given: {', '.join(lost)}"] if lost else []


def _set(connection: Connection, name: str, role: str, setting: str) -> bool:
    """Repeat a setting as it is stored: lists are quoted in it, so it goes by way of a session."""
    key, _, value = setting.partition("=")
    parts = key.split(".")
    what = f"{'.'.join(['{}'] * len(parts))} FROM CURRENT"
    try:
        with connection.transaction():
            rows(connection, "SELECT set_config({key}, {value}, true)", key=key, value=value)
            if role:
                do(connection, f"ALTER ROLE {{}} IN DATABASE {{}} SET {what}", role, name, *parts)
            else:
                do(connection, f"ALTER DATABASE {{}} SET {what}", name, *parts)
    except psycopg.Error:  # it may only be set at a start, or by another role: said by the caller
        return False
    return True


def _owner(connection: Connection, live: str, about: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Return whom the database is to belong to: as captured, else as the live one, else to us."""
    query = (
        "SELECT rolname FROM pg_roles WHERE rolname = {wanted} AND pg_has_role(oid, 'USAGE') "
        "UNION ALL SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = {live} "
        "AND pg_has_role(datdba, 'USAGE')"
    )
    wanted = str(about.get("owner", ""))
    found = [str(row[0]) for row in rows(connection, query, wanted=wanted, live=live)]
    if found and found[0] == wanted:
        return wanted, []
    owner = found[0] if found else ""
    now = owner or connection.info.user
    return owner, [f"the database belonged to {wanted}; it belongs to {now} now"] if wanted else []


def _roles(connection: Connection, seen: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return what pg_restore is told of roles, and what people are."""
    query = "SELECT rolname, pg_has_role(oid, 'USAGE') FROM pg_roles"
    known = {str(name): bool(ours) for name, ours in rows(connection, query)}
    flags, notes = [], []
    owners = [role for role in seen.get("owners", ()) if not known.get(role)]
    if owners:
        flags.append("--no-owner")
        notes.append(
            f"everything belongs to {connection.info.user} now: {_named(owners)} own some of it "
            "and are not here, or may not be acted for"
        )
    grantees = [role for role in seen.get("grantees", ()) if role not in known]
    if grantees:
        flags.append("--no-privileges")
        notes.append(f"no grants were restored: {_named(grantees)} are not here")
    return flags, notes


def _named(roles: Sequence[str]) -> str:
    return ", ".join(roles[:5]) + (", ..." if len(roles) > 5 else "")
