"""The repository's config object, and the polynomial in it.

    {"version":2,"id":"<64 hexadecimal digits>","chunker_polynomial":"25b468838dcb75"}

We never cut with the polynomial, but restic does when it backs up into the same repository, and
refuses to open one whose polynomial is reducible.

Source: restic design, "Repository Format"; github.com/restic/chunker, polynomials.go.
"""

import re
from collections.abc import Callable

from msgspec import Struct

from mcp_backup.errors import IntegrityError, UnsupportedFormat
from mcp_backup.format.document import Document
from mcp_backup.format.gotext import json_value
from mcp_backup.format.ids import unhex

VERSION = 2

_DEGREE = 53
_POLYNOMIAL = re.compile("[0-9a-f]{1,16}")


class Config(Struct, frozen=True):
    """What a repository is. `id` is its name in caches: 64 hexadecimal digits.

    `chunker_polynomial` is over GF(2), bit n the coefficient of x^n.
    """

    version: int
    id: str
    chunker_polynomial: int


def new_config(random: Callable[[int], bytes]) -> Config:
    """Return the config of a new repository."""
    return Config(VERSION, random(32).hex(), random_polynomial(random))


def encode_config(config: Config) -> bytes:
    """Return the config's JSON, which is sealed as it is: neither compressed nor marked."""
    return json_value(
        {
            "version": config.version,
            "id": config.id,
            "chunker_polynomial": f"{config.chunker_polynomial:x}",
        }
    ).encode()


def decode_config(data: bytes) -> Config:
    """Parse a config's JSON.

    Raises:
        UnsupportedFormat: a repository version other than 1 or 2.
        IntegrityError: not a config, or one that restic refuses.
    """
    document = Document.parse(data, "config")
    version = document.integer("version")
    if version not in (1, 2):
        raise UnsupportedFormat(
            f"repository version {version}, and this program reads 1 and 2",
            hint="Upgrade mcp-backup, or use restic. Nothing was changed.",
        )
    identity = document.text("id")
    unhex(identity)
    digits = document.text("chunker_polynomial", "0")
    polynomial = int(digits, 16) if _POLYNOMIAL.fullmatch(digits) else 0
    if not _POLYNOMIAL.fullmatch(digits) or (polynomial > 1 and not is_irreducible(polynomial)):
        raise IntegrityError(f"config: {digits!r:.40} is not an irreducible polynomial")
    return Config(version, identity, polynomial)


def random_polynomial(random: Callable[[int], bytes]) -> int:
    """Return an irreducible polynomial of degree 53, as restic draws them."""
    while True:
        bits = int.from_bytes(random(8), "little") & ((1 << _DEGREE) - 1)
        polynomial = bits | 1 << _DEGREE | 1  # one in 27 of these is irreducible
        if is_irreducible(polynomial):
            return polynomial


def is_irreducible(polynomial: int) -> bool:
    """Tell whether no polynomials of lower degree multiply to this one (Ben-Or's test)."""
    degree = polynomial.bit_length() - 1
    if degree < 1:
        return False
    power = 2  # x
    for _ in range(degree // 2):
        power = _remainder(_square(power), polynomial)  # x^(2^i)
        if _gcd(polynomial, power ^ 2) != 1:
            return False
    return True


def _square(polynomial: int) -> int:
    return int(f"{polynomial:b}", 4)  # over GF(2), squaring puts a zero after every coefficient


def _remainder(polynomial: int, divisor: int) -> int:
    length = divisor.bit_length()
    while (excess := polynomial.bit_length() - length) >= 0:
        polynomial ^= divisor << excess
    return polynomial


def _gcd(one: int, other: int) -> int:
    while other:
        one, other = other, _remainder(one, other)
    return one
