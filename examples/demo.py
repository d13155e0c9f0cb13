"""The first minute: a live database is backed up, wrecked and restored, through MCP.

    python examples/demo.py          (or `make demo`, which makes the environment first)

Everything happens in a new temporary directory. The server is the real one, over stdio, driven
by the MCP Python client as an agent would; what needs a person runs in a terminal, as it would.
The example proves what it says: it stops with an error where the data is not as it should be.
"""

import filecmp
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import anyio
from mcp import StdioServerParameters
from mcp.client import Client
from mcp.client.stdio import stdio_client
from mcp_types import TextContent

ACCOUNTS = 1_000
TOTAL = ACCOUNTS * 100  # what the balances add up to, in every consistent copy
MEMORIES = 20_000
PROGRAM = (sys.executable, "-m", "mcp_backup")


def main() -> None:
    """Run the story, or be the other process in it."""
    if sys.argv[1:2] == ["--write"]:
        keep_writing(Path(sys.argv[2]))
    else:
        place = Path(tempfile.mkdtemp(prefix="mcp-backup-demo-")).resolve() / "ecosystem"
        place.mkdir()
        story = Story(place)
        with writer(place / "akosha/data/memories.db"):
            anyio.run(story.tell)
        story.go_on()


class Story:
    """What happens, told while it does."""

    def __init__(self, place: Path) -> None:
        """Prepare two databases, some settings with a secret, and a repository, in `place`."""
        self.place = place
        self.sessions = place / "session-buddy/data/sessions.db"
        self.memories = place / "akosha/data/memories.db"
        self.began = time.monotonic()
        self.backup_id = ""
        make_sessions(self.sessions)
        make_memories(self.memories)
        (place / ".env").write_text("API_TOKEN=not-a-real-secret\n")
        (place / "settings").mkdir()
        (place / "settings/mahavishnu.yaml").write_text("pools: 4\n")
        say(f"Two databases and some settings in {place}")
        say(f"  {self.sessions.relative_to(place)}: {rows(self.sessions, 'messages')} messages")
        say(
            f"  {self.memories.relative_to(place)}: {rows(self.memories, 'memories')} memories, and"
        )
        say(f"    {ACCOUNTS} accounts that another process keeps moving money between")

    async def tell(self) -> None:
        """Back up, wreck, restore, undo; and let restic have the last word."""
        self.step("In a terminal: find what is worth protecting, make a repository")
        self.terminal("init", "--yes")
        settings = self.place / "mcp-backup.toml"
        settings.write_text('state_dir = "./state"\n' + settings.read_text())
        server = StdioServerParameters(
            command=PROGRAM[0], args=[*PROGRAM[1:], "serve"], cwd=self.place, env=dict(os.environ)
        )
        with (self.place / "server.log").open("w") as log:
            async with connected(server, log) as client:
                await self.back_up(client)
                await self.wreck_and_restore(client)
                await self.look_from_outside(client)

    async def back_up(self, client: Client) -> None:
        """Back up while the other process writes, list, verify."""
        self.step("As an agent: back up, while the other process writes")
        first = await self.tool(client, "create_backup", backup_type="full", note="first")
        self.backup_id = first["backup_id"]
        await self.tool(client, "create_backup", backup_type="incremental", note="second")
        self.step("As an agent: what is there, and is it any good?")
        await self.tool(client, "list_backups")
        await self.tool(client, "verify_backup", backup_id=self.backup_id, level="restore")

    async def wreck_and_restore(self, client: Client) -> None:
        """Wreck both databases, have them restored, take it back, restore them again."""
        messages = rows(self.sessions, "messages")
        self.step("Something goes wrong")
        with closing(sqlite3.connect(self.memories, timeout=30)) as database, database:
            database.execute("DELETE FROM memories WHERE id % 2 = 0")
            database.execute("UPDATE accounts SET balance = balance + 1 WHERE id = 1")
        with self.sessions.open("r+b") as file:
            file.write(os.urandom(32 * 1024))
        say("  half of the memories are deleted, and money comes from nowhere")
        say(f"  {self.sessions.name} is overwritten with random bytes")

        self.step("As an agent: ask for the first backup back")
        plan = await self.tool(client, "restore_backup", backup_id=self.backup_id)
        say("  ... nothing has happened yet, and the agent cannot approve it. In a terminal:")
        self.terminal("approve", plan["plan_id"], "--yes")
        done = await self.tool(client, "restore_backup", plan_id=plan["plan_id"])
        expect(rows(self.sessions, "messages") == messages, "every message is back")
        expect(rows(self.memories, "memories") == MEMORIES, "every memory is back")
        expect(total(self.memories) == TOTAL, "the balances add up again")
        before = rows(self.memories, "transfers")
        until(lambda: rows(self.memories, "transfers") > before)
        say("    ok: the process that had the database open writes on, into the restored data")

        self.step("In a terminal: on second thoughts, as it was before the restore")
        self.terminal("undo", done["undo_id"], "--yes")
        expect(rows(self.memories, "memories") == MEMORIES // 2, "half of the memories, as before")
        expect(not readable(self.sessions), f"{self.sessions.name} is garbage, as before")
        self.step("In a terminal: and restored again, without an agent")
        self.terminal("restore", self.backup_id, "--yes")
        expect(rows(self.sessions, "messages") == messages, "every message is back")
        expect(total(self.memories) == TOTAL, "the balances add up")

    async def look_from_outside(self, client: Client) -> None:
        """Restore beside the live data, and compare with what restic makes of the repository."""
        self.step("Without us: a bare restic reads the same repository")
        restic = shutil.which("restic")
        if restic is None:
            say("  restic is not installed here; `apt-get install restic`, and try")
            say(f"  {' '.join(self.restic('restic', 'check', '--read-data'))}")
            return
        self.run(*self.restic(restic, "check", "--read-data"))
        out = self.place / "from-restic"
        tag = f"--tag={self.backup_id}"
        self.run(*self.restic(restic, "restore", "latest", tag, f"--target=./{out.name}"))
        ours = await self.tool(client, "restore_backup", backup_id=self.backup_id, target="scratch")
        for target in ours["targets"]:
            if target["component"] == "databases":
                compare(Path(target["path"]), out)

    def go_on(self) -> None:
        """Say what took how long, and what to try now."""
        self.step(f"Done in {time.monotonic() - self.began:.1f} s. To go on:")
        program = Path(sys.executable).with_name("mcp-backup")
        say(f"  cd {self.place}")
        for verb in ("list", "doctor", "create --note mine", "undo", "check --level data"):
            say(f"  {program} {verb}")
        say(f"  rm -r {self.place.parent}")

    def step(self, what: str) -> None:
        """Head a paragraph."""
        say(f"\n{time.monotonic() - self.began:5.1f} s  {what}")

    def restic(self, program: str, *arguments: str) -> tuple[str, ...]:
        """Word a restic command on the repository."""
        options = ("--repo=./backups", "--password-file=./backups.key")
        return (program, "--no-cache", *options, *arguments)

    def terminal(self, *arguments: str) -> None:
        """Run our program as a person would, and show what they would see."""
        say(f"  $ mcp-backup {' '.join(arguments)}")
        self.show(*PROGRAM, *arguments)

    def run(self, *command: str) -> None:
        """Run another program, and show what a person would see."""
        say(f"  $ {Path(command[0]).name} {' '.join(command[1:])}")
        self.show(*command)

    def show(self, *command: str) -> None:
        """Run a program to its end; what it says is indented."""
        ran = subprocess.run(command, cwd=self.place, capture_output=True, text=True, check=False)
        for line in (ran.stdout + ran.stderr).splitlines():
            self.quote(line)
        if ran.returncode != 0:
            expect(False, f"done with exit code 0, not {ran.returncode}")

    def quote(self, line: str) -> None:
        """Show a line of somebody else's, with shorter paths."""
        say(f"    {line.replace(f'{self.place}/', './')}".rstrip())

    async def tool(self, client: Client, name: str, **arguments: str) -> Mapping[str, Any]:
        """Call a tool, and show what the agent would see."""
        words = " ".join(f"{key}={value}" for key, value in arguments.items())
        say(f"  > {name} {words}")
        began = time.monotonic()
        with anyio.fail_after(120):
            result = await client.call_tool(name, arguments)
        for block in result.content:
            for line in block.text.splitlines() if isinstance(block, TextContent) else ():
                self.quote(line)
        expect(not result.is_error, f"answered in {time.monotonic() - began:.2f} s")
        return result.structured_content or {}


def make_sessions(path: Path) -> None:
    """Make a database of chat sessions."""
    path.parent.mkdir(parents=True)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE messages (id INTEGER PRIMARY KEY, text TEXT NOT NULL)")
        texts = ((f"message {number}: {os.urandom(60).hex()}",) for number in range(20_000))
        database.executemany("INSERT INTO messages (text) VALUES (?)", texts)


def make_memories(path: Path) -> None:
    """Make a database of memories, with accounts whose balances must always add up."""
    path.parent.mkdir(parents=True)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE memories (id INTEGER PRIMARY KEY, text TEXT NOT NULL)")
        database.execute("CREATE TABLE accounts (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL)")
        database.execute("CREATE TABLE transfers (id INTEGER PRIMARY KEY, note TEXT NOT NULL)")
        texts = ((f"memory {number}: {os.urandom(80).hex()}",) for number in range(MEMORIES))
        database.executemany("INSERT INTO memories (text) VALUES (?)", texts)
        database.executemany(
            "INSERT INTO accounts VALUES (?, 100)", ((n,) for n in range(ACCOUNTS))
        )


def keep_writing(path: Path) -> None:
    """Move money between accounts, a transaction at a time, until told to stop."""
    with closing(sqlite3.connect(path, timeout=60)) as database:
        number = 0
        while True:
            number += 1
            source, target = number * 7919 % ACCOUNTS, number * 104_729 % ACCOUNTS
            with database:
                database.execute(
                    "UPDATE accounts SET balance = balance - 1 WHERE id = ?", (source,)
                )
                database.execute(
                    "UPDATE accounts SET balance = balance + 1 WHERE id = ?", (target,)
                )
                database.execute("INSERT INTO transfers (note) VALUES (?)", (f"{source}>{target}",))
            time.sleep(0.002)


@contextmanager
def writer(path: Path) -> Iterator[None]:
    """Have another process write to the database, which it keeps open."""
    process = subprocess.Popen([sys.executable, __file__, "--write", str(path)])
    try:
        yield
        expect(process.poll() is None, "the other process never noticed a thing")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def connected(server: StdioServerParameters, log: Any) -> Client:
    """Return a client of a server process whose log goes to `log`."""
    return Client(stdio_client(server, errlog=log))


def rows(path: Path, table: str) -> int:
    """Count the rows of a table."""
    return one(path, f"SELECT count(*) FROM {table}")


def total(path: Path) -> int:
    """Add up the balances."""
    return one(path, "SELECT sum(balance) FROM accounts")


def one(path: Path, query: str) -> int:
    """Ask a database for one number."""
    with closing(sqlite3.connect(path, timeout=30)) as database:
        number: int = database.execute(query).fetchone()[0]
        return number


def readable(path: Path) -> bool:
    """Tell whether SQLite can make sense of a file."""
    try:
        one(path, "SELECT count(*) FROM sqlite_master")
    except sqlite3.DatabaseError:
        return False
    return True


def until(condition: Callable[[], bool]) -> None:
    """Wait for the other process, at most half a minute."""
    patience = time.monotonic() + 30
    while not condition():
        if time.monotonic() > patience:
            expect(False, "something happens within half a minute")
        time.sleep(0.02)


def compare(ours: Path, theirs: Path) -> None:
    """Compare what we restored of a database with what restic restored, byte for byte."""
    files = [ours] if ours.is_file() else [path for path in ours.rglob("*") if path.is_file()]
    for file in files:
        (other,) = theirs.rglob(file.name)
        same = filecmp.cmp(file, other, shallow=False)
        expect(same, f"{file.name}: restic's copy is ours, byte for byte")


def expect(truth: bool, what: str) -> None:
    """Say what is so, or stop because it is not."""
    say(f"    {'ok' if truth else 'NOT SO'}: {what}")
    if not truth:
        raise SystemExit(1)


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
