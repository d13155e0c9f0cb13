"""PostgreSQL databases that an operator's programs use, found where those are told of them.

MCP servers are given addresses in their arguments and environment, with passwords in them more
often than not: of an address its host, port, database and user come out, and nothing else. A
service file names databases too.
"""

from collections.abc import Iterator, Mapping
from configparser import ConfigParser
from configparser import Error as NoServices
from pathlib import Path
from urllib.parse import unquote, urlsplit

from msgspec import Struct

_SCHEMES = ("postgres", "postgresql")
_SERVICES = ".pg_service.conf"


class PostgresFound(Struct, frozen=True):
    """A `[[databases]]` source of kind "postgres": its name and its other settings."""

    name: str
    settings: Mapping[str, str | int]


def databases_of(name: str, server: object) -> Iterator[PostgresFound]:
    """Yield the databases whose addresses an MCP server is started with."""
    if not isinstance(server, dict):
        return
    arguments, environment = server.get("args"), server.get("env")
    values = list(arguments) if isinstance(arguments, list) else []
    values += list(environment.values()) if isinstance(environment, dict) else []
    for value in values:
        found = _addressed(value) if isinstance(value, str) else None
        if found:
            yield PostgresFound(f"{name}-{found['dbname']}", found)


def services(home: Path) -> Iterator[PostgresFound]:
    """Yield the databases that the user's service file names."""
    parser = ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string((home / _SERVICES).read_text(encoding="utf-8"))
    except (OSError, ValueError, NoServices):  # absent, or not ours to judge
        return
    for service in parser.sections():
        dbname = parser.get(service, "dbname", fallback="")
        if _plain(service) and _plain(dbname):
            yield PostgresFound(service, {"service": service, "dbname": dbname})


def _addressed(text: str) -> dict[str, str | int] | None:
    """Return where an address leads, without its password; None when it is none."""
    try:
        parts = urlsplit(text.partition("=")[2] if text.startswith("--") else text)
        port = parts.port
    except ValueError:
        return None
    dbname = unquote(parts.path[1:])
    if parts.scheme not in _SCHEMES or not _plain(dbname):
        return None
    where = (("host", parts.hostname), ("port", port))
    found: dict[str, str | int] = {key: value for key, value in where if value}
    found["dbname"] = dbname
    user = unquote(parts.username or "")
    return found | ({"user": user} if _plain(user) else {})


def _plain(text: str) -> bool:
    return bool(text) and text.isprintable() and len(text) < 200
