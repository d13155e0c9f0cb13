"""Key files: the master key, sealed with a key made from a password. One file per password.

    {"created":"…","username":"…","hostname":"…","kdf":"scrypt","N":32768,"r":8,"p":5,
     "salt":"<64 bytes, base 64>","data":"<sealed master key, base 64>"}

Source: restic design, "Keys, Encryption and MAC"; restic internal/repository/key.go.
"""

import hashlib
from base64 import b64encode
from collections.abc import Callable
from datetime import datetime

from msgspec import Struct

from mcp_backup.errors import IntegrityError, UnsupportedFormat
from mcp_backup.format.crypto import IV_SIZE, MasterKey, Sealer
from mcp_backup.format.document import Document
from mcp_backup.format.gotext import json_value
from mcp_backup.format.times import format_datetime

_SALT_SIZE = 64
_KEY_SIZE = 64
_MAX_MEMORY = 256 << 20  # bytes scrypt may take: eight times what restic asks for
_MAX_WORK = 1 << 26  # N·r·p, some 20 s: restic settles for half a second


class ScryptWork(Struct, frozen=True):
    """How much work one try at a password is: about `n`·`r`·`p` / 4,000,000 seconds.

    `n` is a power of two; memory is 128·`n`·`r` bytes.
    """

    n: int
    r: int
    p: int

    def key(self, password: str, salt: bytes) -> MasterKey:
        """Return the key that `password` makes."""
        derived = hashlib.scrypt(
            password.encode(errors="surrogateescape"),
            salt=salt,
            n=self.n,
            r=self.r,
            p=self.p,
            maxmem=128 * self.r * (self.n + self.p + 2) + (1 << 20),
            dklen=_KEY_SIZE,
        )
        return _split(derived)


STRONG = ScryptWork(32768, 8, 5)  # for what people choose: half a second, as restic
CHEAP = ScryptWork(1024, 8, 1)  # for generated passwords, which nobody will guess: milliseconds


def generate_master_key(random: Callable[[int], bytes]) -> MasterKey:
    """Return a new master key made of `random` bytes."""
    return _split(random(_KEY_SIZE))


def _split(key: bytes) -> MasterKey:
    return MasterKey(encrypt=key[:32], mac_k=key[32:48], mac_r=key[48:])


def encode_key_file(  # noqa: PLR0913 - a key file has these members
    master: MasterKey,
    password: str,
    *,
    created: datetime,
    username: str,
    hostname: str,
    work: ScryptWork,
    random: Callable[[int], bytes],
) -> bytes:
    """Return a key file that opens `master` with `password`."""
    salt = random(_SALT_SIZE)
    document = json_value(
        {
            "mac": {"k": _base64(master.mac_k), "r": _base64(master.mac_r)},
            "encrypt": _base64(master.encrypt),
        }
    )
    sealed = Sealer(work.key(password, salt)).seal(document.encode(), iv=random(IV_SIZE))
    members = {
        "created": format_datetime(created),
        "username": username,
        "hostname": hostname,
        "kdf": "scrypt",
        "N": work.n,
        "r": work.r,
        "p": work.p,
        "salt": _base64(salt),
        "data": _base64(sealed),
    }
    return json_value(members).encode()


def _base64(data: bytes) -> str:
    return b64encode(data).decode()


def open_key_file(data: bytes, password: str) -> MasterKey | None:
    """Return the master key that `password` opens, or None where it is another's password.

    Raises:
        UnsupportedFormat: another way from password to key than scrypt, or far too much of it.
        IntegrityError: not a key file, or not one that restic would accept.
    """
    document = Document.parse(data, "key file")
    work, salt = _work(document), document.octets("salt")
    if len(salt) != _SALT_SIZE:
        raise IntegrityError(f"key file: a salt of {len(salt)} bytes, wanted {_SALT_SIZE}")
    sealed = document.octets("data")
    user = Sealer(work.key(password, salt))
    try:
        plaintext = user.unseal(sealed)
    except IntegrityError:
        return None
    return _decode_master(plaintext)


def _work(document: Document) -> ScryptWork:
    kdf = document.text("kdf")
    if kdf != "scrypt":
        raise UnsupportedFormat(
            f"key file: {kdf!r:.40} makes its key, and this program knows scrypt",
            hint="Upgrade mcp-backup, or remove this key with restic. Nothing was changed.",
        )
    n, r, p = document.integer("N"), document.integer("r"), document.integer("p")
    if n < 2 or n & (n - 1) or r < 1 or p < 1:
        raise IntegrityError(f"key file: scrypt cannot work with N={n} r={r} p={p}")
    too_much = 128 * n * r > _MAX_MEMORY or n * r * p > _MAX_WORK
    if too_much or n >= 1 << 16 * min(r, 4):  # the second is a limit of the algorithm
        raise UnsupportedFormat(
            f"key file: scrypt with N={n} r={r} p={p} is more work than this program does",
            hint="Add a key with ordinary settings by `restic key add`. Nothing was changed.",
        )
    return ScryptWork(n, r, p)


def _decode_master(plaintext: bytes) -> MasterKey:
    document = Document.parse(plaintext, "master key")
    mac = Document(document.members.get("mac") or {}, "master key")
    try:
        return MasterKey(document.octets("encrypt"), mac.octets("k"), mac.octets("r"))
    except ValueError as error:
        raise IntegrityError(f"master key: {error}") from error
