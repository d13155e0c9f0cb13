"""Real vector tables, made by sqlite-vec itself."""

import struct
from contextlib import closing
from importlib import import_module
from pathlib import Path

import apsw

_TABLE = (
    "CREATE VIRTUAL TABLE memories USING vec0(id TEXT PRIMARY KEY, who TEXT PARTITION KEY, "
    "embedding float[4], sketch bit[16], weight INTEGER, label TEXT, +body TEXT, chunk_size=16)"
)


def make_vectors(path: Path) -> None:
    """Make or extend a database with a vector table: four chunks, with rows gone from each."""
    with closing(apsw.Connection(str(path))) as connection:
        connection.enable_load_extension(True)
        connection.load_extension(import_module("sqlite_vec").loadable_path())
        with connection:
            connection.execute(_TABLE)
            connection.executemany(
                "INSERT INTO memories VALUES (?, ?, ?, vec_bit(?), ?, ?, ?)", map(_row, range(60))
            )
            connection.execute("DELETE FROM memories WHERE weight % 7 = 0")
            connection.executemany(
                "INSERT INTO memories VALUES (?, ?, ?, vec_bit(?), ?, ?, ?)", map(_row, (61, 70))
            )


def _row(number: int) -> tuple[object, ...]:
    vector = struct.pack("4f", number, 1, 2, 3)
    label = f"a label that is longer than twelve bytes: {number}"
    return f"m{number}", f"who{number % 2}", vector, b"\x01\x02", number, label, "a body"
