"""Locks: who is at work in a repository. Many may share it, one may have it alone.

Source: restic design, "Locks"; restic internal/restic/lock.go.
"""

from datetime import datetime

from msgspec import Struct

from mcp_backup.format.document import Document
from mcp_backup.format.gotext import json_value
from mcp_backup.format.times import format_datetime, parse_datetime


class Lock(Struct, frozen=True, kw_only=True):
    """One process's claim. `time` is aware: when it was taken or last refreshed."""

    time: datetime
    exclusive: bool
    hostname: str
    username: str
    pid: int
    uid: int = 0
    gid: int = 0


def encode_lock(lock: Lock) -> bytes:
    """Return the lock's JSON."""
    members = {
        "time": format_datetime(lock.time),
        "exclusive": lock.exclusive,
        "hostname": lock.hostname,
        "username": lock.username,
        "pid": lock.pid,
        "uid": lock.uid,
        "gid": lock.gid,
    }
    optional = ("uid", "gid")
    kept = {name: value for name, value in members.items() if value or name not in optional}
    return json_value(kept).encode()


def decode_lock(data: bytes) -> Lock:
    """Parse a lock's JSON.

    Raises:
        IntegrityError: not a lock.
    """
    document = Document.parse(data, "lock")
    return Lock(
        time=parse_datetime(document.text("time")),
        exclusive=document.truth("exclusive"),
        hostname=document.text("hostname"),
        username=document.text("username"),
        pid=document.integer("pid"),
        uid=document.integer("uid"),
        gid=document.integer("gid"),
    )
