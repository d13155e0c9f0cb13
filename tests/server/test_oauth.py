"""Tokens of an authorization server: a real key set, served over HTTP on this machine."""

import base64
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from mcp_backup.server.oauth import JwtVerifier
from mcp_backup.settings_server import OAuthSettings

ISSUER = "https://login.example"
AUDIENCE = "https://backup.example/mcp"
Claims = dict[str, Any]
RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
OTHER_KEY = ec.generate_private_key(ec.SECP256R1())


class Issuer:
    """An authorization server, as far as a resource server sees one."""

    def __init__(self) -> None:
        self.keys: list[Claims] = [public(RSA_KEY, "one"), public(EC_KEY, "two")]
        self.asked = 0
        self.status = 200
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked += 1
                body = json.dumps({"keys": issuer.keys}).encode()
                self.send_response(issuer.status)
                self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/jwks"


def public(key: Any, kid: str, **more: str) -> Claims:
    algorithm = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
    jwk: Claims = json.loads(algorithm.to_jwk(key.public_key()))
    return jwk | {"kid": kid, "use": "sig"} | more


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    issuer = Issuer()
    thread = threading.Thread(target=issuer.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield issuer
    issuer.server.shutdown()
    issuer.server.server_close()
    thread.join()


class Clock:
    """Seconds, as told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def verifier(issuer: Issuer, clock: Clock) -> JwtVerifier:
    return JwtVerifier(settings(issuer), clock)


def settings(issuer: Issuer, **more: Any) -> OAuthSettings:
    return OAuthSettings(issuer=ISSUER, audience=AUDIENCE, jwks_url=issuer.url, **more)


def signed(key: Any = EC_KEY, kid: str | None = "two", alg: str = "ES256", **more: Any) -> str:
    claims = {"iss": ISSUER, "aud": AUDIENCE, "exp": time.time() + 300, "sub": "somebody"}
    told = {name: value for name, value in (claims | more).items() if value is not None}
    return jwt.encode(told, key, alg, {"kid": kid} if kid else {})


async def test_a_good_token_says_who_and_what_and_until_when(verifier: JwtVerifier) -> None:
    for token in (
        signed(scope="read backup", client_id="editor"),
        signed(RSA_KEY, "one", "RS256", scp=["read", "backup"], azp="editor"),
        signed(aud=[AUDIENCE, "https://other.example"], scope="read backup", client_id="editor"),
    ):
        found = await verifier.verify_token(token)
        assert found is not None
        assert (found.client_id, found.subject) == ("editor", "somebody")
        assert found.scopes == ["read", "backup"]
        assert (found.expires_at or 0) > time.time()
        assert token not in repr(found)


def forged_with_the_public_key() -> str:
    """The oldest trick: the public key as a shared secret."""
    secret = EC_KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    head, body, _ = signed().split(".")
    head = encoded(b'{"alg": "HS256", "kid": "two"}')
    return f"{head}.{body}.{encoded(hmac.digest(secret, f'{head}.{body}'.encode(), 'sha256'))}"


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


BAD: dict[str, Callable[[], str]] = {
    "expired": lambda: signed(exp=time.time() - 60),
    "without an end": lambda: signed(exp=None),
    "not yet good": lambda: signed(nbf=time.time() + 120),
    "another audience": lambda: signed(aud="https://other.example"),
    "no audience": lambda: signed(aud=None),
    "another issuer": lambda: signed(iss="https://evil.example"),
    "no issuer": lambda: signed(iss=None),
    "unsigned": lambda: signed("", alg="none"),
    "signed by somebody else": lambda: signed(OTHER_KEY),
    "an unknown key": lambda: signed(OTHER_KEY, "three"),
    "no key named": lambda: signed(kid=None),
    "an algorithm that the settings do not have": lambda: signed(RSA_KEY, "one", "RS512"),
    "the wrong kind of key": lambda: signed(RSA_KEY, "two", "RS256"),
    "the public key as a secret": forged_with_the_public_key,
    "changed": lambda: signed()[:-6] + "AAAAAA",
    "too long": lambda: signed(more="x" * 20_000),
    "none": lambda: "",
    "nonsense": lambda: "a.b.c",
}


@pytest.mark.parametrize("make", BAD.values(), ids=BAD)
async def test_any_other_token_is_refused(verifier: JwtVerifier, make: Callable[[], str]) -> None:
    assert await verifier.verify_token(make()) is None


async def test_the_settings_say_what_the_issuer_s_scopes_stand_for(issuer: Issuer) -> None:
    mapping = {"backup:ops": ("read", "restore"), "backup:all": ("admin",)}
    verifier = JwtVerifier(settings(issuer, scopes=mapping))
    found = await verifier.verify_token(signed(scope="openid read admin backup:ops"))
    assert found is not None
    assert found.scopes == ["read", "restore"]


async def test_new_keys_are_found_and_old_ones_end_without_asking_too_often(
    issuer: Issuer, verifier: JwtVerifier, clock: Clock
) -> None:
    rotated = signed(OTHER_KEY, "three")
    assert await verifier.verify_token(signed())
    assert await verifier.verify_token(rotated) is None
    issuer.keys = [public(OTHER_KEY, "three")]
    assert await verifier.verify_token(rotated) is None
    assert issuer.asked == 1
    clock.now = 11
    assert await verifier.verify_token(rotated)
    assert await verifier.verify_token(signed()) is None
    assert issuer.asked == 2


@pytest.mark.parametrize("status", [500, 302])
async def test_the_keys_known_stay_good_while_the_issuer_does_not_answer(
    issuer: Issuer, verifier: JwtVerifier, clock: Clock, status: int
) -> None:
    issuer.status = status
    assert await verifier.verify_token(signed()) is None
    issuer.status, clock.now = 200, 11
    assert await verifier.verify_token(signed())
    issuer.status = status
    clock.now = 1000
    assert await verifier.verify_token(signed())


async def test_secret_keys_and_those_for_encryption_verify_nothing(
    issuer: Issuer, verifier: JwtVerifier, clock: Clock
) -> None:
    issuer.keys = [
        public(EC_KEY, "two", use="enc"),
        {"kty": "oct", "kid": "two", "k": "c2VjcmV0"},
        {"kty": "new", "kid": "two"},
    ]
    assert await verifier.verify_token(signed()) is None
    issuer.keys.append(public(EC_KEY, "four"))
    clock.now = 11
    assert await verifier.verify_token(signed(kid=None))


async def test_keys_can_be_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "jwks.json"
    file.write_text(json.dumps({"keys": [public(EC_KEY, "two")]}))
    oauth = OAuthSettings(issuer=ISSUER, audience=AUDIENCE, jwks_file=file)
    assert await JwtVerifier(oauth).verify_token(signed())
    file.write_text("not a key set")
    assert await JwtVerifier(oauth).verify_token(signed()) is None
