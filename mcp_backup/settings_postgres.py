"""What `[[databases]]` of kind "postgres" say: where the server is, and never a password.

A place is given by fields (`host`, `port`, `dbname`, `user`, `service`) or as a `dsn`, which comes
to the same. Passwords are found by libpq (.pgpass, a service file); or a command prints one.
`drill_dsn` is where drills make their databases instead: a database of another server to connect
to, in which nothing is touched. `password_command` is not run for it.
"""

from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import parse_qsl, unquote, urlsplit

from msgspec import Meta
from msgspec.structs import replace

from mcp_backup.settings_table import Refused, Repeated, shaped
from mcp_backup.sources.source import SourceSpec

_PLACE = ("service", "host", "port", "dbname", "user")
_OF_SERVERS = (*_PLACE, "dsn", "bin_dir", "password_command", "maintenance_dbname", "drill_dsn")
_SECRET = ("password", "passfile", "sslpassword")

Named = Annotated[
    str,
    shaped(r"\A[^\x00-\x1f]+\Z", "be text on one line", shortest=1, longest=200),
]
Absolute = Annotated[str, shaped(r"\A/", "be an absolute path")]


class ServerFields(Repeated, frozen=True, kw_only=True):
    """The fields that only databases of servers have; without them, all are `None`."""

    service: Named | None = None
    host: Named | None = None
    port: Annotated[int, Meta(ge=1, le=65535)] | None = None
    dbname: Named | None = None
    user: Named | None = None
    dsn: str | None = None
    bin_dir: Absolute | None = None
    password_command: Named | None = None
    maintenance_dbname: Named | None = None  # "postgres"
    drill_dsn: str | None = None

    def __post_init__(self) -> None:
        """Refuse addresses that are none, or hold a password."""
        super().__post_init__()
        for name in ("dsn", "drill_dsn"):
            dsn = getattr(self, name)
            if dsn is not None:
                _refuse_dsn(dsn, name)


def _refuse_dsn(dsn: str, name: str) -> None:
    """Refuse a DSN with a password in it, or one that is no address of one database."""
    try:
        parts = urlsplit(dsn)
        query = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
        secret = parts.password is not None or any(key in query for key in _SECRET)
        usable = parts.scheme in ("postgres", "postgresql") and len(parts.path) > 1
        usable = usable and (parts.port is None or parts.port > 0) and not parts.fragment
    except ValueError:
        secret, usable = False, False
    if secret:
        raise Refused(
            "must not hold a password; put it into ~/.pgpass, a service file or `password_command`",
            name,
        )
    if not usable:
        raise Refused("must be postgresql://USER@HOST:PORT/DATABASE, without a password", name)


def complete(fields: ServerFields) -> None:
    """Refuse what does not name one database, or names it twice.

    Raises:
        Refused: says what it must have.
    """
    if fields.dsn is not None:
        if twice := [name for name in _PLACE if getattr(fields, name) is not None]:
            raise Refused(f"must have `dsn` or `{twice[0]}`, not both")
    elif fields.dbname is None:
        raise Refused("must have `dbname`, the database's name on its server, or `dsn`")


def refuse_stray(fields: ServerFields) -> None:
    """Refuse fields of servers where the database is a file.

    Raises:
        Refused: names one.
    """
    if stray := [name for name in _OF_SERVERS if getattr(fields, name) is not None]:
        raise Refused(f'must not have `{stray[0]}` unless its `kind` is "postgres"')


def options(fields: ServerFields) -> dict[str, Any]:
    """Return the options of the source's spec."""
    return {
        "connection": connection(fields),
        "bin_dir": fields.bin_dir,
        "password_command": fields.password_command,
        "maintenance_dbname": fields.maintenance_dbname or "postgres",
        "drill": _of_dsn(fields.drill_dsn) if fields.drill_dsn else None,
    }


def for_drills(spec: SourceSpec) -> SourceSpec:
    """Return the source as drills reach it: on the server named for them, else on its own."""
    words = spec.options.get("drill")
    if not words:
        return spec
    told = {
        "connection": {**words, "dbname": spec.options["connection"]["dbname"]},
        "maintenance_dbname": words["dbname"],
        "password_command": None,
    }
    return replace(spec, path=address(words), options={**spec.options, **told})


def connection(fields: ServerFields) -> dict[str, str]:
    """Return what libpq is to connect by, in its own words."""
    if fields.dsn is None:
        found = {name: getattr(fields, name) for name in _PLACE}
        return {name: str(value) for name, value in found.items() if value is not None}
    return _of_dsn(fields.dsn)


def _of_dsn(dsn: str) -> dict[str, str]:
    parts = urlsplit(dsn)
    words = dict(parse_qsl(parts.query))
    words["dbname"] = unquote(parts.path[1:])
    host = parts.netloc.rpartition("@")[2].removesuffix(f":{parts.port}").strip("[]")
    for name, value in (("host", host), ("port", parts.port), ("user", parts.username)):
        if value:
            words[name] = unquote(str(value))
    return words


def address(words: Mapping[str, str]) -> str:
    """Word where a database is, for people; equal for equal places."""
    user = f"{words['user']}@" if "user" in words else ""
    host = words.get("host", "" if "service" in words else "localhost")
    if host.startswith("/"):
        host = f"[{host}]"
    port = f":{words['port']}" if "port" in words else ""
    service = f"?service={words['service']}" if "service" in words else ""
    return f"postgresql://{user}{host}{port}/{words['dbname']}{service}"
