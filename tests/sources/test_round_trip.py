"""Whatever an SQLite database or a set of files holds, it comes back as the evidence says."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import apsw
from hypothesis import given
from hypothesis import strategies as st

from mcp_backup.sources import sqlite
from tests.sources.collecting import files_at
from tests.sources.databases import database
from tests.sources.round_trip import captured, examples, put_live
from tests.sources.test_export_sql import AFFINITIES, NAMES, VALUES
from tests.sources.trees import make


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@st.composite
def statements(draw: st.DrawFn) -> list[tuple[str, Sequence[object]]]:
    """Pragmas, a table with rows, and what may hang on a table."""
    found: list[tuple[str, Sequence[object]]] = [
        (f"PRAGMA page_size = {draw(st.sampled_from([512, 4096, 65536]))}", ()),
        (f"PRAGMA encoding = '{draw(st.sampled_from(['UTF-8', 'UTF-16le', 'UTF-16be']))}'", ()),
        (f"PRAGMA auto_vacuum = {draw(st.integers(0, 2))}", ()),
        (f"PRAGMA journal_mode = {draw(st.sampled_from(['wal', 'delete']))}", ()),
        (f"PRAGMA user_version = {draw(st.integers(-9, 9))}", ()),
    ]
    for name in draw(st.lists(NAMES, min_size=1, max_size=2, unique_by=str.lower)):
        table = quoted(name)
        columns = draw(st.dictionaries(NAMES.map(str.lower), AFFINITIES, min_size=1, max_size=3))
        defined = [f"{quoted(column)} {kind}" for column, kind in columns.items()]
        computed = draw(st.sampled_from(["", ", twice AS (the_key * 2) STORED"]))
        rowid = draw(st.sampled_from(["", " WITHOUT ROWID"]))
        found.append(
            (f"CREATE TABLE {table} (the_key INTEGER PRIMARY KEY{computed}, "
             f"{', '.join(defined)}){rowid}", ())
        )  # fmt: skip
        marks = ", ".join("?" * (len(columns) + 1))
        for key in range(draw(st.integers(0, 5))):
            row = [draw(VALUES) for _ in columns]
            listed = ", ".join(["the_key", *map(quoted, columns)])
            found.append((f"INSERT INTO {table} ({listed}) VALUES ({marks})", (key, *row)))
        hung = [
            f"CREATE INDEX {quoted(f'{name} index')} ON {table} ({quoted(next(iter(columns)))})",
            f"CREATE VIEW {quoted(f'{name} view')} AS SELECT * FROM {table}",
            f"CREATE TRIGGER {quoted(f'{name} trigger')} AFTER DELETE ON {table} "
            "BEGIN SELECT 1; END",
            f"CREATE VIRTUAL TABLE {quoted(f'{name} search')} USING fts5 (body)",
            f"DELETE FROM {table} WHERE the_key > 2",
        ]
        found += [
            (statement, ()) for statement in draw(st.lists(st.sampled_from(hung), unique=True))
        ]
    return found


@given(made=statements(), wreck=st.sampled_from(["gone", "garbage", "other", "later"]))
@examples(25)
def test_a_database_captured_put_back_and_captured_again_gives_equal_evidence(
    made: list[tuple[str, Sequence[object]]], wreck: str
) -> None:
    with TemporaryDirectory() as directory:
        place = Path(directory)
        live = place / "live.db"
        connection = apsw.Connection(str(live))
        for statement, values in made:
            connection.execute(statement, values).fetchall()
        connection.close()
        before = sqlite.content_digest("notes", live)
        first = captured(database(live), place)
        if wreck == "later":
            connection = apsw.Connection(str(live))
            connection.execute("CREATE TABLE later AS SELECT 1 AS n")
            connection.close()
        else:
            for path in place.glob("live.db*"):
                path.unlink()
            if wreck != "gone":
                live.write_bytes(b"garbage" if wreck == "garbage" else b"")
        put_live(database(live), first, place)
        second = captured(database(live), place)
        facts = [each.evidence.facts for each in (first, second)]
        if wreck == "later":  # a live file keeps its own
            facts = [{**each, "journal_mode": ""} for each in facts]
        assert facts[0] == facts[1]
        assert sqlite.content_digest("notes", live) == before


PARTS = st.sampled_from(["a", "b.yaml", ".env", "é 🦆", "\udcff", "new\nline", "-rf", "~"])
NODES = st.one_of(
    st.tuples(st.just("file"), st.binary(max_size=50), st.sampled_from([0o600, 0o644, 0o755])),
    st.tuples(st.just("dir"), st.just(b""), st.sampled_from([0o700, 0o755])),
    st.tuples(st.just("link"), st.sampled_from([b"a", b"../x", b"/nowhere"]), st.just(0)),
)
TREES = st.dictionaries(st.lists(PARTS, min_size=1, max_size=3).map("/".join), NODES, max_size=8)
Tree = dict[str, tuple[str, bytes, int]]


def grow(root: Path, tree: Tree) -> None:
    """Make as much of a tree as fits over what is there."""
    for path, (kind, content, mode) in tree.items():
        place = root / path
        if any(parent.is_symlink() or parent.is_file() for parent in (place, *place.parents)):
            continue
        if kind == "dir":
            place.mkdir(parents=True, exist_ok=True)
        elif not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            if kind == "file":
                place.write_bytes(content)
            else:
                place.symlink_to(content.decode())
                continue
        if kind == "dir" or place.is_file():
            place.chmod(mode)


@given(
    tree=TREES, wreck=st.lists(st.sampled_from(["gone", "other", "kept"]), min_size=8), more=TREES
)
@examples(25)
def test_files_captured_put_back_and_captured_again_give_equal_evidence(
    tree: Tree, wreck: list[str], more: Tree
) -> None:
    with TemporaryDirectory() as directory:
        place = Path(directory)
        root = make(place / "root", {"always": "there"})
        grow(root, tree)
        spec = files_at(root, "**")
        first = captured(spec, place)
        for path, what in zip(sorted(root.rglob("*"), reverse=True), wreck, strict=False):
            if what == "gone" and path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif what != "kept" and (path.is_file() or path.is_symlink()):
                path.unlink()
                if what == "other":
                    path.write_text("other")
        grow(root, {path: node for path, node in more.items() if path in tree})
        put_live(spec, first, place)
        second = captured(spec, place)
        assert second.evidence.facts == first.evidence.facts
        assert second.content == first.content
