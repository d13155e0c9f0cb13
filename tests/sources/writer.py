"""A program that writes to a database all the time, with the standard library's SQLite.

    python writer.py PATH MODE PAUSE_SECONDS

Every transaction keeps three promises: the balances sum up to nothing, the ledger has as many
rows as the counter says, and their amounts sum up to what the counter says. It prints "ready",
writes until its standard input closes, then prints what it lived through as JSON.
"""

import json
import select
import sqlite3
import sys
import time
from secrets import randbelow

ACCOUNTS = 200
PROMISES = (
    "SELECT (SELECT sum(balance) FROM account) = 0"
    " AND (SELECT count(*) FROM ledger) = (SELECT rows FROM counter)"
    " AND (SELECT coalesce(sum(amount), 0) FROM ledger) = (SELECT total FROM counter)"
)


def prepare(path: str, mode: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA journal_mode={mode}").fetchall()
    connection.executescript(
        "CREATE TABLE account(id INTEGER PRIMARY KEY, balance INTEGER, note TEXT);"
        "CREATE TABLE ledger(id INTEGER PRIMARY KEY, amount INTEGER, memo TEXT);"
        "CREATE INDEX ledger_amount ON ledger(amount);"
        "CREATE TABLE counter(rows INTEGER, total INTEGER);"
        "INSERT INTO counter VALUES (0, 0);"
    )
    rows = [(i, 0, "n" * 3000) for i in range(ACCOUNTS)]
    connection.executemany("INSERT INTO account VALUES (?, ?, ?)", rows)
    connection.commit()
    connection.close()


def transact(connection: sqlite3.Connection, amount: int) -> None:
    one = randbelow(ACCOUNTS)
    other = (one + 1 + randbelow(ACCOUNTS - 1)) % ACCOUNTS
    note = "x" * (2000 + randbelow(2000))
    change = "UPDATE account SET balance = balance + ?, note = ? WHERE id = ?"
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(change, (amount, note, one))
    connection.execute(change, (-amount, note, other))
    connection.execute("INSERT INTO ledger(amount, memo) VALUES (?, ?)", (amount, note[:100]))
    connection.execute("UPDATE counter SET rows = rows + 1, total = total + ?", (amount,))
    connection.execute("COMMIT")


def main(path: str, mode: str, pause: float) -> None:
    connection = sqlite3.connect(path, timeout=20, isolation_level=None)
    connection.execute(f"PRAGMA journal_mode={mode}").fetchall()
    connection.execute("PRAGMA synchronous=OFF")
    commits, longest, errors = 0, 0.0, []
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while not select.select([sys.stdin], [], [], pause)[0]:
        began = time.monotonic()
        try:
            transact(connection, 1 + randbelow(99))
            commits += 1
        except sqlite3.Error as error:
            errors.append(str(error))
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        longest = max(longest, time.monotonic() - began)
    json.dump({"commits": commits, "longest": longest, "errors": errors[:5]}, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
