"""Make a database like an agent's memory: conversations, embeddings, full-text search, in WAL mode.

Half of it is text that compresses, half random floats that do not; rows are of all lengths, so
no page is aligned to please anybody. The same seed gives the same rows.
"""

import argparse
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path

_DIMENSIONS = 384  # float32 per embedding, as small sentence models have
_MANTISSAS = int.from_bytes(b"\xff\xff\x7f\x80" * _DIMENSIONS, "little")
_EXPONENTS = int.from_bytes(b"\x00\x00\x00\x3d" * _DIMENSIONS, "little")
_SYLLABLES = (
    "ka",
    "lo",
    "mi",
    "ter",
    "an",
    "sub",
    "ver",
    "ing",
    "re",
    "do",
    "st",
    "ne",
    "pla",
    "qu",
)


def _vocabulary(chance: random.Random, words: int = 20_000) -> list[str]:
    return ["".join(chance.choices(_SYLLABLES, k=chance.randint(1, 4))) for _ in range(words)]


def _sentences(chance: random.Random) -> Iterator[str]:
    vocabulary = _vocabulary(chance)
    weights = [1 / (rank + 10) for rank in range(len(vocabulary))]
    pool = chance.choices(vocabulary, weights, k=1 << 20)
    while True:
        start, length = chance.randrange(len(pool) - 200), chance.randint(5, 150)
        yield " ".join(pool[start : start + length]) + f" #{chance.getrandbits(40):x}"


def make(path: Path, megabytes: int, seed: int = 1) -> None:
    """Make the database at `path`, about `megabytes` large; it must not exist."""
    chance = random.Random(seed)
    text = _sentences(chance)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript(
        """
        PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;
        CREATE TABLE conversations (id INTEGER PRIMARY KEY, agent TEXT NOT NULL, at REAL NOT NULL,
            role TEXT NOT NULL, content TEXT NOT NULL, balance INTEGER NOT NULL DEFAULT 0);
        CREATE INDEX conversations_agent ON conversations (agent, at);
        CREATE TABLE embeddings (id INTEGER PRIMARY KEY,
            conversation INTEGER NOT NULL REFERENCES conversations (id), vector BLOB NOT NULL);
        CREATE INDEX embeddings_conversation ON embeddings (conversation);
        CREATE VIRTUAL TABLE search
            USING fts5 (content, content='conversations', content_rowid='id');
        """
    )
    identity = 0
    while _size(connection) < megabytes * 1_000_000:
        connection.execute("BEGIN")
        rows = []
        for _ in range(3_000):
            identity += 1
            agent = f"agent-{chance.randrange(50)}"
            rows.append((identity, agent, identity * 1.5, chance.choice("ua"), next(text), 0))
        connection.executemany("INSERT INTO conversations VALUES (?,?,?,?,?,?)", rows)
        connection.executemany(
            "INSERT INTO embeddings (conversation, vector) VALUES (?,?)",
            ((row[0], _vector(chance)) for row in rows[::3]),
        )
        connection.executemany(
            "INSERT INTO search (rowid, content) VALUES (?,?)", ((r[0], r[4]) for r in rows)
        )
        connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def _vector(chance: random.Random) -> bytes:
    """Return float32s with random signs and mantissas, and exponents as normalised vectors have."""
    raw = int.from_bytes(chance.randbytes(4 * _DIMENSIONS), "little")
    return (raw & _MANTISSAS | _EXPONENTS).to_bytes(4 * _DIMENSIONS, "little")


def _size(connection: sqlite3.Connection) -> int:
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    return int(pages * connection.execute("PRAGMA page_size").fetchone()[0])


def edit(path: Path, seed: int, updates: int = 1_500, inserts: int = 2_000) -> None:
    """Do a day's work: edits of rows scattered over both tables, and new rows as `make` adds them.

    Every row is as likely to be edited as any other. A conversation keeps its text, so that the
    full-text index is right; an embedding is made anew.
    """
    chance = random.Random(seed)
    text = _sentences(chance)
    connection = sqlite3.connect(path, isolation_level=None)
    last = connection.execute("SELECT max(id) FROM conversations").fetchone()[0]
    vectors = connection.execute("SELECT max(id) FROM embeddings").fetchone()[0]
    connection.execute("BEGIN")
    for _ in range(updates):
        row = chance.randint(1, last + vectors)
        if row > last:
            connection.execute(
                "UPDATE embeddings SET vector = ? WHERE id = ?", (_vector(chance), row - last)
            )
        else:
            connection.execute(
                "UPDATE conversations SET balance = balance + 1, role = ? WHERE id = ?",
                (chance.choice("uab"), row),
            )
    for number in range(1, inserts + 1):
        content, agent = next(text), f"agent-{chance.randrange(50)}"
        connection.execute(
            "INSERT INTO conversations VALUES (?,?,?,?,?,0)",
            (last + number, agent, last * 1.5, "u", content),
        )
        if number % 3 == 1:
            connection.execute(
                "INSERT INTO embeddings (conversation, vector) VALUES (?,?)",
                (last + number, _vector(chance)),
            )
        connection.execute(
            "INSERT INTO search (rowid, content) VALUES (?,?)", (last + number, content)
        )
    connection.execute("COMMIT")
    connection.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    make(arguments.path, arguments.megabytes, arguments.seed)
