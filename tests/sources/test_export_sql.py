import math
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_backup.errors import NotExportable, SourceUnreadable
from mcp_backup.sources.export_sql import export_sql
from mcp_backup.sources.sql_literals import Text, Value, literal, real
from tests.sources.export_cases import CASES, Make, sql, with_a_collation

SHELL = shutil.which("sqlite3")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return tmp_path / "image.db"


def made(image: Path, make: Make) -> None:
    database = apsw.Connection(str(image))
    make(database)
    database.close()


def contents(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Read everything: pragmas, catalogue, every table's rowids, types and bytes."""
    database = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    seen: dict[str, list[tuple[object, ...]]] = {
        pragma: [(database.pragma(pragma),)]
        for pragma in ("user_version", "application_id", "encoding", "page_size", "auto_vacuum")
    }
    listed = database.execute(
        "SELECT type,name,tbl_name,CAST(sql AS BLOB),rootpage=0 FROM sqlite_master ORDER BY 1,2"
    ).fetchall()
    seen["catalogue"] = listed
    for type_, name, _, _, virtual in listed:
        if type_ == "table" and not virtual:
            quoted = '"' + str(name).replace('"', '""') + '"'
            columns = [str(row[1]) for row in database.execute(f"PRAGMA table_xinfo({quoted})")]
            keyed = database.execute("SELECT wr FROM pragma_table_list(?)", (name,)).fetchall()
            hidden = (1,) in keyed or "_rowid_" in columns
            chosen = ["1" if hidden else "_rowid_"]
            for column in columns:
                inner = '"' + column.replace('"', '""') + '"'
                chosen += [f"typeof({inner})", f"hex({inner})", inner + " IS NULL"]
                chosen.append(f"CASE typeof({inner}) WHEN 'real' THEN {inner} END")
            query = f"SELECT {','.join(chosen)} FROM {quoted} NOT INDEXED"
            seen[str(name)] = [tuple(map(exact, row)) for row in database.execute(query)]
    database.close()
    return seen


def exact(value: object) -> object:
    return struct.pack("<d", value) if isinstance(value, float) else value


def loaded_by_the_shell(dump: Path, path: Path) -> Path:
    assert SHELL is not None
    with dump.open("rb") as script:
        done = subprocess.run(
            [SHELL, "-batch", "-bail", str(path)], stdin=script, capture_output=True, check=False
        )
    assert (done.returncode, done.stderr) == (0, b"")
    return path


@pytest.mark.skipif(SHELL is None, reason="the sqlite3 shell is not installed")
@pytest.mark.parametrize("make", CASES.values(), ids=CASES.keys())
def test_the_shell_loads_exactly_what_the_image_holds(
    image: Path, tmp_path: Path, make: Make
) -> None:
    made(image, make)
    proof = export_sql(image, tmp_path / "dump.sql")
    assert proof.startswith("reloaded and compared: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dump.sql", "image.db"]
    copy = loaded_by_the_shell(tmp_path / "dump.sql", tmp_path / "copy.db")
    assert contents(copy) == contents(image)


@pytest.mark.skipif(SHELL is None, reason="the sqlite3 shell is not installed")
@pytest.mark.parametrize(
    ("case", "query"),
    [
        ("fts5", "SELECT rowid FROM t WHERE t MATCH 'quick OR word299' ORDER BY rowid"),
        ("fts5 contentless", "SELECT rowid FROM t WHERE t MATCH 'word'"),
        ("fts4", "SELECT rowid FROM t WHERE t MATCH 'brown'"),
        ("rtree", "SELECT id, note FROM t WHERE x0 > 100 AND x1 < 103"),
    ],
)
def test_virtual_tables_answer_as_before(
    image: Path, tmp_path: Path, case: str, query: str
) -> None:
    made(image, CASES[case])
    export_sql(image, tmp_path / "dump.sql")
    copy = loaded_by_the_shell(tmp_path / "dump.sql", tmp_path / "copy.db")
    answers = [apsw.Connection(str(path)).execute(query).fetchall() for path in (image, copy)]
    assert answers[0] == answers[1] != []


@pytest.mark.parametrize(
    ("make", "subject", "why"),
    [
        (
            with_a_collation('CREATE TABLE t(a); CREATE INDEX "i x" ON t(a COLLATE ours)'),
            "index 'i x'",
            "no such collation sequence: ours",
        ),
        (
            with_a_collation("CREATE TABLE t(a COLLATE ours)"),
            "table 't'",
            "no such collation sequence: ours",
        ),
        (
            lambda database: (
                database.create_scalar_function("ours", lambda a: a, deterministic=True),
                database.execute("CREATE TABLE t(a, b AS (ours(a)) STORED)"),
            ),
            "table 't'",
            "no such function: ours",
        ),
        (
            sql(
                "CREATE TABLE t(a INTEGER); INSERT INTO t VALUES('text');"
                "PRAGMA writable_schema=ON;"
                "UPDATE sqlite_master SET sql='CREATE TABLE t(a INTEGER CHECK(a > 0 AND a < 9))';"
            ),
            "table 't'",
            "CHECK constraint failed",
        ),
        (
            sql(
                "CREATE TABLE t(a BLOB); INSERT INTO t VALUES('12'); PRAGMA writable_schema=ON;"
                "UPDATE sqlite_master SET sql='CREATE TABLE t(a INTEGER)';"
            ),
            "table 't'",
            "column 'a' of row 1 comes back different",
        ),
        (sql('CREATE TABLE "a\rb"(c)'), r"table 'a\rb'", ""),
        (sql("CREATE VIEW v AS SELECT 8\n/\n4"), "view 'v'", ""),
    ],
)  # fmt: skip
def test_what_sql_cannot_carry_is_refused_by_name(
    image: Path, tmp_path: Path, make: Make, subject: str, why: str
) -> None:
    made(image, make)
    with pytest.raises(NotExportable) as refusal:
        export_sql(image, tmp_path / "dump.sql")
    assert subject in str(refusal.value)
    assert why in str(refusal.value)
    assert [path.name for path in tmp_path.iterdir()] == ["image.db"]


def test_a_damaged_image_is_refused(image: Path, tmp_path: Path) -> None:
    made(
        image,
        sql("CREATE TABLE t(a); INSERT INTO t SELECT randomblob(900) FROM series LIMIT 99"),
    )
    with image.open("r+b") as file:
        file.seek(4096 * 2)
        file.write(b"\xff" * 4096 * 5)
    with pytest.raises(SourceUnreadable, match="malformed"):
        export_sql(image, tmp_path / "dump.sql")
    (tmp_path / "none.db").write_bytes(b"not a database, not at all" * 99)
    with pytest.raises(SourceUnreadable, match="not a database"):
        export_sql(tmp_path / "none.db", tmp_path / "dump.sql")
    assert not (tmp_path / "dump.sql").exists()


def test_rows_come_in_the_order_of_their_keys_whatever_indexes_there_are(
    image: Path, tmp_path: Path
) -> None:
    made(image, sql("CREATE TABLE t(a); CREATE INDEX i ON t(a); INSERT INTO t VALUES(9),(5),(7)"))
    export_sql(image, tmp_path / "dump.sql")
    assert "VALUES (1,9),(2,5),(3,7);" in (tmp_path / "dump.sql").read_text()


def test_the_image_is_not_changed(image: Path, tmp_path: Path) -> None:
    made(image, CASES["WAL mode"])
    before = image.read_bytes()
    export_sql(image, tmp_path / "dump.sql")
    assert image.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dump.sql", "image.db"]


@pytest.mark.parametrize(
    ("case", "pragma", "value"),
    [
        ("UTF-16le", "encoding", "UTF-16le"),
        ("another page size", "page_size", 512),
        ("auto_vacuum", "auto_vacuum", 2),
        ("user_version and application_id", "user_version", -7),
    ],
)
def test_the_cases_are_what_they_say(image: Path, case: str, pragma: str, value: object) -> None:
    made(image, CASES[case])
    assert apsw.Connection(str(image)).pragma(pragma) == value


VALUES = (
    st.none()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.binary(max_size=40)
    | st.text(st.characters(codec="utf-8") | st.sampled_from("\0\r\n'\\\ufeff"), max_size=40)
)
NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="\0\r"), min_size=1, max_size=8
).filter(lambda name: not name.lower().startswith("sqlite_"))
AFFINITIES = st.sampled_from(["", "TEXT", "INTEGER", "REAL", "BLOB", "NUMERIC"])


@pytest.fixture(scope="module")
def shells() -> Iterator[list[apsw.Connection]]:
    encodings = ("UTF-8", "UTF-16le", "UTF-16be")
    databases = [apsw.Connection(":memory:") for _ in encodings]
    for database, encoding in zip(databases, encodings, strict=True):
        database.execute(f"PRAGMA encoding='{encoding}'; CREATE TABLE made(a)")
    yield databases
    for database in databases:
        database.close()


@settings(deadline=None, max_examples=60)
@given(
    shape=st.tuples(
        NAMES,
        st.dictionaries(NAMES.map(str.lower), AFFINITIES, min_size=1, max_size=4),
        st.sampled_from(["", "PRIMARY KEY", "WITHOUT ROWID"]),
        st.sampled_from(["UTF-8", "UTF-16le", "UTF-16be"]),
    ),
    data=st.data(),
)
def test_any_schema_and_values_come_back_exactly(
    tmp_path_factory: pytest.TempPathFactory,
    shape: tuple[str, dict[str, str], str, str],
    data: st.DataObject,
) -> None:
    table, columns, key, encoding = shape
    place = tmp_path_factory.mktemp("any")
    quoted = [
        '"' + column.replace('"', '""') + f'" {affinity}' for column, affinity in columns.items()
    ]
    quoted[0] += " PRIMARY KEY" if key else ""
    name = '"' + table.replace('"', '""') + '"'
    rows = data.draw(st.lists(st.tuples(*[VALUES] * len(columns)), max_size=8))
    database = apsw.Connection(str(place / "image.db"))
    database.execute(f"PRAGMA encoding='{encoding}'")
    database.execute(
        f"CREATE TABLE {name}({','.join(quoted)}) {'WITHOUT ROWID' * (key[:1] == 'W')}"
    )
    for row in rows:
        marks = ",".join("?" * len(row))
        try:
            database.execute(f"INSERT INTO {name} VALUES({marks})", row)
        except (apsw.ConstraintError, apsw.MismatchError):
            continue
    database.close()
    export_sql(place / "image.db", place / "dump.sql")
    copy = apsw.Connection(str(place / "copy.db"))
    for statement in (place / "dump.sql").read_bytes().decode().split(";\n"):
        if not statement.startswith("."):
            copy.execute(statement)
    copy.close()
    assert contents(place / "copy.db") == contents(place / "image.db")
    shutil.rmtree(place)


@given(value=st.floats(allow_nan=False))
def test_any_real_is_read_back_to_the_bit(shells: list[apsw.Connection], value: float) -> None:
    got = shells[0].execute(f"SELECT {real(value)}").fetchone()
    assert got is not None
    assert struct.pack("<d", got[0]) == struct.pack("<d", value)
    assert len(real(value)) < 450


@given(
    raw=st.binary(max_size=60)
    | st.text(st.sampled_from("a\\nr0\r\n'"), max_size=30).map(str.encode)
)
def test_any_bytes_as_text_are_read_back_as_these_bytes(
    shells: list[apsw.Connection], raw: bytes
) -> None:
    even = raw[: len(raw) // 2 * 2]
    for database, encoding, value in zip(
        shells, ("utf-8", "utf-16-le", "utf-16-be"), (raw, even, even), strict=True
    ):
        query = literal(Text(value), encoding).decode()
        got = database.execute(f"SELECT typeof({query}), CAST({query} AS BLOB)").fetchone()
        assert got == ("text", value)
        assert "\n" not in query


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, b"NULL"),
        (1.5, b"1.5"),
        (math.inf, b"9e999"),
        (b"\x00\xff", b"X'00ff'"),
        (Text(b"it's"), b"'it''s'"),
        (Text(b"a\nb"), rb"replace('a\nb','\n',char(10))"),
        (Text(b"a\0b"), b"CAST(X'610062' AS TEXT)"),
    ],
)
def test_literals_stay_readable_where_that_is_exact(value: Value, expected: bytes) -> None:
    assert literal(value, "utf-8") == expected
