r"""Trees: directory listings, the blobs that give contents their names.

    {"nodes":[{"name":"agent.db","type":"file","mode":420,"mtime":"…", …,"content":["…"]}, …]}\n

Trees are hashed, and restic refuses to rewrite one that is not byte for byte what Go would have
written, so members have one order, and nodes are sorted by their names' bytes.

Source: restic design, "Trees and Data"; restic internal/restic/node.go.
"""

from base64 import b64encode
from binascii import hexlify
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any, NoReturn

from msgspec import Struct, field
from msgspec.structs import replace

from mcp_backup.errors import IntegrityError
from mcp_backup.format.document import MANY, Document
from mcp_backup.format.gotext import json_string, json_value, quote, unquote
from mcp_backup.format.ids import ID_SIZE, BlobId
from mcp_backup.format.times import format_nanoseconds, parse_nanoseconds

_TYPE_BITS = {  # of Go's FileMode
    "file": 0,
    "dir": 1 << 31,
    "symlink": 1 << 27,
    "dev": 1 << 26,
    "chardev": 1 << 26 | 1 << 21,
    "fifo": 1 << 25,
    "socket": 1 << 24,
}
_SPECIAL_BITS = ((0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20))  # POSIX, Go
_KNOWN = frozenset(
    (
        *("name", "type", "mode", "mtime", "atime", "ctime", "uid", "gid", "user", "group"),
        *("inode", "device_id", "size", "links", "linktarget", "linktarget_raw", "device"),
        *("content", "subtree"),
    )
)
_BEFORE_DEVICE = ("extended_attributes", "generic_attributes")
_LAST = "error"


class Node(Struct, frozen=True, kw_only=True):
    """One name in a directory.

    `name` and `link_target` are text with surrogates for bytes that are not UTF-8. `type` is
    "file", "dir", "symlink", "dev", "chardev", "fifo", "socket", or one unknown to us. `mode`
    holds the permission bits (0o7777). `content` is a file's blobs in order, and None for
    everything else; `subtree` is a directory's tree. `extra` holds members that we keep without
    looking: extended and generic attributes, "error", and what later versions may add.
    """

    name: str
    type: str
    mode: int = 0
    mtime_ns: int = 0
    atime_ns: int = 0
    ctime_ns: int = 0
    uid: int = 0
    gid: int = 0
    user: str = ""
    group: str = ""
    inode: int = 0
    device_id: int = 0
    links: int = 0
    device: int = 0
    size: int = 0
    link_target: str = ""
    content: tuple[BlobId, ...] | None = None
    subtree: BlobId | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


def is_safe_name(name: str) -> bool:
    """Tell whether `name` can only mean an entry of the directory it is in."""
    return name not in ("", ".", "..") and "/" not in name and "\0" not in name


def encode_tree(nodes: Iterable[Node]) -> bytes:
    """Return the plaintext of a tree blob, with its newline.

    Raises:
        ValueError: two nodes of one name, a file without content, a directory without subtree.
    """
    named = sorted(((_raw(node.name), node) for node in nodes), key=lambda pair: pair[0])
    for (name, _), (following, _) in pairwise(named):
        if name == following:
            raise ValueError(f"two nodes are named {name!r}")
    parts = [b'{"nodes":[']
    for _, node in named:
        parts += (b"," if len(parts) > 1 else b"", *_encode(node))
    return b"".join((*parts, b"]}\n"))


def _raw(name: str) -> bytes:
    return name.encode(errors="surrogateescape")


def _encode(node: Node) -> tuple[bytes, bytes, bytes]:
    """Return a node's JSON in parts, since the list of a large file's blobs is large."""
    if (node.type == "file") != (node.content is not None):
        raise ValueError(f"{node.type} {node.name!r} with content {node.content!r:.40}")
    if (node.type == "dir") != (node.subtree is not None):
        raise ValueError(f"{node.type} {node.name!r} with subtree {node.subtree!r}")
    before = [
        f'"name":{json_string(quote(node.name))}',
        f'"type":{json_string(node.type)}',
        *_present("mode", _go_mode(node)),
        f'"mtime":"{format_nanoseconds(node.mtime_ns)}"',
        f'"atime":"{format_nanoseconds(node.atime_ns)}"',
        f'"ctime":"{format_nanoseconds(node.ctime_ns)}"',
        f'"uid":{node.uid}',
        f'"gid":{node.gid}',
        *_present("user", node.user),
        *_present("group", node.group),
        *_present("inode", node.inode),
        *_present("device_id", node.device_id),
        *_present("size", node.size),
        *_present("links", node.links),
        *_present("linktarget", node.link_target),
        *_present("linktarget_raw", _raw_target(node.link_target)),
        *_members(node.extra, [name for name in _BEFORE_DEVICE if name in node.extra]),
        *_present("device", node.device),
        '"content":',
    ]
    after = [
        "",
        *_present("subtree", node.subtree.hex() if node.subtree else ""),
        *_others(node.extra),
    ]
    return f"{{{','.join(before)}".encode(), _content(node.content), f"{','.join(after)}}}".encode()


def _present(name: str, value: str | int) -> tuple[str, ...]:
    if not value:
        return ()
    return (f'"{name}":{json_string(value) if isinstance(value, str) else value}',)


def _others(extra: Mapping[str, Any]) -> list[str]:
    known = (*_BEFORE_DEVICE, _LAST)
    last = [_LAST] if _LAST in extra else []
    return _members(extra, [*last, *(name for name in extra if name not in known)])


def _members(extra: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    return [f"{json_string(name)}:{json_value(extra[name])}" for name in names]


def _content(content: tuple[BlobId, ...] | None) -> bytes:
    if content is None:
        return b"null"
    if not content:
        return b"[]"
    digits = hexlify(b"".join(content), b",", ID_SIZE)
    return b'["%b"]' % digits.replace(b",", b'","')


def _raw_target(target: str) -> str:
    try:
        target.encode()
    except UnicodeEncodeError:
        return b64encode(_raw(target)).decode()
    return ""


def _go_mode(node: Node) -> int:
    mode = node.mode & 0o777 | _TYPE_BITS.get(node.type, 0)
    for posix, go in _SPECIAL_BITS:
        if node.mode & posix:
            mode |= go
    return mode


def decode_tree(data: bytes) -> list[Node]:
    """Parse the plaintext of a tree blob, in its order.

    Hostile names, a wrong order and doubled names are not judged here: see `is_safe_name`.

    Raises:
        IntegrityError: not a tree; a file without content; a directory without subtree.
    """
    return [_decode(node) for node in Document.parse(data, "tree", MANY).objects("nodes")]


def _decode(document: Document) -> Node:
    name, kind = unquote(document.text("name")), document.text("type")
    mode = document.integer("mode")
    content = document.identities("content")
    subtree = document.identity_or_none("subtree")
    if kind == "file" and content is None:
        _nonsense(name, "is a file without content")
    if kind == "dir" and subtree is None:
        _nonsense(name, "is a directory without subtree")
    return Node(
        name=name,
        type=kind,
        mode=_posix_mode(mode),
        mtime_ns=parse_nanoseconds(document.text("mtime", _ZERO)),
        atime_ns=parse_nanoseconds(document.text("atime", _ZERO)),
        ctime_ns=parse_nanoseconds(document.text("ctime", _ZERO)),
        uid=document.integer("uid"),
        gid=document.integer("gid"),
        user=document.text("user"),
        group=document.text("group"),
        inode=document.integer("inode", bits=64),
        device_id=document.integer("device_id", bits=64),
        links=document.integer("links", bits=64),
        device=document.integer("device", bits=64),
        size=document.integer("size", bits=64),
        link_target=_decode_target(document),
        content=tuple(map(BlobId, content)) if content is not None and kind == "file" else None,
        subtree=BlobId(subtree) if subtree and kind == "dir" else None,
        extra={key: value for key, value in document.members.items() if key not in _KNOWN},
    )


_ZERO = "0001-01-01T00:00:00Z"  # Go's time when nobody set one


def _posix_mode(mode: int) -> int:
    posix = mode & 0o777
    for bit, go in _SPECIAL_BITS:
        if mode & go:
            posix |= bit
    return posix


def _decode_target(document: Document) -> str:
    if document.members.get("linktarget_raw") is None:
        return document.text("linktarget")
    return document.octets("linktarget_raw").decode(errors="surrogateescape")


def _nonsense(name: str, what: str) -> NoReturn:
    raise IntegrityError(f"tree: {name!r:.80} {what}")


def file_node(name: str, content: Iterable[BlobId], size: int, *, mode: int, mtime_ns: int) -> Node:
    """Return the node of a file of `size` bytes, with nothing that changes while it does not.

    No inode, device or links, and one time for all three: whatever changes in a node stores the
    file's whole list of blobs again.
    """
    node = _stable(name, "file", mode, mtime_ns)
    return replace(node, size=size, content=tuple(content))


def dir_node(name: str, subtree: BlobId, *, mode: int, mtime_ns: int) -> Node:
    """Return the node of a directory, as stable as `file_node`."""
    return replace(_stable(name, "dir", mode, mtime_ns), subtree=subtree)


def symlink_node(name: str, target: str, *, mtime_ns: int) -> Node:
    """Return the node of a symbolic link, as stable as `file_node`."""
    return replace(_stable(name, "symlink", 0o777, mtime_ns), link_target=target)


def _stable(name: str, kind: str, mode: int, mtime_ns: int) -> Node:
    return Node(
        name=name, type=kind, mode=mode, mtime_ns=mtime_ns, atime_ns=mtime_ns, ctime_ns=mtime_ns
    )
