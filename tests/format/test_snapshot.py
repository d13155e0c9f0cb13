import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_backup.errors import IntegrityError
from mcp_backup.format.ids import BlobId, SnapshotId
from mcp_backup.format.snapshot import Snapshot, decode_snapshot, encode_snapshot
from tests.format.strategies import any_json, ids, plain_text, tampered, value_or_refusal

FULL = Snapshot(
    time=datetime(2026, 11, 22, 18, 29, 3, 824459, tzinfo=UTC),
    tree=BlobId(bytes([1] * 32)),
    paths=("/data/agent.db",),
    hostname="vm",
    username="root",
    uid=1000,
    gid=1001,
    excludes=("*.tmp",),
    tags=("daily", "<b>"),
    parent=SnapshotId(bytes([2] * 32)),
    original=SnapshotId(bytes([3] * 32)),
    program_version="mcp-backup 1.0",
    summary={"total_files_processed": 1, "total_bytes_processed": 8192},
)
_texts = st.lists(plain_text, max_size=3).map(tuple)
snapshots = st.builds(
    Snapshot,
    time=st.datetimes(
        datetime(1970, 1, 1),  # noqa: DTZ001 - hypothesis adds the zone
        timezones=st.sampled_from([UTC, timezone(timedelta(hours=-5, minutes=-30))]),
    ).filter(lambda moment: moment.year < 9999),
    tree=ids,
    paths=_texts,
    hostname=plain_text,
    username=plain_text,
    uid=st.integers(0, (1 << 32) - 1),
    gid=st.integers(0, (1 << 32) - 1),
    excludes=_texts,
    tags=_texts,
    parent=st.none() | ids,
    original=st.none() | ids,
    program_version=plain_text,
    summary=st.none() | st.dictionaries(plain_text, st.integers(), min_size=1),
)


@given(snapshots)
def test_round_trip(snapshot: Snapshot) -> None:
    assert decode_snapshot(encode_snapshot(snapshot)) == snapshot


def test_members_are_those_of_restic_in_its_order() -> None:
    assert encode_snapshot(FULL).decode() == (
        '{"time":"2026-11-22T18:29:03.824459Z","parent":"' + "02" * 32 + '","tree":"' + "01" * 32
        + '","paths":["/data/agent.db"],"hostname":"vm","username":"root","uid":1000,"gid":1001,'
        '"excludes":["*.tmp"],"tags":["daily",' + r'"\u003cb\u003e"],' + '"original":"' + "03" * 32
        + '","program_version":"mcp-backup 1.0",'
        '"summary":{"total_files_processed":1,"total_bytes_processed":8192}}'
    )  # fmt: skip
    small = Snapshot(time=FULL.time, tree=FULL.tree, paths=())
    assert list(json.loads(encode_snapshot(small))) == ["time", "tree", "paths"]


def test_a_snapshot_of_restic_is_read() -> None:
    snapshot = decode_snapshot(
        b'{"time":"2026-11-22T21:04:36.688058943+01:00","tree":"' + b"92" * 32
        + b'","paths":["/tmp/x"],"hostname":"vm","username":"root","later":{"a":[1]},"tags":null}'
    )  # fmt: skip
    assert snapshot.time == datetime(2026, 11, 22, 20, 4, 36, 688058, tzinfo=UTC)
    assert snapshot.time.utcoffset() == timedelta(hours=1)
    assert (snapshot.paths, snapshot.tags, snapshot.summary) == (("/tmp/x",), (), None)  # noqa: S108


@given(st.binary(max_size=100) | any_json.map(lambda value: json.dumps(value).encode()))
def test_any_other_bytes_are_a_snapshot_or_an_integrity_error(data: bytes) -> None:
    value_or_refusal(decode_snapshot, data)


@given(tampered(encode_snapshot(FULL)))
def test_a_tampered_snapshot_is_a_snapshot_or_an_integrity_error(data: bytes) -> None:
    snapshot = value_or_refusal(decode_snapshot, data)
    if isinstance(snapshot, Snapshot):
        again = decode_snapshot(encode_snapshot(snapshot))
        assert (again.time, again.tree, again.tags) == (snapshot.time, snapshot.tree, snapshot.tags)


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("tree", None),
        ("tree", "01" * 31),
        ("time", None),
        ("parent", "x"),
        ("paths", "/"),
        ("paths", [1]),
        ("tags", {}),
        ("uid", -1),
        ("hostname", []),
        ("summary", []),
    ],
)
def test_an_impossible_member_is_an_integrity_error(member: str, value: object) -> None:
    document = {**json.loads(encode_snapshot(FULL)), member: value}
    with pytest.raises(IntegrityError):
        decode_snapshot(json.dumps(document).encode())


@pytest.mark.parametrize("number", [b"1e999", b"-1e999", b"NaN", b"Infinity"])
def test_a_number_that_is_none_is_an_integrity_error(number: bytes) -> None:
    with pytest.raises(IntegrityError, match="not JSON"):
        decode_snapshot(encode_snapshot(FULL).replace(b"8192", number))
