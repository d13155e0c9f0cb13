"""What a database can hold that an SQL dump may lose: one small database each."""

from collections.abc import Callable

import apsw

Make = Callable[[apsw.Connection], object]

SERIES = """
    CREATE TEMP VIEW series AS
    WITH RECURSIVE s(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM s LIMIT 999)
    SELECT value FROM s
"""


def sql(text: str, *bindings: object) -> Make:
    """Run statements; `series` holds the numbers from 1 to 999 for those that name it."""
    series = (SERIES, "DROP VIEW temp.series") if "series" in text else ("", "")
    return lambda database: [
        *database.execute(series[0]),
        *database.execute(text, bindings or None),
        *database.execute(series[1]),
    ]


def many(*makes: Make) -> Make:
    return lambda database: [make(database) for make in makes]


def with_a_collation(text: str) -> Make:
    def make(database: apsw.Connection) -> None:
        database.create_collation("ours", lambda one, other: (one > other) - (one < other))
        database.execute(text + "; INSERT INTO t VALUES('x')")

    return make


FULL_TEXT = """
    INSERT INTO t(rowid, a) VALUES(7, 'the quick brown fox'), (9, 'jumps over the lazy dog');
    INSERT INTO t(a) SELECT 'word' || value FROM series LIMIT 300;
    DELETE FROM t WHERE rowid = 9;
"""

CASES: dict[str, Make] = {
    "nothing at all": sql("SELECT 1"),
    "every storage class": sql(
        "CREATE TABLE t(a); INSERT INTO t VALUES(NULL),(1),(-9223372036854775808),"
        "(9223372036854775807),(1.5),('text'),(X'00ff'),(X''),('')"
    ),
    "NUL in text": many(
        sql("CREATE TABLE t(a TEXT)"), sql("INSERT INTO t VALUES(?)", "before\0after")
    ),
    "invalid UTF-8": sql("CREATE TABLE t(a); INSERT INTO t VALUES(CAST(X'61ff80' AS TEXT))"),
    "a surrogate's bytes": sql("CREATE TABLE t(a); INSERT INTO t VALUES(CAST(X'eda080' AS TEXT))"),
    "infinity": sql("CREATE TABLE t(a, b REAL); INSERT INTO t VALUES(9e999,-9e999),(-9e999,9e999)"),
    "reals": many(
        sql("CREATE TABLE t(a, b REAL)"),
        sql("INSERT INTO t VALUES(?,?)", 0.1 + 0.2, 7.12599085402017e-05),
        sql("INSERT INTO t VALUES(?,?)", 5e-324, 1.7976931348623157e308),
        sql("INSERT INTO t VALUES(?,?)", 1e23, 3.0),
        sql("INSERT INTO t VALUES(?,?)", -0.0, -0.0),
    ),
    "line ends": many(
        sql("CREATE TABLE t(a)"),
        sql("INSERT INTO t VALUES(?)", "a\r\nb\rc\nd\\n\\r;\n/\ngo\n.quit\n"),
        sql("INSERT INTO t VALUES(?)", "\\\n\\n0\\n\n"),
        sql("INSERT INTO t VALUES(?)", "'\n--\n'';\n"),
    ),
    "a long text of many lines": many(
        sql("CREATE TABLE t(a)"), sql("INSERT INTO t VALUES(?)", "statement;\n" * 50_000)
    ),
    "quotes in names": sql(
        """CREATE TABLE "it's ""quoted"" [x]"("a ""b", 'c d', [e"f], `g`);
        INSERT INTO "it's ""quoted"" [x]" VALUES(1,2,3,4)"""
    ),
    "a table named like a keyword": sql(
        'CREATE TABLE "select"("from"); INSERT INTO "select" VALUES(1)'
    ),
    "names that are not ASCII": sql("CREATE TABLE tää(bé); INSERT INTO tää VALUES('日本')"),
    "implicit rowids": sql(
        "CREATE TABLE t(a); INSERT INTO t(rowid,a) VALUES(5,'x'),(-3,'y'),(9223372036854775807,'z')"
    ),
    "columns that hide the rowid": sql(
        "CREATE TABLE t(rowid TEXT, oid); INSERT INTO t(_rowid_, rowid, oid) VALUES(7,'a','b');"
        "CREATE TABLE u(rowid, _rowid_, oid); INSERT INTO u VALUES(1,2,3)"
    ),
    "INTEGER PRIMARY KEY": sql(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a); INSERT INTO t VALUES(42,1)"
    ),
    "INTEGER PRIMARY KEY DESC": sql(
        "CREATE TABLE t(id INTEGER PRIMARY KEY DESC, a);"
        "INSERT INTO t(rowid,id,a) VALUES(9,1,2),(3,5,6)"
    ),
    "a primary key of another type": sql(
        "CREATE TABLE t(id INT PRIMARY KEY, a); INSERT INTO t(rowid,id) VALUES(9,NULL),(3,1)"
    ),
    "AUTOINCREMENT": sql(
        "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, a);"
        "INSERT INTO t(a) VALUES(1),(2),(3);"
        "DELETE FROM t WHERE id > 1; CREATE TABLE u(id INTEGER PRIMARY KEY AUTOINCREMENT)"
    ),
    "AUTOINCREMENT whose table is gone": sql(
        "CREATE TABLE mcp_backup_sequence(id INTEGER PRIMARY KEY AUTOINCREMENT);"
        "DROP TABLE mcp_backup_sequence; CREATE TABLE mcp_backup_sequence(a)"
    ),
    "WITHOUT ROWID": sql(
        "CREATE TABLE t(a TEXT, b, PRIMARY KEY(b DESC, a)) WITHOUT ROWID;"
        "INSERT INTO t VALUES('x',1),('y',2),('x',3)"
    ),
    "STRICT": sql(
        "CREATE TABLE t(a INT, b ANY, c TEXT) STRICT; INSERT INTO t VALUES(1,'1','x'),(2,2,'y')"
    ),
    "generated columns": sql(
        "CREATE TABLE t(a, b AS (a * 2), c TEXT AS (a || '!') STORED, d); INSERT INTO t VALUES(1,2)"
    ),
    "defaults, checks and foreign keys": sql(
        "CREATE TABLE p(id INTEGER PRIMARY KEY); CREATE TABLE c(id REFERENCES p ON DELETE CASCADE,"
        "a TEXT DEFAULT 'it''s' CHECK(length(a) > 0), b DEFAULT (1 + 1));"
        "INSERT INTO c VALUES(99,'x',0)"
    ),
    "an added column": sql(
        "CREATE TABLE t(a); INSERT INTO t VALUES(1); ALTER TABLE t ADD COLUMN b DEFAULT 'later'"
    ),
    "a renamed table": sql(
        "CREATE TABLE t(a UNIQUE); INSERT INTO t VALUES(1); ALTER TABLE t RENAME TO \"new t\""
    ),
    "indexes": sql(
        "CREATE TABLE t(a, b UNIQUE, c COLLATE NOCASE);"
        "INSERT INTO t VALUES('x',1,'A'),('y',2,'b');"
        "CREATE INDEX i ON t(a DESC) WHERE a IS NOT NULL; CREATE INDEX e ON t(lower(a), c)"
    ),
    "views and triggers": sql(
        "CREATE TABLE t(a); CREATE TABLE log(a); CREATE VIEW v AS SELECT a FROM t;"
        "CREATE TRIGGER g AFTER INSERT ON t BEGIN INSERT INTO log VALUES(new.a); END;"
        "CREATE TRIGGER w INSTEAD OF INSERT ON v BEGIN\n INSERT INTO t VALUES("
        "CASE new.a WHEN 1 THEN 2 END);\nEND; INSERT INTO t VALUES(1)"
    ),
    "a view of a table that is gone": sql("CREATE VIEW v AS SELECT * FROM nowhere"),
    "carriage returns in definitions": sql(
        "CREATE TABLE t(\r\n  a DEFAULT 'x\r\ny' -- note\r\n);\r\nINSERT INTO t VALUES(1);"
        "CREATE VIEW v AS\r\n SELECT 1"
    ),
    "definitions with awkward lines": sql(
        "CREATE VIEW v AS SELECT 1;CREATE TABLE t(a -- it's;\n, b /* ; */\n)"
    ),
    "user_version and application_id": sql(
        "PRAGMA user_version=-7; PRAGMA application_id=1234567; CREATE TABLE t(a)"
    ),
    "another page size": sql("PRAGMA page_size=512; CREATE TABLE t(a); INSERT INTO t VALUES(1)"),
    "auto_vacuum": sql("PRAGMA auto_vacuum=INCREMENTAL; CREATE TABLE t(a)"),
    "UTF-16le": many(
        sql("PRAGMA encoding='UTF-16le'; CREATE TABLE t(a, é)"),
        sql("INSERT INTO t VALUES(?,?)", "plain\r\n日本", "\U0001f600 \0"),
        sql("INSERT INTO t VALUES(CAST(X'feff6100' AS TEXT), CAST(X'ffff6100fffe' AS TEXT))"),
        sql("INSERT INTO t VALUES(CAST(X'00d8' AS TEXT), CAST(X'61' AS TEXT))"),
    ),
    "UTF-16be": sql("PRAGMA encoding='UTF-16be'; CREATE TABLE t(a); INSERT INTO t VALUES('é')"),
    "statistics": sql(
        "CREATE TABLE t(a, b); CREATE INDEX i ON t(a); INSERT INTO t SELECT value % 7, value FROM"
        " series LIMIT 500; ANALYZE"
    ),
    "WAL mode": sql("PRAGMA journal_mode=WAL; CREATE TABLE t(a); INSERT INTO t VALUES(1)"),
    "fts5": sql("CREATE VIRTUAL TABLE t USING fts5(a); " + FULL_TEXT),
    "fts5 trigram": sql("CREATE VIRTUAL TABLE t USING fts5(a, tokenize='trigram'); " + FULL_TEXT),
    "fts5 contentless": sql(
        "CREATE VIRTUAL TABLE t USING fts5(a, content=''); INSERT INTO t(rowid,a) VALUES(3,'word')"
    ),
    "fts5 with its content elsewhere": sql(
        "CREATE TABLE c(id INTEGER PRIMARY KEY, a);"
        "CREATE VIRTUAL TABLE t USING fts5(a, content='c', content_rowid='id');"
        "CREATE TRIGGER g AFTER INSERT ON c BEGIN INSERT INTO t(rowid,a) VALUES(new.id,new.a); END;"
        "INSERT INTO c VALUES(4,'four'),(5,'five')"
    ),
    "fts4": sql("CREATE VIRTUAL TABLE t USING fts4(a); " + FULL_TEXT),
    "rtree": sql(
        "CREATE VIRTUAL TABLE t USING rtree(id, x0, x1, +note); INSERT INTO t SELECT value, value,"
        " value + 0.5, 'n' || value FROM series LIMIT 200"
    ),
    "a virtual table of a module that nobody has": sql(
        "PRAGMA writable_schema=ON; CREATE TABLE v_chunks(id INTEGER PRIMARY KEY, data BLOB);"
        "INSERT INTO v_chunks VALUES(1, X'0102');"
        "INSERT INTO sqlite_master VALUES('table','v','v',0,"
        "'CREATE VIRTUAL TABLE v USING vec0(e float[3])'); PRAGMA writable_schema=OFF"
    ),
}  # fmt: skip
