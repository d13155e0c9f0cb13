"""A small server over a database, as a process of its own: start, stop, check [ROWS]."""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
PID, SOCKET, DATABASE = HERE / "serve.pid", "serve.sock", HERE / "data/notes.db"
PATIENCE = 60.0


def serve() -> None:
    """Keep the database open, and say to whoever asks how many notes there are."""
    database = sqlite3.connect(DATABASE, isolation_level=None)
    listener = socket.socket(socket.AF_UNIX)
    Path(SOCKET).unlink(missing_ok=True)
    listener.bind(SOCKET)
    listener.listen()
    PID.write_text(str(os.getpid()))
    while True:
        asker, _ = listener.accept()
        with asker:
            (count,) = database.execute("SELECT count(*) FROM notes").fetchone()
            asker.sendall(str(count).encode())


def ask() -> int | None:
    """Return what the server says; None where it does not answer."""
    with socket.socket(socket.AF_UNIX) as asker:
        try:
            asker.connect(SOCKET)
            return int(asker.recv(64) or -1)
        except OSError:
            return None


def start() -> int:
    subprocess.Popen(
        [sys.executable, __file__, "run"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    end = time.monotonic() + PATIENCE
    while ask() is None:
        if time.monotonic() > end:
            return 1
        time.sleep(0.05)
    return 0


def stop() -> int:
    if PID.exists():
        pid = int(PID.read_text())
        PID.unlink()
        try:
            os.kill(pid, signal.SIGKILL)
            while Path(f"/proc/{pid}/cmdline").read_bytes():  # a zombie has none
                time.sleep(0.02)
        except (ProcessLookupError, FileNotFoundError):
            pass
    return 0


def check(wanted: str) -> int:
    found = ask()
    sys.stdout.write(f"serving {found} notes\n")
    return int(found is None or (bool(wanted) and found != int(wanted)))


if __name__ == "__main__":
    os.chdir(HERE)  # the path of a socket is short
    verb = sys.argv[1]
    if verb == "run":
        serve()
    elif verb == "check":
        sys.exit(check(sys.argv[2] if sys.argv[2:] else ""))
    else:
        sys.exit({"start": start, "stop": stop}[verb]())
