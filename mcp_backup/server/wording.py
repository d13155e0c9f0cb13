"""How facts become text that any client can take, and no reader is misled by."""

from typing import Any

MESSAGE_LIMIT = 400  # characters of one message or note; an error sentence with its hint fits


def readable(value: Any) -> Any:
    """Escape what a reader does not see, and bytes of file names that are not text.

    Notes, names and messages come from whoever wrote the data. Control characters, overrides of
    the direction of writing and invisible characters could make a person read something else
    than a model does.
    """
    if isinstance(value, str) and not value.isprintable():
        return "".join(char if char.isprintable() else _escaped(char) for char in value)
    if isinstance(value, list):
        return [readable(each) for each in value]
    return value


def clipped(text: str, limit: int = MESSAGE_LIMIT) -> str:
    """Cut text that is longer than `limit` characters, and show that it was."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def sentence(code: str, message: str, hint: str) -> str:
    """Word an error in one line: its code, the fact, the next step."""
    return f"[{code}] {clipped(message)}. {clipped(hint)}".rstrip()


def size(count: int) -> str:
    """Word a number of bytes, e.g. "12.3 MiB"."""
    if count < 1024:
        return f"{count} B"
    amount, units = count / 1024, ["KiB", "MiB", "GiB"]
    while amount >= 1024 and units[1:]:
        amount, units = amount / 1024, units[1:]
    return f"{amount:.1f} {units[0]}"


def _escaped(char: str) -> str:
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
