r"""Text as Go writes it: JSON strings of encoding/json, names quoted by strconv.Quote.

Trees are hashed, and restic compares what it reads with what it would have written, so these
bytes must be Go's. In text, bytes that are not UTF-8 are surrogates, as `os.fsdecode` makes them.

    name on disk   a"b       caf\xe9       <&>
    quoted         a\"b      caf\xe9       <&>
    in JSON        a\\\"b    caf\\xe9      \u003c\u0026\u003e

Source: Go's encoding/json and strconv; restic internal/restic/node.go.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from mcp_backup.errors import IntegrityError

_SURROGATE = re.compile("[\ud800-\udfff]")
_JSON_SPECIAL = re.compile('[\\x00-\\x1f"\\\\<>&\u2028\u2029\ud800-\udfff]')
_JSON_SHORT = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_QUOTE_SHORT = {
    '"': '\\"',
    "\\": "\\\\",
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
}
_UNQUOTE_SHORT = {short[1]: char for char, short in _QUOTE_SHORT.items()}
_ESCAPE = re.compile(
    r'\\(?:([abfnrtv\\"])|x([0-9a-fA-F]{2})|([0-7]{3})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8}))'
)
_UNQUOTED = re.compile(r'[^\\"\n]*')


def json_string(text: str) -> str:
    """Return `text` as encoding/json writes it, with its quotes."""
    return f'"{_JSON_SPECIAL.sub(_json_escape, text)}"'


def _json_escape(match: re.Match[str]) -> str:
    char = match[0]
    short = _JSON_SHORT.get(char)
    if short:
        return short
    return "\\ufffd" if "\ud800" <= char <= "\udfff" else f"\\u{ord(char):04x}"


def json_value(value: Any) -> str:
    """Return any JSON value in Go's spelling, compact, members in the order they have."""
    if isinstance(value, str):
        return json_string(value)
    if isinstance(value, Mapping):
        members = (f"{json_string(name)}:{json_value(item)}" for name, item in value.items())
        return "{" + ",".join(members) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(json_value, value)) + "]"
    return json.dumps(value, allow_nan=False)


def mended(text: str) -> str:
    """Return `text` with U+FFFD for lone surrogates, which Go cannot hold."""
    return _SURROGATE.sub("\ufffd", text)


def quote(name: str) -> str:
    """Return a file's name as strconv.Quote writes it, without the outer quotes."""
    if name.isprintable() and '"' not in name and "\\" not in name:
        return name  # surrogates are not printable
    return "".join(map(_quote_char, name))


def _quote_char(char: str) -> str:
    short = _QUOTE_SHORT.get(char)
    if short:
        return short
    if char.isprintable():
        return char
    code = ord(char)
    if code < 0x20 or code == 0x7F:
        return f"\\x{code:02x}"
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def unquote(quoted: str) -> str:
    """Return the name that `quoted` stands for: the inverse of `quote`.

    Raises:
        IntegrityError: strconv.Unquote would refuse it.
    """
    if "\\" not in quoted and '"' not in quoted and "\n" not in quoted:
        return quoted
    raw = bytearray()
    position = 0
    while position < len(quoted):
        plain = _UNQUOTED.match(quoted, position)
        if plain and plain[0]:
            raw += plain[0].encode()
        else:
            plain = _ESCAPE.match(quoted, position)
            if plain is None:
                raise IntegrityError(f"name {quoted!r:.80} is not quoted as Go quotes")
            raw += _unescape(plain)
        position = plain.end()
    return raw.decode(errors="surrogateescape")


def _unescape(match: re.Match[str]) -> bytes:
    short, hexadecimal, octal, unicode, long_unicode = match.groups()
    if short:
        return _UNQUOTE_SHORT[short].encode()
    code = int(octal, 8) if octal else int(hexadecimal or unicode or long_unicode, 16)
    if hexadecimal or octal:
        if code > 0xFF:
            raise IntegrityError(f"name: \\{octal} is not a byte")
        return bytes([code])
    if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
        raise IntegrityError(f"name: {match[0]} is not a character")
    return chr(code).encode()
