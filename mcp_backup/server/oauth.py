"""Access tokens of an OAuth authorization server: JWTs, checked with its public keys.

Signature, issuer, audience, expiry and start are checked, by algorithms that the settings fix and
that all take public keys. The keys are kept for five minutes; a key that is not among them is
looked for at most every ten seconds, so that rotation is seen and nobody makes us ask more often.
While the authorization server does not answer, the keys it gave last stay good; before it gave
any, nobody is let in.
"""

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

import anyio
import httpx2
import jwt
from anyio import to_thread
from mcp.server.auth.provider import AccessToken

from mcp_backup.settings_server import OAuthSettings

logger = logging.getLogger(__name__)

_FRESH_SECONDS = 300.0
_PAUSE_SECONDS = 10.0  # between two looks for a key that was not there
_PATIENCE_SECONDS = 5.0  # with the authorization server: a client is waiting
_LEEWAY_SECONDS = 30  # between its clock and ours
_KINDS = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}  # of keys, by algorithm
_LARGEST = 256 << 10  # bytes of a key set
_LONGEST = 16 << 10  # characters of a token


class KeySet:
    """The authorization server's public keys, from its address or from a file."""

    def __init__(self, oauth: OAuthSettings, clock: Callable[[], float]) -> None:
        """Fetch nothing yet."""
        self._oauth = oauth
        self._clock = clock
        self._keys: Mapping[str, jwt.PyJWK] = {}
        self._tried: float | None = None
        self._turn = anyio.Lock()

    async def find(self, kid: str) -> jwt.PyJWK | None:
        """Return the key of that id; of a set of one, the one where a token names none."""
        async with self._turn:
            age = None if self._tried is None else self._clock() - self._tried
            missing = self._among(kid) is None
            if age is None or age >= _FRESH_SECONDS or (missing and age >= _PAUSE_SECONDS):
                await self._refresh()
        return self._among(kid)

    def _among(self, kid: str) -> jwt.PyJWK | None:
        if not kid and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(kid)

    async def _refresh(self) -> None:
        self._tried = self._clock()
        try:
            self._keys = _keys(await self._document())
        except (httpx2.HTTPError, OSError, TimeoutError, ValueError) as error:
            logger.warning("no keys of %s: %s", self._oauth.issuer, type(error).__name__)

    async def _document(self) -> bytes:
        if self._oauth.jwks_file:
            return await to_thread.run_sync(self._oauth.jwks_file.read_bytes)
        assert self._oauth.jwks_url is not None
        with anyio.fail_after(_PATIENCE_SECONDS):
            async with (
                httpx2.AsyncClient(trust_env=False, follow_redirects=False) as http,
                http.stream("GET", self._oauth.jwks_url) as answer,
            ):
                if answer.status_code != httpx2.codes.OK:
                    raise ValueError(f"status {answer.status_code}")
                body = bytearray()
                async for piece in answer.aiter_bytes():
                    body += piece
                    if len(body) > _LARGEST:
                        raise ValueError("too large")
        return bytes(body)


class JwtVerifier:
    """Says whose a JWT is. Made inside or outside an event loop, used inside one."""

    def __init__(
        self, oauth: OAuthSettings, clock: Callable[[], float] = anyio.current_time
    ) -> None:
        """Accept what the settings say."""
        self._oauth = oauth
        self._keys = KeySet(oauth, clock)

    async def verify_token(self, token: str) -> AccessToken | None:
        """Return what a token says, if all of it holds; None otherwise, and the log says why."""
        try:
            claims = await self._claims(token)
        except jwt.PyJWTError as error:
            logger.info("token refused: %s", type(error).__name__)
            return None
        subject = str(claims.get("sub") or "")
        client = str(claims.get("client_id") or claims.get("azp") or subject or "unnamed")
        return AccessToken(
            token="",  # what is not kept cannot leak
            client_id=client,
            scopes=self._scopes(claims),
            expires_at=int(claims["exp"]),
            resource=self._oauth.audience,
            subject=subject or None,
            claims={"iss": claims["iss"]},
        )

    async def _claims(self, token: str) -> dict[str, Any]:
        if len(token) > _LONGEST:
            raise jwt.InvalidTokenError("too long")
        header = jwt.get_unverified_header(token)
        if header.get("alg") not in self._oauth.algorithms:
            raise jwt.InvalidAlgorithmError("not one of ours")
        key = await self._keys.find(str(header.get("kid") or ""))
        if key is None:
            raise jwt.InvalidKeyError("unknown key")
        if key.key_type != _KINDS[header["alg"][:2]]:
            raise jwt.InvalidKeyError("a key of another kind than the algorithm's")
        claims: dict[str, Any] = jwt.decode(
            token,
            key=key.key,
            algorithms=list(self._oauth.algorithms),
            audience=self._oauth.audience,
            issuer=self._oauth.issuer,
            leeway=_LEEWAY_SECONDS,
            options={"require": ["exp", "iss", "aud"]},
        )
        return claims

    def _scopes(self, claims: Mapping[str, Any]) -> list[str]:
        told = claims.get("scope", claims.get("scp", ()))
        names = told.split() if isinstance(told, str) else [str(each) for each in told or ()]
        mapping = self._oauth.scopes
        return [ours for name in names for ours in (mapping.get(name, ()) if mapping else (name,))]


def _keys(document: bytes) -> dict[str, jwt.PyJWK]:
    """Read a key set; keys for encryption, secret keys and unknown kinds are left out."""
    found = json.loads(document)
    listed = found.get("keys") if isinstance(found, dict) else None
    if not isinstance(listed, list):
        raise ValueError("not a key set")  # noqa: TRY004 - what came from outside, not a mistake of ours
    keys = {}
    for item in listed:
        if (
            not isinstance(item, dict)
            or item.get("use", "sig") != "sig"
            or item.get("kty") == "oct"
        ):
            continue
        try:
            keys[str(item.get("kid") or "")] = jwt.PyJWK.from_dict(item)
        except (jwt.InvalidKeyError, jwt.PyJWKError):
            logger.warning("a key of kind %.20r is none that we know", item.get("kty"))
    if not keys:
        raise ValueError("no usable key")
    return keys
