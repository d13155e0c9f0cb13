"""Who is let in over HTTP, and under what names: by the daemon as it is run."""

import datetime as dt
import ipaddress
import os
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from mcp import MCPError
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client

from mcp_backup.errors import SettingsInvalid
from mcp_backup.server.http import serve_http
from mcp_backup.settings_server import ServerSettings
from mcp_backup.tokens import TokenStore
from tests.server.conftest import ERAS, Era, Machine, answered, made, refusal
from tests.server.serving import Daemon, daemon
from tests.server.test_oauth import AUDIENCE, EC_KEY, Issuer, public, signed
from tests.server.test_oauth import issuer as issuer

FAR = datetime(2099, 1, 1, tzinfo=UTC)
NAME = "backup.example"
README = Path(__file__).parents[2] / "README.md"


def token_of(machine: Machine, name: str, *scopes: str) -> str:
    return store(machine).create(name, scopes, FAR, os.urandom)[0]


def store(machine: Machine) -> TokenStore:
    return TokenStore(machine.settings().state_dir, lambda: datetime.now(UTC))


def configured(machine: Machine, table: str) -> None:
    machine.config.write_text(f"{machine.config.read_text()}\n[server]\n{table}\n")


@asynccontextmanager
async def client(address: str, token: str, era: Era = "2026-07-28") -> AsyncIterator[Client]:
    async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}) as http:
        transport = streamable_http_client(f"{address}/mcp", http_client=http)
        async with Client(transport, mode=era) as connected:
            yield connected


@pytest.fixture(scope="module")
def guarded(backed_up: Path, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """A machine whose server others can reach."""
    root = tmp_path_factory.mktemp("guarded") / "machine"
    shutil.copytree(backed_up, root)
    text = (root / "mcp-backup.toml").read_text().replace(str(backed_up), str(root))
    (root / "mcp-backup.toml").write_text(text)
    machine = Machine(root)
    configured(machine, f'host = "0.0.0.0"\nallowed_hosts = ["{NAME}"]')
    token_of(machine, "first", "read")
    return machine


@pytest.fixture(scope="module")
def running(guarded: Machine) -> Iterator[Daemon]:
    with daemon(guarded) as running:
        running.address = running.address.replace("0.0.0.0", "127.0.0.1")  # noqa: S104
        yield running


async def test_nothing_is_answered_without_a_token_but_one_word_of_health(
    running: Daemon, guarded: Machine
) -> None:
    reader = token_of(guarded, "monitor", "read")
    writer = token_of(guarded, "writer", "backup")
    async with httpx2.AsyncClient(base_url=running.address) as http:
        for shown in ("", "Bearer", "Bearer x", f"Basic {reader}", f"Bearer {reader[:-1]}0x"):
            headers = {"Authorization": shown} if shown else {}
            for path in ("/mcp", "/metrics"):
                answer = await http.get(path, headers=headers)
                assert answer.status_code == 401
                assert "Bearer" in answer.headers["www-authenticate"]
            assert (await http.get("/healthz", headers=headers)).json() == {"status": "ok"}
        headers = {"Authorization": f"Bearer {reader}"}
        assert (await http.get("/healthz", headers=headers)).json()["reasons"] == []
        assert "mcp_backup_up 1.0" in (await http.get("/metrics", headers=headers)).text
        headers = {"Authorization": f"Bearer {writer}"}
        assert (await http.get("/metrics", headers=headers)).status_code == 403


async def test_a_server_is_reached_under_its_names_only(running: Daemon, guarded: Machine) -> None:
    headers = {"Authorization": f"Bearer {token_of(guarded, 'names', 'read')}"}
    async with httpx2.AsyncClient(base_url=running.address, headers=headers) as http:
        for path in ("/healthz", "/metrics"):
            for host, status in (
                (NAME, 200),
                (f"{NAME}:8765", 200),
                (f"{NAME.upper()}", 200),
                (f"{NAME}:evil.example", 400),
                (f"{NAME}.evil.example", 400),
                (f"evil.example/{NAME}", 400),
                (f"evil@{NAME}", 400),
                ("192.0.2.7", 400),
                ("", 400),
            ):
                answer = await http.get(path, headers={"Host": host})
                assert answer.status_code == status, host
            for origin, status in (
                (f"http://{NAME}", 200),
                (f"https://{NAME}", 403),
                ("http://evil.example", 403),
                ("null", 403),
            ):
                answer = await http.get(path, headers={"Origin": origin})
                assert answer.status_code == status, origin


@pytest.mark.parametrize("era", ERAS)
async def test_a_token_has_its_scopes_and_a_revoked_one_is_refused_at_once(
    running: Daemon, guarded: Machine, era: Era
) -> None:
    text = token_of(guarded, f"agent-{era}", "read")
    async with client(running.address, text, era) as connected:
        listed = {tool.name for tool in (await connected.list_tools()).tools}
        assert {"create_backup", "restore_backup"} & listed == set()
        assert (await answered(connected, "list_backups"))["total"] == 1
        assert (await refusal(connected, "create_backup"))[0] == "not-permitted"
    store(guarded).revoke(f"agent-{era}")
    with pytest.raises((MCPError, ExceptionGroup)):
        async with client(running.address, text, era) as connected:
            await connected.list_tools()


async def test_a_session_is_of_the_token_that_began_it(running: Daemon, guarded: Machine) -> None:
    """Somebody else's session id is of no use, even with a good token."""
    mine, theirs = (token_of(guarded, name, "admin") for name in ("mine", "theirs"))
    begin = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "c", "version": "1"},
        },
    }
    accept = {"Accept": "application/json, text/event-stream"}
    async with httpx2.AsyncClient(base_url=running.address, headers=accept) as http:
        bearer = {"Authorization": f"Bearer {mine}"}
        answer = await http.post("/mcp", json=begin, headers=bearer)
        session = {"Mcp-Session-Id": answer.headers["mcp-session-id"]}
        call = {"jsonrpc": "2.0", "id": 2, "method": "tools/list", "params": {}}
        stolen = session | {"Authorization": f"Bearer {theirs}"}
        assert (await http.post("/mcp", json=call, headers=stolen)).status_code == 404
        assert (await http.post("/mcp", json=call, headers=session | bearer)).status_code == 200


async def test_the_first_token_ends_openness_of_a_server_that_runs(machine: Machine) -> None:
    with daemon(machine) as running:
        async with httpx2.AsyncClient(base_url=running.address) as http:
            assert (await http.get("/metrics")).status_code == 200
            text = token_of(machine, "first", "read")
            assert (await http.get("/metrics")).status_code == 401
            headers = {"Authorization": f"Bearer {text}"}
            assert (await http.get("/metrics", headers=headers)).status_code == 200
            store(machine).path.write_text("damaged")
            assert (await http.get("/metrics", headers=headers)).status_code == 401


async def test_an_authorization_server_s_tokens_are_taken_and_it_is_named(
    machine: Machine, issuer: Issuer
) -> None:
    issuer.keys = [public(EC_KEY, "two")]
    configured(
        machine,
        f"""
        [server.oauth]
        issuer = "https://login.example"
        audience = "{AUDIENCE}"
        jwks_url = "{issuer.url}"
        scopes = {{ "backup.read" = ["read"] }}
        """,
    )
    with daemon(machine) as running:
        async with client(running.address, signed(scope="backup.read openid")) as connected:
            assert (await answered(connected, "list_backups"))["total"] == 1
            assert (await refusal(connected, "create_backup"))[0] == "not-permitted"
        async with httpx2.AsyncClient(base_url=running.address) as http:
            told = (await http.post("/mcp", json={})).headers["www-authenticate"]
            path = "/.well-known/oauth-protected-resource/mcp"
            assert f'resource_metadata="https://{NAME}{path}"' in told
            described = (await http.get(path)).json()
    assert described["resource"] == AUDIENCE
    assert described["authorization_servers"] == ["https://login.example"]
    assert described["scopes_supported"] == ["backup.read"]


async def test_a_certificate_makes_it_https(machine: Machine) -> None:
    trusted = certificate(machine.root)
    configured(machine, f'tls_cert = "{machine.root}/c.pem"\ntls_key = "{machine.root}/k.pem"')
    with daemon(machine) as running:
        assert running.address.startswith("https://127.0.0.1:")
        async with httpx2.AsyncClient(base_url=running.address, verify=trusted) as http:
            answer = await http.get("/healthz", headers={"Origin": running.address})
            assert answer.json()["status"] == "healthy"


def certificate(root: Path) -> ssl.SSLContext:
    """Write a certificate for 127.0.0.1 and its key; return what trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    now = dt.datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (root / "c.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (root / "k.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return ssl.create_default_context(cafile=root / "c.pem")


@pytest.mark.parametrize(
    ("table", "missing"),
    [
        ('host = "0.0.0.0"', ["access tokens", "server.allowed_hosts"]),
        (f'host = "0.0.0.0"\nallowed_hosts = ["{NAME}"]', ["access tokens"]),
        (f'allowed_hosts = ["{NAME}"]', ["access tokens"]),
        ('trusted_proxies = ["127.0.0.1"]', ["access tokens", "server.allowed_hosts"]),
    ],
)
def test_it_does_not_start_where_others_could_come_in_unasked(
    tmp_path: Path, table: str, missing: list[str]
) -> None:
    machine = made(tmp_path)
    configured(machine, table)
    settings = machine.settings()
    with pytest.raises(SettingsInvalid, match="not guarded") as told:
        serve_http(settings, settings.server.host, 0)
    wanted = ("access tokens", "server.allowed_hosts")
    assert [word for word in wanted if word in told.value.hint] == missing


def test_a_certificate_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    machine = made(tmp_path)
    (tmp_path / "c.pem").write_text("no certificate")
    configured(machine, 'tls_cert = "c.pem"\ntls_key = "c.pem"')
    with pytest.raises(SettingsInvalid, match="cannot be used"):
        serve_http(machine.settings(), "127.0.0.1", 0)


async def test_a_body_that_is_too_large_is_refused(running: Daemon, guarded: Machine) -> None:
    bearer = f"Bearer {token_of(guarded, 'large', 'admin')}"
    host, port = running.address.removeprefix("http://").split(":")
    head = f"POST /mcp HTTP/1.1\r\nHost: {NAME}\r\nAuthorization: {bearer}\r\n"
    for sent in ("Content-Length: 99999999\r\n\r\n", "Content-Length: -1\r\n\r\n"):
        answer = await anyio.to_thread.run_sync(raw, host, int(port), head + sent)
        assert answer.startswith(("HTTP/1.1 413", "HTTP/1.1 400"))
    chunk = "10000\r\n" + "x" * 0x10000 + "\r\n"
    chunked = head + "Transfer-Encoding: chunked\r\n\r\n" + chunk * 17
    answer = await anyio.to_thread.run_sync(raw, host, int(port), chunked)
    assert answer.startswith("HTTP/1.1 413")


def raw(host: str, port: int, text: str) -> str:
    with socket.create_connection((host, port), timeout=30) as connection:
        connection.sendall(text.encode())
        return connection.recv(65536).decode()


def test_what_the_readme_shows_of_serving_others_loads(tmp_path: Path) -> None:
    section = README.read_text().split("\n## Who may do what")[1].split("\n## ")[0]
    shown = "\n".join(re.findall(r"^    (.*)$", section, re.MULTILINE))
    machine = made(tmp_path)
    machine.config.write_text(f"{machine.config.read_text()}\n{shown}")
    server = machine.settings().server
    assert server.tls_cert == tmp_path / "cert.pem"
    assert server.oauth is not None
    assert server.max_calls == ServerSettings().max_calls


def test_the_command_line_sends_its_token(guarded: Machine, running: Daemon) -> None:
    told = {"MCP_BACKUP_TOKEN": token_of(guarded, "terminal", "read")}
    command = guarded.command("call", "list_backups", "--url", f"{running.address}/mcp")
    for environment, code in ((told, 0), ({}, 4)):
        ran = subprocess.run(
            command, env=os.environ | environment, capture_output=True, check=False
        )
        assert ran.returncode == code, ran.stderr
