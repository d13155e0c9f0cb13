"""What the codecs are fed: bytes of every sort, and documents with something wrong in them."""

import json
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import strategies as st

from mcp_backup.errors import IntegrityError, UnsupportedFormat
from mcp_backup.format.blob import BlobKind
from mcp_backup.format.ids import BlobId
from mcp_backup.format.pack import PackEntry

ids = st.binary(min_size=32, max_size=32)
names = st.binary(min_size=1, max_size=12).map(lambda raw: raw.decode(errors="surrogateescape"))
plain_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)


@st.composite
def pack_entries(draw: st.DrawFn, *, max_size: int = 8) -> list[PackEntry]:
    """The blobs of one pack: end to end, of one kind, compressed or not."""
    kind = draw(st.sampled_from(BlobKind))
    entries, offset = [], 0
    for identity in draw(st.lists(ids, min_size=1, max_size=max_size)):
        length = draw(st.integers(32, 64 << 20))
        plain_length = draw(st.just(0) | st.integers(1, 64 << 20))
        entries.append(PackEntry(kind, BlobId(identity), offset, length, plain_length))
        offset += length
    return entries


@st.composite
def tampered(draw: st.DrawFn, document: bytes) -> bytes:
    """`document`, one JSON object, with one value somewhere in it replaced or taken out."""
    root = json.loads(document)
    container, key = draw(st.sampled_from(list(_places(root))))
    if draw(st.booleans()):
        del container[key]
    else:
        container[key] = draw(any_json)
    return json.dumps(root).encode()


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    keys = value if isinstance(value, dict) else range(len(value))
    for key in list(keys):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """`data` with a byte changed, or cut short."""
    at = draw(st.integers(0, len(data) - 1))
    if draw(st.booleans()):
        return data[:at]
    return data[:at] + bytes([data[at] ^ draw(st.integers(1, 255))]) + data[at + 1 :]


def value_or_refusal(decode: Callable[[bytes], object], data: bytes) -> object:
    """Decode, and let nothing out but a value or a refusal, which is None here."""
    try:
        return decode(data)
    except (IntegrityError, UnsupportedFormat) as refusal:
        message = str(refusal)
    assert 0 < len(message) < 300
    return None
