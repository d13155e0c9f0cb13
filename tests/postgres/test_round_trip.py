"""Whatever a PostgreSQL database holds, it comes back as the evidence says it was."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_backup.sources.postgres_beside import discard, prepare
from mcp_backup.sources.postgres_swap import keep, place
from tests.postgres.conftest import Live, Server
from tests.postgres.test_capture import captured, staged
from tests.sources.round_trip import examples

SCALARS = {  # values by type, as SQL
    "bigint": ["-9223372036854775808"],
    "numeric(30, 5)": ["'NaN'", "0.00001"],
    "double precision": ["'-Infinity'", "1e-300"],
    "text": ["''", "E'a\\n\\\\.\\nb'", "'é🦆'", "repeat('long ', 3000)"],
    "bytea": ["'\\x00ff'"],
    "boolean": ["true"],
    "date": ["'infinity'", "'0044-03-15 BC'"],
    "timestamptz": ["'2026-11-24 12:00:00.123456+05:30'"],
    "interval": ["'3 months -2 days'"],
    "uuid": ["'00000000-0000-4000-8000-0123456789ab'"],
    "jsonb": ["'{\"a\": [1, null]}'"],
    "xml": ["'<a/>'"],
    "inet": ["'::1/64'"],
    "int4range": ["'[1,5)'"],
    "tsvector": ["'a fat cat'"],
    "hstore": ["'k=>v'"],
    '"Mood ;"': ["'sad'", "'it''s \"ok\"'"],
    "positive": ["7"],
    "pair": ["ROW(1, 'b')"],
}
NAMES = st.text(st.sampled_from("aZ_ .\"';é🦆%:0$"), min_size=1, max_size=6).filter(str.strip)
TYPES = (
    "CREATE EXTENSION hstore",
    "CREATE TYPE \"Mood ;\" AS ENUM ('sad', 'it''s \"ok\"')",
    "CREATE DOMAIN positive AS int CHECK (VALUE > 0)",
    "CREATE TYPE pair AS (a int, b text)",
)


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@st.composite
def values(draw: st.DrawFn, kind: str) -> str:
    value = draw(st.sampled_from(["NULL", *SCALARS[kind.removesuffix("[]")]]))
    return f"ARRAY[{value}, NULL]::{kind}" if kind.endswith("[]") else value


@st.composite
def tables(draw: st.DrawFn, schema: str, name: str) -> list[str]:
    whole = f"{quoted(schema)}.{quoted(name)}"
    kinds = st.sampled_from([*SCALARS, "text[]", "bigint[]", '"Mood ;"[]'])
    found = draw(st.dictionaries(NAMES, kinds, min_size=1, max_size=5))
    key = draw(st.sampled_from(["serial PRIMARY KEY", "int GENERATED ALWAYS AS IDENTITY UNIQUE"]))
    defined = ", ".join(f"{quoted(column)} {kind}" for column, kind in found.items())
    statements = [
        f"CREATE TABLE {whole} (the_key {key}, "
        f"twice int GENERATED ALWAYS AS (the_key * 2) STORED, CHECK (the_key > 0), {defined})"
    ]
    for _ in range(draw(st.integers(0, 4))):
        row = ", ".join(draw(values(kind)) for kind in found.values())
        statements.append(f"INSERT INTO {whole} ({', '.join(map(quoted, found))}) VALUES ({row})")
    hung = [
        f"CREATE INDEX ON {whole} (the_key) WHERE the_key > 1",
        f"CREATE VIEW {quoted(schema)}.{quoted(f'{name} view')} AS SELECT * FROM {whole}",
        f"CREATE MATERIALIZED VIEW {quoted(schema)}.{quoted(f'{name} seen')} AS TABLE {whole}",
        f"COMMENT ON TABLE {whole} IS 'of ''{name.replace(chr(39), '')}'''",
        f"GRANT SELECT ON {whole} TO bob",
        f"ALTER TABLE {whole} OWNER TO alice",
        f"ALTER TABLE {whole} ENABLE ROW LEVEL SECURITY",
        "SELECT lo_from_bytea(0, 'large')",
        f"DELETE FROM {whole} WHERE the_key > 2",
    ]
    return statements + draw(st.lists(st.sampled_from(hung), unique=True))


@st.composite
def databases(draw: st.DrawFn) -> list[str]:
    names = st.lists(NAMES, min_size=1, max_size=2, unique=True)
    statements = []
    for schema in ["public", *draw(names)]:
        if schema != "public":
            statements.append(f"CREATE SCHEMA {quoted(schema)}")
        for name in draw(names):
            statements += draw(tables(schema, name))
    return statements


@pytest.fixture(scope="module")
def template(server: Server) -> Iterator[str]:
    """A database with types."""
    server.sql("postgres", "CREATE DATABASE types")
    server.sql("types", *TYPES)
    yield "types"
    server.sql("postgres", "DROP DATABASE types")


@given(statements=databases())
@examples(5)
def test_captured_put_back_and_captured_again_the_evidence_is_equal(
    server: Server, template: str, statements: list[str]
) -> None:
    with TemporaryDirectory() as directory:
        root = Path(directory)
        live = Live(server, "anything", root)
        server.sql("postgres", f"CREATE DATABASE anything TEMPLATE {template}")
        try:
            live.sql(*statements)
            text = server.text("anything")
            first = captured(live.spec(), root / "scratch")
            made = staged(first, root / "staged")
            live.sql("DROP SCHEMA public CASCADE")
            prepare(live.spec(), made, first.evidence)
            (root / "undo").mkdir()
            keep(live.spec(), root / "undo", made)
            place(live.spec(), made)
            second = captured(live.spec(), root / "scratch")
            assert second.evidence.facts == first.evidence.facts
            assert server.text("anything") == text
            discard(live.spec(), root / "undo")
        finally:
            for left in server.databases():
                if left.startswith("anything"):
                    server.sql("postgres", f'DROP DATABASE "{left}" WITH (FORCE)')
