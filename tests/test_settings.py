import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_backup.errors import SettingsInvalid
from mcp_backup.settings import Settings, _validated, load_settings
from mcp_backup.settings_sections import RetentionSettings
from mcp_backup.settings_table import checked
from mcp_backup.sources.source import Component, SourceSpec

EXAMPLE = """
[repository]
location = "./backups"
password_file = "./backups.key"

[retention]
daily = 30
weekly = 12
monthly = 6

[schedule]
timezone = "local"
daily = "02:00"
weekly = "sunday 03:00"

[objectives]
rpo_hours = 24
rto_hours = 4

[[databases]]
name = "session-buddy"
kind = "sqlite"
path = "~/session-buddy/data/sessions.db"
exclude_tables = ["cache"]

[[config]]
name = "mahavishnu"
root = "~/Projects/mahavishnu"
include = ["settings/*.yaml", ".env", ".mcp.json", "pyproject.toml"]
exclude = []

[[workflows]]
name = "mahavishnu"
url = "http://localhost:8680/mcp"
tool = "list_workflows"
arguments = { limit = 10000 }
"""
LEAST = '[repository]\nlocation = "r"\n'
DATABASE = '[[databases]]\nname = "a"\npath = "a.db"\n'


def load(directory: Path, text: str = LEAST, **environ: str) -> Settings:
    (directory / "mcp-backup.toml").write_text(text)
    return load_settings(None, environ, directory)


def refusal(directory: Path, text: str = LEAST, **environ: str) -> str:
    """Return the whole of what is said about wrong settings, the file's own path left out."""
    with pytest.raises(SettingsInvalid) as refused:
        load(directory, text, **environ)
    return f"{refused.value} | {refused.value.hint}".replace(f"{directory}/", "")


def test_the_documented_example_is_understood(tmp_path: Path, home: Path) -> None:
    settings = load(tmp_path, EXAMPLE)
    assert settings.file == tmp_path / "mcp-backup.toml"
    assert settings.repository.location == str(tmp_path / "backups")
    assert settings.repository.password_file == tmp_path / "backups.key"
    *others, workflows = settings.sources()
    assert others == [
        SourceSpec(
            "session-buddy",
            Component.DATABASES,
            "sqlite",
            str(home / "session-buddy/data/sessions.db"),
            {"exclude_tables": ["cache"]},
        ),
        SourceSpec(
            "mahavishnu",
            Component.CONFIG,
            "files",
            str(home / "Projects/mahavishnu"),
            {
                "include": ["settings/*.yaml", ".env", ".mcp.json", "pyproject.toml"],
                "exclude": [],
            },
        ),
    ]
    assert (workflows.kind, workflows.path) == ("workflows", "http://localhost:8680/mcp")
    assert workflows.options["arguments"] == {"limit": 10000}


def test_what_is_left_out_has_the_documented_default(tmp_path: Path, home: Path) -> None:
    settings = load(tmp_path)
    assert (settings.retention.daily, settings.retention.weekly, settings.retention.monthly) == (
        30,
        12,
        6,
    )
    assert (settings.restore.confirmation, settings.restore.plan_minutes) == ("human", 60)
    assert settings.restore.undo_keep == 5
    assert (settings.server.host, settings.server.port) == ("127.0.0.1", 8765)
    assert settings.state_dir == home / ".local/state/mcp-backup"
    assert settings.scratch == home / ".local/state/mcp-backup/scratch"
    assert (settings.schedule.daily, settings.schedule.weekly) == ("02:00", "sunday 03:00")
    assert settings.schedule.enabled
    assert settings.sources() == []


def test_a_named_file_comes_before_the_environment_before_here_before_the_users(
    tmp_path: Path, home: Path
) -> None:
    places = {
        "named": tmp_path / "named.toml",
        "environment": tmp_path / "environment.toml",
        "here": tmp_path / "here" / "mcp-backup.toml",
        "user": home / ".config" / "mcp-backup" / "mcp-backup.toml",
    }
    for place, path in places.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'[repository]\nlocation = "/{place}"\n')
    environ = {"MCP_BACKUP_CONFIG": "../environment.toml"}
    here = tmp_path / "here"

    def found(config: Path | None, environ: dict[str, str]) -> str:
        return load_settings(config, environ, here).repository.location

    assert found(Path("../named.toml"), environ) == "/named"
    assert found(None, environ) == "/environment"
    assert found(None, {"MCP_BACKUP_CONFIG": ""}) == "/here"
    places["here"].unlink()
    assert found(None, {}) == "/user"


def test_without_any_settings_the_places_looked_at_and_init_are_named(
    tmp_path: Path, home: Path
) -> None:
    with pytest.raises(SettingsInvalid) as refused:
        load_settings(None, {}, tmp_path)
    assert str(tmp_path / "mcp-backup.toml") in str(refused.value)
    assert str(home / ".config/mcp-backup/mcp-backup.toml") in str(refused.value)
    assert "mcp-backup init" in refused.value.hint


@pytest.mark.parametrize("environ", [{}, {"MCP_BACKUP_CONFIG": "none.toml"}])
def test_a_file_that_was_named_must_exist(tmp_path: Path, environ: dict[str, str]) -> None:
    load(tmp_path)  # not used in its place
    config = None if environ else Path("none.toml")
    with pytest.raises(SettingsInvalid, match=r"none\.toml cannot be read: No such file"):
        load_settings(config, environ, tmp_path)


def test_the_environment_overrides_the_file_setting_by_setting(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        EXAMPLE,
        MCP_BACKUP_REPOSITORY__LOCATION="/elsewhere",
        MCP_BACKUP_RETENTION__DAILY="7",
        MCP_BACKUP_RESTORE__CONFIRMATION="elicit",
        MCP_BACKUP_STATE_DIR="state",
        MCP_BACKUP_DATABASES='[{"name": "one", "path": "one.db"}]',
        MCP_BACKUP_SERVER__ALLOWED_HOSTS='["example.org"]',
    )
    assert settings.repository.location == "/elsewhere"
    assert settings.repository.password_file == tmp_path / "backups.key"
    assert (settings.retention.daily, settings.retention.weekly) == (7, 12)
    assert settings.restore.confirmation == "elicit"
    assert settings.state_dir == tmp_path / "state"
    assert [database.path for database in settings.databases] == [tmp_path / "one.db"]
    assert settings.server.allowed_hosts == ("example.org",)


def test_the_environment_alone_is_enough(tmp_path: Path) -> None:
    settings = load_settings(None, {"MCP_BACKUP_REPOSITORY__LOCATION": "r"}, tmp_path)
    assert settings.repository.location == str(tmp_path / "r")
    assert settings.file is None


def test_the_process_environment_is_not_read_behind_the_callers_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MCP_BACKUP_RETENTION__DAILY", "1")
    assert load(tmp_path).retention.daily == 30


def test_relative_paths_are_relative_to_what_they_are_written_in(
    tmp_path: Path, home: Path
) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "s.toml").write_text(
        '[repository]\nlocation = "../r"\n[restore]\nscratch = "~/s"\n'
        '[[config]]\nname = "a"\nroot = "."\ninclude = ["*"]\n'
    )
    environ = {"MCP_BACKUP_REPOSITORY__PASSWORD_FILE": "key"}
    settings = load_settings(Path("etc/s.toml"), environ, tmp_path)
    assert settings.repository.location == f"{tmp_path}/etc/../r"
    assert settings.repository.password_file == tmp_path / "key"
    assert settings.scratch == home / "s"
    assert settings.sources()[0].path == str(tmp_path / "etc")


@pytest.mark.parametrize("location", ["s3://bucket/prefix", "az://box", "gs://b"])
def test_a_url_is_left_as_it_is(tmp_path: Path, location: str) -> None:
    settings = load(tmp_path, f'[repository]\nlocation = "{location}"\n')
    assert settings.repository.location == location


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("locaton = 1\n" + LEAST, "locaton is not a setting | Did you mean `repository.location`"),
        (LEAST + "locatoin = 1", "repository.locatoin is not a setting | Did you mean `repository"),
        (LEAST + "[retentoin]\ndaily = 1", "Did you mean `retention` by `retentoin`?"),
        (LEAST + "[retention]\nyearly = 1", "Valid in place of `retention.yearly`: daily, weekly"),
        (LEAST + "qqqq = 1", "Valid in place of `repository.qqqq`: location, password_file"),
        ("[retention]\ndaily = 1", "mcp-backup.toml: repository is missing"),
        ("[repository]", "repository.location is missing"),
        ('[repository]\nlocation = ""', "repository.location must be a path, got ''"),
        ('[repository]\nlocation = "a\\u0000"', "repository.location must be a path"),
        ("[repository]\nlocation = 7", "repository.location must be text in quotes, got 7"),
        ('repository = "/r"', "repository must be a table, got '/r'"),
        (LEAST + "password_file = 1", "repository.password_file must be a path in quotes, got 1"),
        (LEAST + 'password_file="a"\npassword_command="b"', "or `password_command`, not both"),
        (LEAST + "[retention]\ndaily = -1", "retention.daily must be a number of at least 0, got"),
        (LEAST + "[retention]\ndaily = 1.5", "retention.daily must be a whole number, got 1.5"),
        (LEAST + '[retention]\ndaily = "many"', "must be a whole number, got 'many'"),
        (LEAST + "[objectives]\nrpo_hours = 0", "rpo_hours must be a number above 0, got 0"),
        (LEAST + "[server]\nport = 65536", "server.port must be a number of at most 65535"),
        (LEAST + '[schedule]\ndaily = "2am"', "must be a time such as \"02:00\", got '2am'"),
        (LEAST + '[schedule]\ndaily = "24:00"', 'must be a time such as "02:00"'),
        (LEAST + '[schedule]\nweekly = "sun 3"', 'must be a day and time such as "sunday 03:00"'),
        (LEAST + '[schedule]\ntimezone = "Mars/X"', 'schedule.timezone must be "local" or a zone'),
        (LEAST + DATABASE + 'every = "0m"', 'must be an interval such as "15m", "6h" or "1d"'),
        (LEAST + DATABASE + 'cron = "61 * * * *"', "must have numbers from 0 to 59"),
        (LEAST + DATABASE + 'cron = "0 0 30 2 *"', "must be a day that exists"),
        (LEAST + DATABASE + 'every = "1h"\ncron = "0 * * * *"', "`every` or `cron`, not both"),
        (LEAST + '[schedule]\ntimezone = "../x"', 'schedule.timezone must be "local" or a zone'),
        (
            LEAST + '[restore]\nconfirmation = "yes"',
            "restore.confirmation must be 'human', 'elicit' or 'token', got 'yes'",
        ),
        (LEAST + "[databases]\nname = 1", "databases must be a list in [brackets], got a table"),
        (LEAST + '[[databases]]\nname = "a"', "databases[1].path is missing"),
        (
            LEAST + '[[databases]]\nname="a"\npath="a"\n[[databases]]\nname="b"\npth="b"\npath="b"',
            "databases[2].pth is not a setting | Did you mean `databases.path` by",
        ),
        (
            LEAST + '[[databases]]\nname = "a"\npath = "a"\nkind = "mysql"',
            "databases[1].kind must be 'sqlite', 'duckdb' or 'postgres', got 'mysql'",
        ),
        (
            LEAST + '[[config]]\nname = "a"\nroot = "."\ninclude = []',
            "config[1].include must be a list of at least one, got a list of 0",
        ),
        (
            LEAST + '[[config]]\nname = "a"\nroot = "."\ninclude = ["../x"]',
            "config[1].include[1] must be a pattern below `root`",
        ),
        (LEAST + '[server]\noauth = "null"', "server.oauth must be a table, got 'null'"),
        (LEAST + "[server]\nport = true", "server.port must be a whole number, got true"),
        (LEAST + 'append_only = "perhaps"', "append_only must be true or false, got 'perhaps'"),
        (LEAST + DATABASE + 'host = "h"', 'must not have `host` unless its `kind` is "postgres"'),
        (LEAST + 'file = "f"', "repository.file is not a setting"),
        ('file = "f"\n' + LEAST, "file is not a setting"),
        ("[repository\n", "mcp-backup.toml is not TOML: Expected ']'"),
        (
            LEAST + "location = 2\n",
            "mcp-backup.toml is not TOML: Cannot overwrite a value (at line 3",
        ),
    ],
)
def test_each_mistake_is_one_sentence_with_file_key_expected_and_got(
    tmp_path: Path, text: str, said: str
) -> None:
    told = refusal(tmp_path, text)
    assert said in told
    assert told.startswith("mcp-backup.toml")
    for word in ("pydantic", "Input should", "validation", "type="):
        assert word not in told


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        (
            {"MCP_BACKUP_REPOSITRY__LOCATION": "r"},
            "the environment variable MCP_BACKUP_REPOSITRY__LOCATION is not a setting | "
            "Did you mean MCP_BACKUP_REPOSITORY__LOCATION?",
        ),
        ({"MCP_BACKUP_PASWORD": "hidden"}, "Did you mean MCP_BACKUP_PASSWORD?"),
        (
            {"MCP_BACKUP_REPOSITORY__LOCATON": "r"},
            "MCP_BACKUP_REPOSITORY__LOCATON: repository.locaton is not a setting | Did you mean",
        ),
        (
            {"MCP_BACKUP_RETENTION__DAILY": "few"},
            "MCP_BACKUP_RETENTION__DAILY: retention.daily must be a whole number, got 'few'",
        ),
        ({"MCP_BACKUP_DATABASES": "a, b"}, "the environment: databases is not JSON | Lists"),
        ({"MCP_BACKUP_DATABASES": "7"}, "databases must be a list in [brackets], got 7"),
    ],
)
def test_a_mistake_in_the_environment_names_the_variable(
    tmp_path: Path, environ: dict[str, str], said: str
) -> None:
    told = refusal(tmp_path, LEAST, **environ)
    assert said in told
    assert "hidden" not in told


def test_many_mistakes_are_told_at_once_but_not_as_a_wall(tmp_path: Path) -> None:
    told = refusal(tmp_path, LEAST + "".join(f"wrong{number} = 1\n" for number in range(9)))
    assert "repository.wrong0" in told
    assert "repository.wrong4" in told
    assert "repository.wrong5" not in told
    assert "and 4 more" in told


def test_mistakes_in_several_tables_are_told_in_one_go(tmp_path: Path) -> None:
    told = refusal(
        tmp_path,
        LEAST + "[retention]\ndaily = -1\nyearly = 1\n[restore]\nundo_keep = 0\n"
        '[[databases]]\nname = "a"\n[[databases]]\nname = "b c"\npath = "b"\n',
    )
    for said in (
        "retention.daily must be a number of at least 0",
        "retention.yearly is not a setting",
        "restore.undo_keep must be a number of at least 1",
        "databases[1].path is missing",
        "databases[2].name must be 1 to 100 letters",
    ):
        assert said in told


@pytest.mark.parametrize("daily", ["7", '"7"', "7.0"])
def test_a_number_may_stand_in_quotes(tmp_path: Path, daily: str) -> None:
    settings = load(tmp_path, LEAST + f"[retention]\ndaily = {daily}")
    assert repr(settings.retention.daily) == "7"


@pytest.mark.parametrize(
    ("word", "meant"), [("true", True), ("Yes", True), ("1", True), ("off", False), ("NO", False)]
)
def test_truth_has_many_words_in_the_environment(tmp_path: Path, word: str, meant: bool) -> None:
    settings = load(tmp_path, MCP_BACKUP_SCHEDULE__ENABLED=word)
    assert settings.schedule.enabled is meant


def test_a_table_of_the_environment_is_json_and_single_settings_override_it(
    tmp_path: Path,
) -> None:
    settings = load(
        tmp_path,
        LEAST + "[retention]\nmonthly = 1",
        MCP_BACKUP_RETENTION__DAILY="4",
        MCP_BACKUP_RETENTION='{"daily": 3, "weekly": 2}',
    )
    kept = settings.retention
    assert (kept.daily, kept.weekly, kept.monthly) == (4, 2, 1)


def test_a_programs_settings_are_refused_without_naming_a_file() -> None:
    with pytest.raises(SettingsInvalid, match=r"^daily must be a whole number, got 'many'$"):
        checked(RetentionSettings, {"daily": "many"})


@pytest.mark.parametrize(
    "text",
    [
        LEAST + 'password = "hunter2"',
        LEAST + 'password_command = ["echo", "hunter2"]',
        LEAST + 'password_command = { run = "hunter2" }',
        'repository = "s3://key:hunter2@host/bucket"',
        LEAST + '[repository.location2]\npassword = "hunter2"',
        LEAST + '[[workflows]]\nname="a"\nurl="u"\ntool="t"\narguments = "token hunter2"',
        LEAST + '[[workflows]]\nname="a"\nurl=["http://u:hunter2@h"]\ntool="t"',
        LEAST + '[[workflows]]\nname="http://u:hunter2@h"\nurl="u"\ntool="t"',
        LEAST + 'password_file = "a"\npassword_command = "echo hunter2"',
    ],
)
def test_no_message_shows_a_secret(tmp_path: Path, text: str) -> None:
    assert "hunter2" not in refusal(tmp_path, text)


def test_a_password_in_the_settings_is_refused_with_where_it_belongs(tmp_path: Path) -> None:
    told = refusal(tmp_path, LEAST + 'password = "hunter2"')
    assert "repository.password is not a setting" in told
    assert "repository.password_file" in told
    assert "MCP_BACKUP_PASSWORD" in told


@pytest.mark.parametrize("name", ["", ".a", "-a", "a/b", "a b", "..", "ä", "a\\n", "a" * 101])
def test_a_name_that_could_not_be_a_directory_everywhere_is_refused(
    tmp_path: Path, name: str
) -> None:
    told = refusal(tmp_path, LEAST + f'[[databases]]\nname = "{name}"\npath = "x"')
    assert "databases[1].name must be 1 to 100 letters" in told


@pytest.mark.parametrize("names", [("a", "a"), ("Notes", "notes")])
def test_two_sources_of_one_component_with_one_name_are_refused(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    text = LEAST + "".join(f'[[databases]]\nname = "{name}"\npath = "x"\n' for name in names)
    assert f"databases: the name {names[1]!r} is used twice" in refusal(tmp_path, text)


def test_components_may_share_a_name(tmp_path: Path) -> None:
    text = (
        LEAST + '[[databases]]\nname="a"\npath="a"\n[[config]]\nname="a"\nroot="."\ninclude=["*"]'
    )
    assert [spec.name for spec in load(tmp_path, text).sources()] == ["a", "a"]


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"SQLite format 3\0" + bytes(84), "sqlite"),
        (b"checksumDUCK" + bytes(4084), "duckdb"),
        (b"", "sqlite"),
        (b"garbage", "sqlite"),
        (None, "sqlite"),
    ],
)
def test_a_kind_left_out_is_found_from_the_file_and_never_fails(
    tmp_path: Path, content: bytes | None, kind: str
) -> None:
    settings = load(tmp_path, LEAST + '[[databases]]\nname = "a"\npath = "a.db"')
    if content is not None:
        (tmp_path / "a.db").write_bytes(content)
    assert [spec.kind for spec in settings.sources()] == [kind]


def test_a_database_that_is_a_pipe_or_a_directory_does_not_hold_anything_up(
    tmp_path: Path,
) -> None:
    os.mkfifo(tmp_path / "pipe")
    text = LEAST + '[[databases]]\nname="a"\npath="pipe"\n[[databases]]\nname="b"\npath="."'
    assert [spec.kind for spec in load(tmp_path, text).sources()] == ["sqlite", "duckdb"]


def test_settings_do_not_change(tmp_path: Path) -> None:
    settings: Any = load(tmp_path)
    with pytest.raises(AttributeError, match="immutable"):
        settings.state_dir = Path("/")
    with pytest.raises(AttributeError, match="immutable"):
        settings.repository.location = "/"


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mcp-backup.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsInvalid, match="is not TOML"):
        load_settings(None, {}, tmp_path)
    with pytest.raises(SettingsInvalid, match="cannot be read: Is a directory"):
        load_settings(tmp_path, {}, tmp_path)


def test_an_unknown_users_home_is_refused(tmp_path: Path) -> None:
    told = refusal(tmp_path, '[repository]\nlocation = "~nobody-of-that-name/x"')
    assert "mcp-backup.toml: repository.location: '~nobody-of-that-name/x'" in told


def test_windows_line_ends_and_a_byte_order_mark_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "mcp-backup.toml").write_bytes(
        b"\xef\xbb\xbf" + LEAST.replace("\n", "\r\n").encode()
    )
    assert load_settings(None, {}, tmp_path).repository.location == str(tmp_path / "r")


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "path", "location", "kind", "x"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*Settings.__struct_fields__, "other"]), VALUES))
def test_any_values_are_settings_or_a_sentence(values: dict[str, Any]) -> None:
    told = ""
    try:
        settings = _validated(values, {}, None)
    except SettingsInvalid as error:
        told = str(error)
    assert told or settings.repository.location
    assert "Input should" not in told


def test_importing_the_settings_needs_no_server_and_no_database_library() -> None:
    program = "import sys, mcp_backup.settings; print(*sys.modules)"
    modules = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    ).stdout.split()
    assert {"mcp", "apsw", "typer", "rich", "cryptography", "anyio"}.isdisjoint(modules)
