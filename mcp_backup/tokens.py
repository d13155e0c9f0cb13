"""Access tokens of the HTTP server: made by a person, shown once, kept as hashes.

    <state_dir>/tokens.json     mode 0600: of each token its id, name, scopes, times and hash

A token is `mcpb_<id>_<secret>`. The id finds it, the secret proves it: 256 random bits, which
nobody guesses, so that a plain SHA-256 is enough at rest. The file is looked at with every
request, so that a token that is revoked is refused by a running server from then on.
"""

import hmac
import json
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from hashlib import sha256
from pathlib import Path

from filelock import FileLock
from msgspec import Struct
from msgspec.structs import replace

from mcp_backup.durable import make_directory_durably, write_durably
from mcp_backup.errors import SettingsInvalid, UsageError
from mcp_backup.record import asdict

PREFIX = "mcpb_"
_TOKEN = re.compile(r"mcpb_(?P<id>[0-9a-f]{8})_(?P<secret>[0-9a-f]{64})")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


class Token(Struct, frozen=True):
    """What is known of a token; the token itself is not. `hash` is its SHA-256."""

    id: str
    name: str
    scopes: tuple[str, ...]
    created: datetime
    expires: datetime
    revoked: datetime | None
    hash: str

    def good(self, now: datetime) -> bool:
        """Tell whether it is accepted at that time."""
        return self.revoked is None and now < self.expires


class TokenStore:
    """The tokens in one state directory. Blocks; several processes may use it at once."""

    def __init__(self, state_dir: Path, now: Callable[[], datetime]) -> None:
        """Keep tokens in `state_dir`/tokens.json."""
        self.path = state_dir / "tokens.json"
        self._now = now
        self._read: tuple[tuple[int, ...], tuple[Token, ...]] = ((), ())

    def create(
        self,
        name: str,
        scopes: Sequence[str],
        expires: datetime,
        random: Callable[[int], bytes],
    ) -> tuple[str, Token]:
        """Make a token; return it, for the only time, with what is kept of it.

        Raises:
            UsageError: the name cannot be meant, or a token in force has it.
        """
        if _NAME.fullmatch(name) is None:
            raise UsageError(
                f"{name!r:.80} cannot be the name of a token",
                hint="Use up to 64 letters, digits, '.', '_', '@' and '-'. Nothing was made.",
            )
        identity, secret = random(4).hex(), random(32).hex()
        text = f"{PREFIX}{identity}_{secret}"
        now = self._now()
        token = Token(identity, name, tuple(scopes), now, expires, None, _hash(text))

        def added(tokens: Sequence[Token]) -> Iterable[Token]:
            if any(each.name == name and each.good(now) for each in tokens):
                raise UsageError(
                    f"a token named {name!r} is in force",
                    hint=f"Choose another name, or run `mcp-backup token revoke {name}` first.",
                )
            return (*tokens, token)

        self._change(added)
        return text, token

    def revoke(self, wanted: str) -> list[Token]:
        """Revoke the tokens of this id or name; those revoked before stay as they are.

        Raises:
            UsageError: there is none.
        """
        now = self._now()
        revoked: list[Token] = []

        def without(tokens: Sequence[Token]) -> Iterable[Token]:
            for each in tokens:
                if wanted in (each.id, each.name) and each.revoked is None:
                    revoked.append(replace(each, revoked=now))
                    yield revoked[-1]
                else:
                    yield each

        self._change(without)
        if not revoked:
            raise UsageError(
                f"no token in force is called {wanted!r:.80}",
                hint="Run `mcp-backup token list`. Nothing was revoked.",
            )
        return revoked

    def tokens(self) -> tuple[Token, ...]:
        """Return all tokens ever made here, revoked and expired ones too.

        Raises:
            SettingsInvalid: the file is there and cannot be read.
        """
        try:
            status = self.path.stat()
            mark = (status.st_ino, status.st_mtime_ns, status.st_size)
            if mark != self._read[0]:
                self._read = (mark, _decoded(self.path.read_bytes()))
        except FileNotFoundError:
            return ()
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise SettingsInvalid(
                f"the tokens in {self.path} cannot be read ({type(error).__name__})",
                hint="Nobody is let in meanwhile. Move the file away, and make new tokens with "
                "`mcp-backup token create`.",
            ) from error
        return self._read[1]

    def find(self, text: str) -> Token | None:
        """Return the token that this is, if it is in force."""
        match = _TOKEN.fullmatch(text)
        if match is None:
            return None
        found = [each for each in self.tokens() if hmac.compare_digest(each.hash, _hash(text))]
        return found[0] if found and found[0].good(self._now()) else None

    def _change(self, change: Callable[[Sequence[Token]], Iterable[Token]]) -> None:
        make_directory_durably(self.path.parent)
        with FileLock(self.path.with_suffix(".lock"), mode=0o600):
            tokens = tuple(change(self.tokens()))
            write_durably(self.path, _encoded(tokens))


def _hash(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def _encoded(tokens: Iterable[Token]) -> bytes:
    document = [asdict(each) for each in tokens]
    return json.dumps({"tokens": document}, indent=1, default=datetime.isoformat).encode()


def _decoded(data: bytes) -> tuple[Token, ...]:
    return tuple(
        Token(
            id=item["id"],
            name=item["name"],
            scopes=tuple(item["scopes"]),
            created=_moment(item["created"]),
            expires=_moment(item["expires"]),
            revoked=_moment(item["revoked"]) if item["revoked"] else None,
            hash=bytes.fromhex(item["hash"]).hex(),
        )
        for item in json.loads(data)["tokens"]
    )


def _moment(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise ValueError(f"{text!r:.40} has no zone")
    return found
