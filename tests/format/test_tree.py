import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from mcp_backup.errors import IntegrityError
from mcp_backup.format.ids import BlobId, digest
from mcp_backup.format.tree import (
    Node,
    decode_tree,
    dir_node,
    encode_tree,
    file_node,
    is_safe_name,
    symlink_node,
)
from tests.format.restic_tree import NAMES
from tests.format.strategies import any_json, ids, names, plain_text, tampered, value_or_refusal

BY_RESTIC = Path(__file__).with_name("restic_tree.json").read_bytes()
ONE, TWO = BlobId(bytes([0x11] * 32)), BlobId(bytes([0x22] * 32))
T = 1_795_372_128_500_000_000  # 2026-11-22T18:28:48.5Z
EXTRA: dict[str, Any] = {
    "extended_attributes": [{"name": "user.x", "value": "PDw="}],
    "error": "<partly read>",
    "of_a_later_version": {"b": [1, None], "a": 1.5},
}

_numbers = st.integers(0, (1 << 64) - 1)
_nodes = st.builds(
    Node,
    name=names,
    type=st.just("fifo"),
    mode=st.integers(0, 0o7777),
    mtime_ns=st.integers(-(10**18), 10**19),
    atime_ns=st.integers(-(10**18), 10**19),
    ctime_ns=st.integers(-(10**18), 10**19),
    uid=st.integers(0, (1 << 32) - 1),
    gid=st.integers(0, (1 << 32) - 1),
    user=plain_text,
    group=plain_text,
    inode=_numbers,
    device_id=_numbers,
    links=_numbers,
    device=_numbers,
    size=_numbers,
    link_target=names,
    extra=st.dictionaries(st.sampled_from(list(EXTRA)), plain_text | st.integers()),
)


@st.composite
def trees(draw: st.DrawFn) -> list[Node]:
    """Nodes of different names, of every type, each with what its type asks for."""
    nodes = draw(st.lists(_nodes, max_size=4, unique_by=lambda node: node.name))
    typed = []
    for node in nodes:
        kind = draw(st.sampled_from(["file", "dir", "symlink", "dev", "chardev", "socket", "odd"]))
        content = draw(st.lists(ids.map(BlobId), max_size=3)) if kind == "file" else None
        subtree = BlobId(draw(ids)) if kind == "dir" else None
        content_ids = None if content is None else tuple(content)
        typed.append(replace(node, type=kind, content=content_ids, subtree=subtree))
    return typed


def _by_name(nodes: list[Node]) -> list[Node]:
    return sorted(nodes, key=lambda node: node.name.encode(errors="surrogateescape"))


@given(trees())
def test_round_trip_in_the_order_of_the_names_bytes(nodes: list[Node]) -> None:
    data = encode_tree(nodes)
    assert decode_tree(data) == _by_name(nodes)
    assert encode_tree(reversed(nodes)) == data


def test_a_tree_made_by_restic_is_read_and_written_byte_for_byte() -> None:
    nodes = decode_tree(BY_RESTIC)
    assert encode_tree(nodes) == BY_RESTIC
    by_name = {node.name.encode(errors="surrogateescape"): node for node in nodes}
    assert {name: by_name[name].mtime_ns for name in NAMES} == NAMES
    assert by_name[b"plain"].content == ()
    assert by_name[b'a"b'].content == (digest(b"1"),)
    assert (by_name[b"plain"].type, by_name[b"plain"].mode) == ("file", 0o4755)
    assert (by_name[b"directory"].type, by_name[b"directory"].mode) == ("dir", 0o1777)
    assert by_name[b"link"].link_target == "to<&>\t"
    assert (by_name[b"null"].type, by_name[b"null"].device) == ("chardev", 259)
    assert by_name[b"fifo"].type == "fifo"


@pytest.mark.parametrize(
    ("node", "members"),
    [
        (
            file_node("agent.db", [ONE, TWO], 8192, mode=0o644, mtime_ns=T),
            f'"type":"file","mode":420,TIMES,"uid":0,"gid":0,"size":8192,'
            f'"content":["{ONE.hex()}","{TWO.hex()}"]',
        ),
        (
            file_node("empty", [], 0, mode=0, mtime_ns=T),
            '"type":"file",TIMES,"uid":0,"gid":0,"content":[]',
        ),
        (
            dir_node("db", ONE, mode=0o755, mtime_ns=T),
            f'"type":"dir","mode":2147484141,TIMES,"uid":0,"gid":0,"content":null,'
            f'"subtree":"{ONE.hex()}"',
        ),
        (
            dir_node("tmp", ONE, mode=0o1777, mtime_ns=T),
            f'"type":"dir","mode":2148532735,TIMES,"uid":0,"gid":0,"content":null,'
            f'"subtree":"{ONE.hex()}"',
        ),
        (
            symlink_node("link", "<b>\udcff", mtime_ns=T),
            '"type":"symlink","mode":134218239,TIMES,"uid":0,"gid":0,'
            r'"linktarget":"\u003cb\u003e\ufffd","linktarget_raw":"PGI+/w==","content":null',
        ),
        (
            replace(
                file_node("owned", [ONE], 5, mode=0o6600, mtime_ns=T),
                uid=1000,
                gid=100,
                user="häns",
                group="<g>",
                inode=17,
                device_id=65024,
                links=2,
                extra=EXTRA,
            ),
            '"type":"file","mode":12583296,TIMES,"uid":1000,"gid":100,"user":"häns",'
            r'"group":"\u003cg\u003e","inode":17,"device_id":65024,"size":5,"links":2,'
            '"extended_attributes":[{"name":"user.x","value":"PDw="}],'
            f'"content":["{ONE.hex()}"],'
            r'"error":"\u003cpartly read\u003e","of_a_later_version":{"b":[1,null],"a":1.5}',
        ),
        (
            Node(name="sda", type="dev", mode=0o660, device=2048),
            '"type":"dev","mode":67109296,"mtime":"1970-01-01T00:00:00Z",'
            '"atime":"1970-01-01T00:00:00Z","ctime":"1970-01-01T00:00:00Z","uid":0,"gid":0,'
            '"device":2048,"content":null',
        ),
    ],
)
def test_a_node_has_its_members_in_gos_order(node: Node, members: str) -> None:
    times = ",".join(f'"{which}time":"2026-11-22T18:28:48.5Z"' for which in "mac")
    expected = f'{{"nodes":[{{"name":"{node.name}",{members}}}]}}\n'.replace("TIMES", times)
    assert encode_tree([node]).decode() == expected
    assert decode_tree(expected.encode()) == [node]


def test_an_empty_directory_has_no_nodes_and_its_newline() -> None:
    assert encode_tree([]) == b'{"nodes":[]}\n'
    assert decode_tree(b'{"nodes":[]}\n') == decode_tree(b'{"nodes":null}') == []


def test_names_are_ordered_by_their_bytes_and_not_their_characters() -> None:
    odd = ["\ufffd", "\U0001f600", "\udcff", "\udc80", "a", "Z"]
    nodes = [file_node(name, [], 0, mode=0, mtime_ns=0) for name in odd]
    raw = [node.name.encode(errors="surrogateescape") for node in decode_tree(encode_tree(nodes))]
    assert (
        raw == sorted(raw) == [b"Z", b"a", b"\x80", "\ufffd".encode(), b"\xf0\x9f\x98\x80", b"\xff"]
    )


@pytest.mark.parametrize(
    "nodes",
    [
        [Node(name="a", type="fifo"), Node(name="b", type="fifo"), Node(name="a", type="socket")],
        [Node(name="a", type="file")],
        [Node(name="a", type="dir")],
        [Node(name="a", type="fifo", content=())],
        [Node(name="a", type="fifo", subtree=ONE)],
    ],
)
def test_a_tree_that_restic_would_refuse_is_not_written(nodes: list[Node]) -> None:
    with pytest.raises(ValueError, match="'a'"):
        encode_tree(nodes)


@given(st.binary(max_size=100) | any_json.map(lambda value: json.dumps(value).encode()))
def test_any_other_bytes_are_nodes_or_an_integrity_error(data: bytes) -> None:
    value_or_refusal(decode_tree, data)


@given(tampered(BY_RESTIC))
def test_a_tampered_tree_is_nodes_or_an_integrity_error(data: bytes) -> None:
    nodes = value_or_refusal(decode_tree, data)
    if isinstance(nodes, list) and len({node.name for node in nodes}) == len(nodes):
        assert len(decode_tree(encode_tree(nodes))) == len(nodes)


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("content", None),
        ("content", "11" * 32),
        ("content", ["11" * 31]),
        ("content", ["AA" * 32]),
        ("content", ["11" * 31 + " 1"]),
        ("content", [["11" * 32]]),
        ("content", {"11" * 32: 1}),
        ("size", -1),
        ("size", 1 << 64),
        ("size", 1.0),
        ("size", True),
        ("uid", 1 << 32),
        ("mtime", "yesterday"),
        ("mtime", 5),
        ("name", "\\"),
        ("name", 5),
        ("linktarget_raw", "%"),
    ],
)
def test_an_impossible_member_is_an_integrity_error(member: str, value: object) -> None:
    node = file_node("a", [ONE], 5, mode=0o600, mtime_ns=T)
    document = json.loads(encode_tree([node]))
    document["nodes"][0][member] = value
    with pytest.raises(IntegrityError):
        decode_tree(json.dumps(document).encode())


def test_a_directory_without_subtree_is_an_integrity_error() -> None:
    with pytest.raises(IntegrityError, match="directory without subtree"):
        decode_tree(b'{"nodes":[{"name":"a","type":"dir","content":null}]}\n')


def test_a_surrogate_in_json_cannot_pass_for_a_byte() -> None:
    (node,) = decode_tree(b'{"nodes":[{"name":"\\udcff","type":"fifo","linktarget":"\\udc80"}]}')
    assert (node.name, node.link_target) == ("\ufffd", "\ufffd")


def test_only_names_of_entries_are_safe() -> None:
    assert all(map(is_safe_name, ["a", "...", " ", "a\\b", "\udcff", "-rf", "\n"]))
    assert not any(map(is_safe_name, ["", ".", "..", "/", "a/b", "../a", "a\0"]))


def test_a_gigabyte_of_chunks_is_one_node() -> None:
    content = [BlobId(n.to_bytes(32, "big")) for n in range(65_536)]
    node = file_node("big.db", content, 1 << 30, mode=0o600, mtime_ns=T)
    data = encode_tree([node])
    assert len(data) < 67 * 65_536 + 400
    assert decode_tree(data) == [node]
