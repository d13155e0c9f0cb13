"""What a PostgreSQL database holds, asked within one transaction: facts to compare a copy with.

    held       a transaction of one snapshot, which `pg_dump` is given the name of
    facts      everything a restored copy must have again, by name; no oid, no time, no file
    differing  what a copy has otherwise, as findings

Nothing that belongs to an extension is among the facts: an extension brings it along.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from mcp_backup.errors import SettingsInvalid
from mcp_backup.sources.postgres_server import Connection, do, rows
from mcp_backup.sources.shapes import (
    either,
    listed,
    mapped,
    nothing,
    number,
    record,
    row,
    rows_of,
    text,
    trusted,
    truth,
)
from mcp_backup.sources.source import Evidence, Finding, SourceSpec

_MOST_NAMED = 5

_NOT_OURS = """
    n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = '{catalog}'::regclass
                    AND d.objid = {oid} AND d.deptype = 'e')
"""
_OF_RELATIONS = _NOT_OURS.format(catalog="pg_class", oid="c.oid")
_TABLES = f"""
    SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND {_OF_RELATIONS} ORDER BY 1, 2
"""
_NAMED: Mapping[str, str] = {  # of facts that map a name to a text
    "constraints": f"""
        SELECT n.nspname || '.' || c.relname || '.' || k.conname, pg_get_constraintdef(k.oid)
        FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
        JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {_OF_RELATIONS}""",
    "indexes": f"""
        SELECT n.nspname || '.' || c.relname, pg_get_indexdef(c.oid)
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('i', 'I') AND {_OF_RELATIONS}""",
    "extensions": "SELECT extname, extversion FROM pg_extension",
    "relations": f"""
        SELECT n.nspname || '.' || c.relname, c.relkind::text
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND {_OF_RELATIONS}""",
    "triggers": f"""
        SELECT n.nspname || '.' || c.relname || '.' || t.tgname, pg_get_triggerdef(t.oid)
        FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
        JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE NOT t.tgisinternal AND {_OF_RELATIONS}""",
    "routines": f"""
        SELECT n.nspname || '.' || p.proname || '(' || pg_get_function_identity_arguments(p.oid)
               || ')', md5(p.prosrc)
        FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
        WHERE {_NOT_OURS.format(catalog="pg_proc", oid="p.oid")}""",
}
_SEQUENCES = f"""
    SELECT n.nspname || '.' || c.relname, s.last_value, s.increment_by
    FROM pg_sequences s JOIN pg_namespace n ON n.nspname = s.schemaname
    JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = s.sequencename
    WHERE {_OF_RELATIONS} ORDER BY 1
"""
_OWNERS = f"""
    SELECT DISTINCT pg_get_userbyid(owner) FROM (
        SELECT c.relowner AS owner FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE {_OF_RELATIONS}
        UNION SELECT nspowner FROM pg_namespace n
        WHERE nspname NOT LIKE 'pg\\_%' AND nspname NOT IN ('information_schema', 'public')
        UNION SELECT lomowner FROM pg_largeobject_metadata
        UNION SELECT p.proowner FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
        WHERE {_NOT_OURS.format(catalog="pg_proc", oid="p.oid")}) o
"""
_GRANTEES = """
    SELECT DISTINCT pg_get_userbyid(grantee) FROM (
        SELECT (aclexplode(relacl)).grantee FROM pg_class WHERE relacl IS NOT NULL
        UNION SELECT (aclexplode(nspacl)).grantee FROM pg_namespace WHERE nspacl IS NOT NULL
        UNION SELECT (aclexplode(proacl)).grantee FROM pg_proc WHERE proacl IS NOT NULL
        UNION SELECT (aclexplode(defaclacl)).grantee FROM pg_default_acl
        UNION SELECT (aclexplode(lomacl)).grantee FROM pg_largeobject_metadata
        UNION SELECT unnest(polroles) FROM pg_policy) g
    WHERE grantee <> 0 AND pg_get_userbyid(grantee) NOT LIKE 'pg\\_%'
"""
_DATABASE = """
    SELECT pg_encoding_to_char(encoding), datcollate, datctype, pg_get_userbyid(datdba),
           datconnlimit, to_jsonb(d), current_setting('server_version'),
           shobj_description(d.oid, 'pg_database')
    FROM pg_database d WHERE datname = current_database()
"""
_SETTINGS = """
    SELECT coalesce(pg_get_userbyid(nullif(setrole, 0)), ''), unnest(setconfig)
    FROM pg_db_role_setting JOIN pg_database d ON d.oid = setdatabase
    WHERE datname = current_database() ORDER BY 1, 2
"""
_GRANTS = """
    SELECT CASE grantee WHEN 0 THEN '' ELSE pg_get_userbyid(grantee) END, privilege_type,
           is_grantable
    FROM pg_database, aclexplode(datacl)
    WHERE datname = current_database() AND grantee <> datdba ORDER BY 1, 2
"""
_FACTS = {
    "tables": mapped(number),
    "large_objects": number,
    **dict.fromkeys(_NAMED, mapped(text)),
    "sequences": mapped(row(either(number, nothing), number)),
    "owners": listed(text),
    "grantees": listed(text),
    "database": record(
        dict.fromkeys(("encoding", "collate", "ctype", "owner", "comment"), text),
        provider=text,
        locale=text,
        connection_limit=number,
        settings=rows_of(text, text),
        grants=rows_of(text, text, truth),
        granted=truth,
    ),
}
_COMPARED = ("tables", *_NAMED, "large_objects")


@contextmanager
def held(connection: Connection) -> Iterator[str]:
    """Hold one snapshot for the block, for reading; yield the name others can share it by."""
    with connection.transaction():
        do(connection, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        do(connection, "SET LOCAL row_security = off")  # hidden rows are an error, not absent
        do(connection, "SET LOCAL search_path = pg_catalog")  # names are told in full
        yield str(_one(connection, "SELECT pg_export_snapshot()")[0])


def facts(connection: Connection, excluded: Sequence[tuple[str, str]] = ()) -> dict[str, Any]:
    """Return the facts, within `held`. Tables in `excluded` count as empty."""
    tables = [(str(schema), str(name)) for schema, name in rows(connection, _TABLES)]
    found: dict[str, Any] = {
        "tables": {
            ".".join(table): 0 if table in excluded else _count(connection, table)
            for table in tables
        },
        "excluded": [".".join(table) for table in excluded],
    }
    for fact, query in _NAMED.items():
        found[fact] = {str(name): str(text) for name, text in rows(connection, query)}
    found["sequences"] = {
        str(name): [None if last is None else int(last), int(step)]
        for name, last, step in rows(connection, _SEQUENCES)
    }
    large = _one(connection, "SELECT count(*) FROM pg_largeobject_metadata")
    found["large_objects"] = int(large[0])
    found["owners"] = _names(connection, _OWNERS)
    found["grantees"] = _names(connection, _GRANTEES)
    return found | {"database": _database(connection)}


def told(evidence: Evidence | None) -> Mapping[str, Any]:
    """Return the facts of a capture, of which every one is there; none without evidence.

    Raises:
        IntegrityError: they are not what a capture writes.
    """
    if evidence is None:
        return {}
    trusted(evidence.facts, _FACTS, excluded=listed(text))
    return evidence.facts


def chosen(spec: SourceSpec, connection: Connection, names: Sequence[str]) -> list[tuple[str, str]]:
    """Return the tables that `exclude_tables` means: "name", in any schema, or "schema.name".

    Raises:
        SettingsInvalid: one of them names no table.
    """
    tables = [(str(schema), str(name)) for schema, name in rows(connection, _TABLES)]
    found: list[tuple[str, str]] = []
    for name in names:
        meant = [table for table in tables if name in (table[1], ".".join(table))]
        if not meant:
            raise SettingsInvalid(
                f"source {spec.name!r}: `exclude_tables` names {name!r}, which is no table",
                hint="Correct it in the settings. The source was not backed up.",
            )
        found += meant
    return sorted(set(found))


def differing(seen: Mapping[str, Any], now: Mapping[str, Any]) -> list[Finding]:
    """Return what a copy (`now`) has otherwise than what was captured (`seen`) says."""
    findings = []
    for fact in _COMPARED:
        then, has = seen.get(fact), now.get(fact)
        if not isinstance(then, Mapping) or not isinstance(has, Mapping):
            if then != has:
                findings.append(Finding(fact, fact, f"expected {then}, got {has}"))
            continue
        names = [
            name for name in sorted(then.keys() | has.keys()) if then.get(name) != has.get(name)
        ]
        findings += [
            Finding(fact, name, f"expected {then.get(name)!s:.80}, got {has.get(name)!s:.80}")
            for name in names[:_MOST_NAMED]
        ]
    return findings + _behind(seen.get("sequences", {}), now.get("sequences", {}))


def _behind(seen: Mapping[str, Any], now: Mapping[str, Any]) -> list[Finding]:
    """Return the sequences that would hand out numbers again.

    They belong to no snapshot: by the time that pg_dump read them, they may have been further.
    """
    findings = []
    for name, (last, step) in sorted(seen.items()):
        got = now.get(name, [None, step])[0]
        behind = last is not None and (got is None or (got - last) * step < 0)
        if name not in now or behind:
            findings.append(Finding("sequences", name, f"expected {last} or after it, got {got}"))
    return findings


def _count(connection: Connection, table: tuple[str, str]) -> int:
    found = rows(connection, "SELECT count(*) FROM ONLY {}.{}", *table)
    return int(found[0][0])


def _database(connection: Connection) -> dict[str, Any]:
    """Return what belongs to the database itself, and is in no dump of it."""
    encoding, collate, ctype, owner, limit, row, version, comment = _one(connection, _DATABASE)
    locale = row.get("datlocale") or row.get("daticulocale")
    return {
        "version": str(version),
        "encoding": str(encoding),
        "collate": str(collate),
        "ctype": str(ctype),
        "provider": str(row.get("datlocprovider", "c")),
        "locale": str(locale) if locale else "",
        "owner": str(owner),
        "connection_limit": int(limit),
        "comment": str(comment or ""),
        "settings": [[str(role), str(text)] for role, text in rows(connection, _SETTINGS)],
        "grants": [
            [str(role), str(privilege), bool(grantable)]
            for role, privilege, grantable in rows(connection, _GRANTS)
        ],
        "granted": row.get("datacl") is not None,  # else everybody may connect, by default
    }


def _names(connection: Connection, query: str) -> list[str]:
    return sorted(str(row[0]) for row in rows(connection, query))


def _one(connection: Connection, query: str) -> tuple[Any, ...]:
    return rows(connection, query)[0]
