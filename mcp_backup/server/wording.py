"""How facts become text that any client can take, and no reader is misled by."""

from typing import Any

MESSAGE_LIMIT = 400  # characters of one message or note; an error sentence with its hint fits
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), 127)}


def readable(value: Any) -> Any:
    """Escape control characters, and bytes of file names that are not text."""
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode().translate(_CONTROLS)
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
