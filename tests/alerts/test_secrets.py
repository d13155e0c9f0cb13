"""Addresses, tokens and commands are in no log, no message, no file."""

import json
import logging
import re
from pathlib import Path

import msgspec
import pytest

from mcp_backup.errors import SettingsInvalid
from mcp_backup.secret import Secret
from mcp_backup.settings import Settings, load_settings
from mcp_backup.settings_alerts import AlertSettings
from mcp_backup.settings_table import checked
from tests.alerts.conftest import Desk, backup, told
from tests.alerts.receiver import SECRET, Receiver

REPOSITORY = '[repository]\nlocation = "./backups"\n'


async def test_no_log_file_or_answer_has_a_secret(
    desk: Desk, http: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    token = f"{SECRET}-2"
    receivers = (
        told("webhook", http.url, token=token),
        told("ntfy", "http://127.0.0.1:1/" + SECRET, token=token),
        told("healthchecks", f"http://nobody.invalid/{SECRET}", name="pings"),
        told("webhook", f"http://user:{SECRET}@127.0.0.1:1/", name="with-a-password"),
    )
    alerts = desk.alerts(*receivers)
    for status in (200, 302, 404):
        http.status = status
        await alerts.after_run(backup("failed"))
        await alerts.deliver()
        await alerts.after_run(backup())
        await alerts.deliver()
    assert len(http.got) == 3  # the others wait for the one that is refused
    shown = caplog.text + repr(receivers) + repr(desk.settings(*receivers))
    shown += (
        repr(await alerts.pending())
        + msgspec.json.encode(desk.settings(*receivers), enc_hook=str).decode()
    )
    assert "alert not delivered: receiver=pings" in shown
    assert SECRET not in shown
    kept = [path.read_bytes() for path in desk.root.rglob("*") if path.is_file()]
    assert kept
    assert not any(SECRET.encode() in data for data in kept)
    assert all(path.stat().st_mode & 0o077 == 0 for path in desk.root.rglob("*"))


def test_a_receiver_that_a_program_makes_wrongly_is_refused_without_its_secret() -> None:
    for wrong in ({"url": f"ftp://{SECRET}"}, {"url": [SECRET]}, {"command": f"'{SECRET}"}):
        with pytest.raises(SettingsInvalid) as refused:
            checked(AlertSettings, {"kind": "webhook", **wrong})
        assert SECRET not in str(refused.value)
    with pytest.raises(ValueError, match="url must be an http:// or https:// address"):
        AlertSettings(kind="webhook", url=Secret(SECRET))


def loaded(tmp_path: Path, alerts: str) -> Settings:
    (tmp_path / "mcp-backup.toml").write_text(REPOSITORY + alerts)
    return load_settings(None, {}, tmp_path)


@pytest.mark.parametrize(
    ("alerts", "words"),
    [
        ('kind = "webhook"\nurl = "SECRET"', r"alerts\[1\].url must be an http:// or https://"),
        ('kind = "webhook"\nurl = "ftp://SECRET/x"', "must be an http:// or https://"),
        ('kind = "webhook"\nurl = "http://h/SECRET\\nX: y"', "must be an http:// or https://"),
        ('kind = "webhook"\nurl = ["SECRET"]', "url must be"),
        ('kind = "webhook"\nurl = "http://x/"\ntoken = "SECRET\\r\\nX: y"', "printable ASCII"),
        ('kind = "webhook"\ncommand = "SECRET"', "must have `url`, and no `command`"),
        ('kind = "command"\ncommand = "echo \'SECRET"', "with quotes that pair"),
        ('kind = "command"\nurl = "http://SECRET/"', "must have `command`, and neither"),
        ('kind = "pager"\nurl = "http://SECRET/"', "must be 'webhook', 'ntfy'"),
        ('kind = "ntfy"\nurl = "http://SECRET/"\non = ["fire"]', "must be 'start', 'success'"),
        ('kind = "ntfy"\nurl = "http://SECRET/"\non = ["test"]', "must not have `test`"),
        ('kind = "healthchecks"\nurl = "http://SECRET/"\non = ["recovery"]', "what a ping can"),
        ('kind = "ntfy"\nurl = "http://SECRET/"\nurls = "SECRET"', "Did you mean `alerts.url`"),
        ('kind = "ntfy"\nurl = "http://SECRET/"\n[[alerts]]\nkind = "ntfy"\nurl = "http://SECRET"',
         "'ntfy' is used twice"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_settings_is_told_without_the_secret(
    tmp_path: Path, alerts: str, words: str
) -> None:
    with pytest.raises(SettingsInvalid) as caught:
        loaded(tmp_path, f"[[alerts]]\n{alerts.replace('SECRET', SECRET)}\n")
    told = f"{caught.value} {caught.value.hint}"
    assert re.search(words, told), told
    assert SECRET not in told


def test_alerts_can_come_from_the_environment(tmp_path: Path) -> None:
    alerts = json.dumps([{"kind": "healthchecks", "url": "https://hc.example/x"}])
    environ = {
        "MCP_BACKUP_REPOSITORY__LOCATION": "/backups",
        "MCP_BACKUP_ALERTS": alerts,
    }
    (alert,) = load_settings(None, environ, tmp_path).alerts
    assert alert.on == ("start", "success", "failure", "suspect")
