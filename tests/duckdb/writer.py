"""A program that writes to a DuckDB database all the time.

    python writer.py PATH

Every transaction keeps three promises: the balances sum up to nothing, the ledger has as many
rows as the counter says, and their amounts sum up to what the counter says. It inserts, updates
and deletes, now and then in a large transaction, rolls some back, and checkpoints every so often.
It prints "ready", writes until its standard input closes, then prints how many it committed.
"""

import select
import sys
import time
from secrets import randbelow

import duckdb

ACCOUNTS = 200
PACE = 0.012  # seconds a transaction, or a fast machine checkpoints more often than a copy takes
PROMISES = (
    "SELECT (SELECT sum(balance) FROM account) = 0"
    " AND (SELECT count(*) FROM ledger) = (SELECT rows FROM counter)"
    " AND (SELECT coalesce(sum(amount), 0) FROM ledger) = (SELECT total FROM counter)"
)


def prepare(path: str, ballast: int) -> None:
    """Make the database; `ballast` rows make it larger."""
    connection = duckdb.connect(path)
    connection.execute("CREATE TABLE account(id INTEGER PRIMARY KEY, balance BIGINT, note VARCHAR)")
    connection.execute("CREATE TABLE ledger(id BIGINT, amount BIGINT, memo VARCHAR)")
    connection.execute("CREATE TABLE counter(rows BIGINT, total BIGINT)")
    connection.execute("INSERT INTO counter VALUES (0, 0)")
    connection.execute(f"INSERT INTO account SELECT range, 0, 'n' FROM range({ACCOUNTS})")
    connection.execute(
        f"CREATE TABLE ballast AS SELECT range AS id, sha256(range::VARCHAR) AS text"
        f" FROM range({ballast})"
    )
    connection.close()


def transact(connection: duckdb.DuckDBPyConnection, rows: int) -> None:
    """Move money and write `rows` into the ledger, or take some out; all or nothing."""
    one = randbelow(ACCOUNTS)
    other = (one + 1 + randbelow(ACCOUNTS - 1)) % ACCOUNTS
    amount = 1 + randbelow(99)
    change = "UPDATE account SET balance = balance + ?, note = repeat('x', ?) WHERE id = ?"
    connection.execute("BEGIN")
    connection.execute(change, (amount, 100 + randbelow(400), one))
    connection.execute(change, (-amount, 100 + randbelow(400), other))
    if randbelow(4):
        connection.execute(
            f"INSERT INTO ledger SELECT range, {amount}, sha256(range::VARCHAR) FROM range({rows})"
        )
    else:
        connection.execute(f"DELETE FROM ledger WHERE id % 10 = {randbelow(10)}")
    connection.execute(
        "UPDATE counter SET rows = (SELECT count(*) FROM ledger),"
        " total = (SELECT coalesce(sum(amount), 0) FROM ledger)"
    )
    connection.execute("COMMIT" if randbelow(20) else "ROLLBACK")


def main(path: str) -> None:
    connection = duckdb.connect(path)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    commits = 0
    due = time.monotonic()
    while not select.select([sys.stdin], [], [], max(0.002, due - time.monotonic()))[0]:
        due = time.monotonic() + PACE
        transact(connection, 20_000 if not randbelow(25) else 1 + randbelow(50))
        commits += 1
        if not randbelow(15):
            connection.execute("CHECKPOINT").fetchall()
        if not randbelow(200):
            connection.execute("DELETE FROM ledger WHERE id > 100")
            connection.execute(
                "UPDATE counter SET rows = (SELECT count(*) FROM ledger),"
                " total = (SELECT coalesce(sum(amount), 0) FROM ledger)"
            )
    sys.stdout.write(f"{commits}\n")


if __name__ == "__main__":
    main(sys.argv[1])
