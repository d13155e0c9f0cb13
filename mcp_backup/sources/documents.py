"""Documents: JSON values of another program's, as files with stable names and stable bytes.

A document is written canonically, so that equal values are equal bytes: members sorted, no
spaces, UTF-8, a newline at the end. Its name follows from the members that identify it. Its mark
is what two copies are compared by: members that the other program sets by itself when a document
is stored (a time of change, say) can be left out of it.

Source: the canonical form follows RFC 8785, but for numbers, which are written as Python reads
them: integers of any size stay exact.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from blake3 import blake3
from msgspec import Struct

from mcp_backup.sources.shapes import mapped, text, trusted
from mcp_backup.sources.source import Evidence

_LONGEST_NAME = 200  # bytes; file systems take 255
SUFFIX = ".json"


class NoDocument(ValueError):
    """What came is not a document of the kind that the settings describe; says why."""


class Document(Struct, frozen=True):
    """One document. `content` is canonical, `mark` what copies are compared by."""

    name: str
    content: bytes
    mark: str

    @property
    def value(self) -> Any:
        """The document as a JSON value."""
        return json.loads(self.content)


def document(value: Any, identity: Sequence[str], ignored: Sequence[str]) -> Document:
    """Make a document of a JSON value; `identity` are the members that name it.

    Raises:
        NoDocument: it is no object, or a naming member is missing or no text or integer.
    """
    content = canonical(value)
    return Document(_name(value, identity), content, mark(value, ignored))


def whole(name: str, value: Any, ignored: Sequence[str]) -> Document:
    """Make one document of an answer that is not a list; `name` is what it is called."""
    return Document(_quoted(name) + SUFFIX, canonical(value), mark(value, ignored))


def read(name: str, content: bytes, ignored: Sequence[str]) -> Document:
    """Return the document in a file of ours.

    Raises:
        NoDocument: it is not JSON.
    """
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise NoDocument(f"{name} is not JSON: {error}") from error
    return Document(name, content, mark(value, ignored))


def marks(evidence: Evidence | None) -> Mapping[str, str]:
    """Return the marks of what was captured, by file name; none without evidence.

    Raises:
        IntegrityError: they are not what a capture writes.
    """
    if evidence is None:
        return {}
    trusted(evidence.facts, {"documents": mapped(text, key=_is_file_name)})
    found: Mapping[str, str] = evidence.facts["documents"]
    return found


def canonical(value: Any) -> bytes:
    """Write a JSON value so that equal values are equal bytes.

    Raises:
        NoDocument: it holds a number that JSON has no word for.
    """
    try:
        text = json.dumps(
            value, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":")
        )
    except ValueError as error:
        raise NoDocument(f"a document that JSON cannot carry: {error}") from error
    return (text + "\n").encode(errors="backslashreplace")  # a lone surrogate, as JSON writes it


def mark(value: Any, ignored: Sequence[str]) -> str:
    """Return what two copies of a document are compared by."""
    if isinstance(value, Mapping):
        value = {key: inner for key, inner in value.items() if key not in ignored}
    return f"document:{blake3(canonical(value)).hexdigest()}"


def identified(value: Any, identity: Sequence[str]) -> list[str | int]:
    """Return the values of the members that name a document.

    Raises:
        NoDocument: it is no object, or one of them is missing or no text or integer.
    """
    if not isinstance(value, Mapping):
        raise NoDocument(f"a document is a {type(value).__name__}, not an object")
    found: list[str | int] = []
    for member in identity:
        part = value.get(member)
        if isinstance(part, bool) or not isinstance(part, str | int) or part == "":
            has = ", ".join(sorted(map(str, value)))
            raise NoDocument(f"a document has no usable {member!r}; it has: {has:.200}")
        found.append(part)
    return found


def _is_file_name(name: object) -> bool:
    return text(name) and not {"/", "\\"} & {*str(name)} and str(name) not in ("", ".", "..")


def _name(value: Any, identity: Sequence[str]) -> str:
    return ",".join(_quoted(str(part)) for part in identified(value, identity)) + SUFFIX


def _quoted(part: str) -> str:
    """Make a file name of any text: one component, never hidden, never two texts alike."""
    quoted = quote(part, safe="-_~", errors="surrogatepass")
    if quoted.startswith("."):
        quoted = f"%2E{quoted[1:]}"
    if len(quoted) > _LONGEST_NAME:
        quoted = f"{quoted[:100]}~{blake3(part.encode(errors='surrogatepass')).hexdigest(16)}"
    return quoted
