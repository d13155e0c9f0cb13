"""A live system of DuckDB databases: one file, and a directory of several."""

from pathlib import Path

from mcp_backup.opening import initialise
from mcp_backup.settings import Settings
from mcp_backup.settings_sections import DatabaseSettings, RepositorySettings
from tests.duckdb.ducks import left_open, make
from tests.system import System


def settings_of(root: Path) -> Settings:
    return Settings(
        repository=RepositorySettings(
            location=str(root / "backups"), password_file=root / "backups.key"
        ),
        databases=(
            DatabaseSettings(name="memories", path=memories(root), kind="duckdb"),
            DatabaseSettings(name="akosha", path=root / "akosha"),
        ),
        state_dir=root / "state",
    )


def memories(root: Path) -> Path:
    return root / "memories.duckdb"


def system_at(root: Path) -> System:
    return System(root, settings_of(root))


async def make_system(root: Path) -> System:
    """Make the databases, the one with its last rows in its log, and the repository."""
    make(memories(root))
    left_open(memories(root), "INSERT INTO notes VALUES (9000, 'in the log')")
    for number, statements in enumerate(SCHEMAS):
        make(root / "akosha" / f"{number % 2}" / f"shard-{number}.duckdb", *statements)
    system = system_at(root)
    await initialise(system.settings)
    return system


SCHEMAS = (
    (
        "CREATE TABLE numbers(a TINYINT, b UBIGINT, c HUGEINT, d DECIMAL(30, 5), e DOUBLE, f BIT)",
        "INSERT INTO numbers VALUES (-1, 2, 170141183460469231731687303715884105727, 1.5,"
        " 'nan', '0101'), (NULL, NULL, NULL, NULL, '-inf', NULL)",
    ),
    (
        "CREATE TABLE t(a DATE, b TIME, c TIMESTAMP, d TIMESTAMPTZ, e INTERVAL, f TIMESTAMP_NS)",
        "INSERT INTO t VALUES ('2026-02-28', '23:59:59', 'epoch', now(), '3 days', 'infinity')",
    ),
    (
        "CREATE TYPE mood AS ENUM('sad', 'happy')",
        "CREATE TABLE nested(a INTEGER[], b STRUCT(x INTEGER, y VARCHAR[]), c MAP(VARCHAR, DOUBLE),"
        " d UNION(n INTEGER, s VARCHAR), e mood, f FLOAT[3], g UUID, h BLOB, i JSON)",
        "INSERT INTO nested VALUES ([1, NULL], {'x': 1, 'y': ['a']}, MAP {'k': 0.5}, 'text',"
        " 'sad', [1, 2, 3], uuid(), '\\x00\\xFF', '{\"a\": [1]}')",
    ),
    (
        "CREATE SCHEMA other",
        "CREATE SEQUENCE other.ids START 7",
        'CREATE TABLE other."odd ""name"""(id BIGINT DEFAULT nextval(\'other.ids\') PRIMARY KEY,'
        " twice BIGINT GENERATED ALWAYS AS (id * 2), text VARCHAR CHECK (length(text) < 9) UNIQUE)",
        'INSERT INTO other."odd ""name"""(text) VALUES (\'é\'), (\'🦆\')',
        "CREATE TABLE child(id BIGINT)",
        "CREATE INDEX by_id ON child(id)",
        "CREATE VIEW seen AS SELECT count(*) AS n FROM child",
        "CREATE MACRO plus(a, b) AS a + b",
    ),
    ("CREATE TABLE empty(a INTEGER)",),
    ("CREATE SCHEMA fts_main_notes", "CREATE TABLE fts_main_notes.docs AS SELECT 1 AS docid"),
)
