"""JSON documents from a repository, read by strangers' rules.

Strict where restic is strict, indifferent to members that we do not know. Every getter raises
IntegrityError that names the document and the member. JSON's `null` counts as absent, as in Go.
"""

import json
from base64 import b64decode
from collections.abc import Mapping
from math import isfinite
from typing import Any, NoReturn

from mcp_backup.errors import IntegrityError
from mcp_backup.format.gotext import mended
from mcp_backup.format.ids import ID_SIZE, split, unhex

FEW = 1_000_000  # values in a document that holds no lists of blobs
MANY = 24_000_000  # values in a listing: of a million files, or of the blobs of 100 GB


class Document:
    """One JSON object, called `what` in messages, whose members are fetched by type."""

    __slots__ = ("members", "what")

    def __init__(self, members: Mapping[str, Any], what: str) -> None:
        """Wrap `members`, a JSON object already parsed."""
        if not isinstance(members, Mapping):
            raise IntegrityError(f"{what}: {type(members).__name__} instead of a JSON object")
        self.members = members
        self.what = what

    @classmethod
    def parse(cls, data: bytes, what: str, most: int = FEW) -> "Document":
        """Parse `data`, one JSON object in UTF-8 of at most `most` values."""
        return cls(parse(data, what, most), what)

    def text(self, name: str, default: str = "") -> str:
        """Return a string; lone surrogates become U+FFFD, as they do in Go."""
        value = self.members.get(name)
        if value is None:
            return default
        return mended(value) if isinstance(value, str) else self._wrong(name, "text")

    def integer(self, name: str, default: int = 0, *, bits: int = 32) -> int:
        """Return an integer of at least 0 that fits `bits` bits."""
        value = self.members.get(name)
        if value is None:
            return default
        if type(value) is not int or value < 0 or value >> bits:
            self._wrong(name, f"an integer of {bits} bits")
        return value

    def truth(self, name: str) -> bool:
        """Return a boolean, false where it is absent."""
        value = self.members.get(name)
        if value is None:
            return False
        return value if isinstance(value, bool) else self._wrong(name, "true or false")

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list of strings, empty where it is absent."""
        value = self.members.get(name)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self._wrong(name, "a list of texts")
        return tuple(mended(item) for item in value)

    def objects(self, name: str) -> "list[Document]":
        """Return a list of JSON objects, empty where it is absent."""
        value = self.members.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            self._wrong(name, "a list")
        return [Document(item, self.what) for item in value]

    def identity(self, name: str) -> bytes:
        """Return an id's 32 bytes."""
        value = self.members.get(name)
        return unhex(value) if isinstance(value, str) else self._wrong(name, "an id")

    def identity_or_none(self, name: str) -> bytes | None:
        """Return an id's 32 bytes, or None where it is absent."""
        return None if self.members.get(name) is None else self.identity(name)

    def identities(self, name: str) -> list[bytes] | None:
        """Return a list of ids, 32 bytes each, or None where it is absent."""
        value = self.members.get(name)
        return None if value is None else identities(value, f"{self.what}: {name}")

    def octets(self, name: str) -> bytes:
        """Return bytes that are written in base 64."""
        value = self.members.get(name)
        if not isinstance(value, str):
            self._wrong(name, "base 64")
        try:
            return b64decode(value, validate=True)
        except ValueError:
            self._wrong(name, "base 64")

    def _wrong(self, name: str, wanted: str) -> NoReturn:
        got = repr(self.members.get(name))
        raise IntegrityError(f"{self.what}: {name} is {got:.60}, wanted {wanted}")


def parse(data: bytes, what: str, most: int = FEW) -> Any:
    """Parse `data` as one JSON value in UTF-8; `what` names it in messages.

    Raises:
        IntegrityError: not UTF-8, not JSON, nested beyond reason, or of more than `most` values:
            two bytes of JSON can become a hundred bytes of memory.
    """
    if len(data) > most and sum(map(data.count, (b",", b"[", b"{"))) > most:
        raise IntegrityError(f"{what}: a JSON document of more than {most} values")
    try:
        return json.loads(data.decode(), parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"{what}: not JSON: {error}") from error


def _finite(text: str) -> float:
    number = float(text)
    return number if isfinite(number) else _refuse(text)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def identities(texts: object, what: str) -> list[bytes]:
    """Return the ids whose texts are listed, 32 bytes each: `unhex` for a hundred thousand."""
    if isinstance(texts, list) and set(map(type, texts)) <= {str}:
        joined = "".join(texts)
        if set(map(len, texts)) <= {2 * ID_SIZE}:
            raw = _unhexed(joined)
            if raw.hex() == joined:
                return [*split(raw)]
    raise IntegrityError(f"{what} is not a list of ids")


def _unhexed(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""
