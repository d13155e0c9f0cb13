"""Whatever a DuckDB database holds, it comes back as the evidence says it was."""

from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given
from hypothesis import strategies as st

from tests.duckdb.ducks import left_open, make, run, source
from tests.sources.round_trip import captured, examples, put_live

SCALARS = {  # values by type, as SQL
    "BOOLEAN": ["true", "false"],
    "TINYINT": ["'-128'", "'0'"],
    "UBIGINT": ["'18446744073709551615'"],
    "HUGEINT": ["'-170141183460469231731687303715884105727'"],
    "DOUBLE": ["'nan'", "'-inf'", "'0.1'", "'-0.0'"],
    "DECIMAL(18,3)": ["'123456789012345.678'", "'-0.001'"],
    "DECIMAL(38,0)": ["'99999999999999999999999999999999999999'"],
    "VARCHAR": ["''", "'a''b'", "'🦆 é'", "repeat('long ', 1000)"],
    "BLOB": ["'\\x00\\xFF'::BLOB", "''::BLOB"],
    "BIT": ["'0101'"],
    "UUID": ["'00000000-0000-4000-8000-0123456789ab'"],
    "DATE": ["'-infinity'", "'0044-03-15 (BC)'", "'2026-02-28'"],
    "TIME": ["'23:59:59.999999'"],
    "TIMESTAMP": ["'epoch'", "'infinity'"],
    "TIMESTAMP_NS": ["'2026-11-24 12:00:00.123456789'"],
    "TIMESTAMPTZ": ["'2026-11-24 12:00:00+05:30'"],
    "INTERVAL": ["INTERVAL '3 months -2 days'"],
    "JSON": ["'{\"a\": [1, null]}'"],
    '"Mood ;"': ["'sad'", "'it''s \"ok\"'"],
}
NAMES = st.text(st.sampled_from("aZ_ .\"';é🦆%:0"), min_size=1, max_size=6).filter(str.strip)


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


@st.composite
def columns(draw: st.DrawFn) -> tuple[str, st.SearchStrategy[str]]:
    """A type, and what values of it look like."""
    return draw(
        st.recursive(
            st.sampled_from(sorted(SCALARS)).map(lambda one: (one, st.sampled_from(SCALARS[one]))),
            nested,
            max_leaves=3,
        )
    )


Column = tuple[str, st.SearchStrategy[str]]


def nested(inner: st.SearchStrategy[Column]) -> st.SearchStrategy[Column]:
    return st.one_of(inner.map(listed), inner.map(mapped), st.tuples(NAMES, inner, inner).map(both))


def or_null(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.just("NULL") | values


def listed(one: Column) -> Column:
    kind, values = one
    return f"{kind}[]", st.lists(or_null(values), max_size=3).map(
        lambda items: f"[{', '.join(items)}]::{kind}[]"
    )


def mapped(one: Column) -> Column:
    kind, values = one
    return f"MAP(VARCHAR, {kind})", or_null(values).map(
        lambda value: f"MAP {{'key': {value}::{kind}}}"
    )


def both(parts: tuple[str, Column, Column]) -> Column:
    name, (one, ones), (other, others) = parts
    first, second = quoted(name), quoted(f"{name}2")
    return f"STRUCT({first} {one}, {second} {other})", st.tuples(
        or_null(ones), or_null(others)
    ).map(lambda pair: f"{{{first}: {pair[0]}::{one}, {second}: {pair[1]}::{other}}}")


@st.composite
def tables(draw: st.DrawFn, schema: str, name: str) -> list[str]:
    """A table with a key from a sequence, a computed column, constraints, an index, a view."""
    whole = f"{quoted(schema)}.{quoted(name)}"
    ids = f"{quoted(schema)}.{quoted(f'{name}_ids')}"
    found = draw(st.dictionaries(NAMES.map(str.lower), columns(), min_size=1, max_size=4))
    defined = [f"{quoted(column)} {kind}" for column, (kind, _values) in found.items()]
    computed = draw(st.booleans())
    statements = [
        f"CREATE SEQUENCE {ids} START {draw(st.integers(1, 5))}",
        f"CREATE TABLE {whole} (the_key BIGINT DEFAULT nextval({literal(ids)})"
        f" {draw(st.sampled_from(['PRIMARY KEY', 'UNIQUE', 'NOT NULL', 'CHECK (the_key > -9)']))}, "
        + ("twice BIGINT GENERATED ALWAYS AS (the_key * 2), " if computed else "")
        + f"{', '.join(defined)})",
    ]
    for _ in range(draw(st.integers(0, 4))):
        row = [draw(or_null(values)) for _kind, values in found.values()]
        listed_names = ", ".join(map(quoted, found))
        statements.append(f"INSERT INTO {whole} ({listed_names}) VALUES ({', '.join(row)})")
    if draw(st.booleans()):
        statements.append(f"CREATE INDEX {quoted(f'{name}_index')} ON {whole} (the_key)")
    if draw(st.booleans()):
        statements.append(f"CREATE VIEW {quoted(schema)}.{quoted(f'{name}_view')} AS FROM {whole}")
    if draw(st.booleans()):
        statements.append(f"DELETE FROM {whole} WHERE the_key > 2")
    return statements


@st.composite
def databases(draw: st.DrawFn) -> list[str]:
    names = st.lists(NAMES, min_size=1, max_size=2, unique_by=str.lower)
    statements = ["CREATE TYPE \"Mood ;\" AS ENUM ('sad', 'it''s \"ok\"')"]
    for schema in ["main", *draw(names)]:
        if schema.lower() != "main":
            statements.append(f"CREATE SCHEMA {quoted(schema)}")
        for name in draw(names):
            statements += draw(tables(schema, name))
    return statements


@given(statements=databases(), in_the_log=st.integers(0, 6), gone=st.booleans())
@examples(6)
def test_captured_put_back_and_captured_again_the_evidence_is_equal(
    statements: list[str], in_the_log: int, gone: bool
) -> None:
    cut = len(statements) - min(in_the_log, len(statements) - 1)
    with TemporaryDirectory() as directory:
        place = Path(directory)
        live = make(place / "live" / "memories.duckdb", *statements[:cut])
        if statements[cut:]:
            left_open(live, *statements[cut:])
        first = captured(source(live), place)
        if gone:
            for path in live.parent.iterdir():
                path.unlink()
        else:
            run(live, "CREATE TABLE later AS SELECT 1", "DROP TYPE IF EXISTS nothing")
        put_live(source(live), first, place)
        second = captured(source(live), place)
        assert second.evidence.facts == first.evidence.facts
        assert first.evidence.facts["columns"]


def test_two_tables_of_one_name_but_for_where_its_dot_belongs_are_two(tmp_path: Path) -> None:
    tables = ('"a.b"(n INTEGER)', "a.b(s VARCHAR)", '"a.b"."c"(d DATE)', 'a."b.c"(e DATE)')
    schemas = ("CREATE SCHEMA a", 'CREATE SCHEMA "a.b"')
    make(tmp_path / "live.duckdb", *schemas, *(f"CREATE TABLE {table}" for table in tables))
    found = captured(source(tmp_path / "live.duckdb"), tmp_path).evidence.facts["columns"]
    assert {name: kind for name, [[_column, kind]] in found.items()} == {
        "a.b": "VARCHAR",
        "a.b.c": "DATE",
        '"main"."a.b"': "INTEGER",
        '"a.b"."c"': "DATE",
    }
