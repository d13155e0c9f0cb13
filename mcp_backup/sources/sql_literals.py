"""SQL text for values, exact to the bit, whichever SQLite reads it.

Text is a quoted string on one line; line ends are put back by `replace`, since the shell drops a
carriage return before a line's end and looks for the statement's end in every line. Text with
other control characters, and bytes that are not UTF-8, are cast from their bytes: SQLite's parser
ends at a NUL. A real number is its shortest decimal where every SQLite reads that
exactly; longer ones are an integer divided or multiplied by powers of two, which is exact
arithmetic, since older SQLites misread some decimals in the last place.

Values come as SQLite's storage classes: None, int, float, bytes (a blob) or `Text`.
"""

import math
import re
from typing import NamedTuple

_AWKWARD = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_LINE_ENDS = ((b"\r", b"\\r", b"13"), (b"\n", b"\\n", b"10"))
_STEP = 53  # 2^53 is exact as a decimal literal, and as a double
_STEP_LITERAL = f"{2**_STEP}.0"
_EXACT_DIGITS = 15
_EXACT_POWER = 22  # 10^22 is the largest power of ten that a double holds exactly

Encoding = str  # "utf-8", "utf-16-le", "utf-16-be": Python's names for the database's encoding


class Text(NamedTuple):
    """A text value as its bytes in the database's encoding, valid or not."""

    raw: bytes


Value = None | int | float | bytes | Text


def literal(value: Value, encoding: Encoding) -> bytes:
    """Return SQL, in UTF-8, that evaluates to exactly `value` in a database of that encoding."""
    if value is None:
        return b"NULL"
    if isinstance(value, Text):
        return text(value.raw, encoding)
    if isinstance(value, bytes):
        return b"X'" + value.hex().encode() + b"'"
    if isinstance(value, int):
        return str(value).encode()
    return real(value).encode()


def text(raw: bytes, encoding: Encoding) -> bytes:
    """Return SQL for a text value, given as its bytes in the database's encoding."""
    plain = _plain(raw, encoding)
    if plain is None or _AWKWARD.search(plain):
        return b"CAST(X'" + raw.hex().encode() + b"' AS TEXT)"
    if b"\n" in plain or b"\r" in plain:
        return _on_one_line(plain)
    return b"'" + plain.replace(b"'", b"''") + b"'"


def real(value: float) -> str:
    """Return SQL for a real number."""
    if math.isinf(value):
        return "9e999" if value > 0 else "-9e999"
    if value == 0:
        return "0.0" if math.copysign(1, value) > 0 else "(0.0*-1.0)"
    decimal = repr(value)
    if _is_exact_everywhere(decimal):
        return decimal if "." in decimal else decimal.replace("e", ".0e")
    return _by_powers_of_two(value)


def name(identifier: str) -> str:
    """Return an identifier, quoted."""
    return '"' + identifier.replace('"', '""') + '"'


def _on_one_line(plain: bytes) -> bytes:
    """Return SQL for text with line ends: in the string, a placeholder stands for each."""
    restored = b"%s"
    for end, placeholder, code in _LINE_ENDS:
        if end in plain:
            unused, number = placeholder, 0
            while unused in plain:
                unused, number = b"%s%d" % (placeholder, number), number + 1
            plain = plain.replace(end, unused)
            restored = restored % (b"replace(%%s,'%s',char(%s))" % (unused, code))
    return restored % (b"'" + plain.replace(b"'", b"''") + b"'")


def _plain(raw: bytes, encoding: Encoding) -> bytes | None:
    """Return the text in UTF-8, or None if a quoted string could not stand for exactly it."""
    try:
        characters = raw.decode(encoding)
    except UnicodeDecodeError:
        return None
    if encoding == "utf-8":
        return raw
    # SQLite turns U+FFFE and U+FFFF into U+FFFD on the way from UTF-8, and may eat U+FEFF
    return None if any(char >= "\ud800" for char in characters) else characters.encode()


def _is_exact_everywhere(decimal: str) -> bool:
    """Say whether digits and power of ten are exact doubles, so one rounding makes it right."""
    digits, _, exponent = decimal.partition("e")
    whole, _, fraction = digits.lstrip("-").partition(".")
    power = int(exponent or 0) - len(fraction)
    significant = int(whole + fraction)
    if len(str(significant)) > _EXACT_DIGITS or abs(power) > _EXACT_POWER:
        return False
    scale = 10 ** abs(power)
    return not (
        _is_near_a_tie(significant * scale, 1) if power > 0 else _is_near_a_tie(significant, scale)
    )


def _is_near_a_tie(numerator: int, denominator: int) -> bool:
    """Say whether rounding to 64 bits first, as x86's long double does, may end elsewhere.

    That is so when the 11 bits beyond a double's 53 are about one half.
    """
    shift = 65 - numerator.bit_length() + denominator.bit_length()
    quotient = (numerator << max(shift, 0)) // (denominator << max(-shift, 0))
    beyond = quotient >> (quotient.bit_length() - 64) & 0x7FF
    return 0x3FF <= beyond <= 0x401


def _by_powers_of_two(value: float) -> str:
    """Return an integer of at most 53 bits and the powers of two it is scaled by, each exact."""
    numerator, denominator = value.as_integer_ratio()
    if denominator > 1:
        shift = denominator.bit_length() - 1
        operator = "/"
    else:
        shift = max(0, abs(numerator).bit_length() - _STEP)
        numerator >>= shift  # of a magnitude: the bits below are zeros
        operator = "*"
    whole, rest = divmod(shift, _STEP)
    terms = [f"{numerator}.0", *[_STEP_LITERAL] * whole]
    if rest:
        terms.append(f"{2**rest}.0")
    return f"({operator.join(terms)})"
