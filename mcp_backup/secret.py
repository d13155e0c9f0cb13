"""A text that nobody is shown by accident: a password, or an address that is all it takes."""

_MASK = "**********"


class Secret:
    """A text that prints as asterisks, in messages, logs, tracebacks and JSON; see `reveal`."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        """Keep `text`."""
        self._text = text

    def reveal(self) -> str:
        """Return the text, for the one place that uses it."""
        return self._text

    def __repr__(self) -> str:
        return f"Secret('{_MASK}')"

    def __str__(self) -> str:
        return _MASK

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)
