"""Where the repository's password comes from, read as restic reads it.

Surrounding white space is no part of it, nor is a byte order mark, so that `--password-file` and
`--password-command` of restic open the repository with the same file and command.
"""

import shlex
import stat
import subprocess
from collections.abc import Mapping
from pathlib import Path

from mcp_backup.errors import SettingsInvalid
from mcp_backup.secret import Secret

_COMMAND_SECONDS = 60  # a person may have to touch a token or unlock a keyring

# What restic trims: Go's unicode.IsSpace. str.strip would take U+001C to U+001F as well.
_WHITE = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
_ENCODINGS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))


def resolve_password(
    file: Path | None, command: str | None, environ: Mapping[str, str], directory: Path | None
) -> Secret:
    """Return MCP_BACKUP_PASSWORD, else what `file` holds, else what `command` prints.

    The command runs without a shell, in `directory`, for at most a minute. No message holds
    anything of a password.

    Raises:
        SettingsInvalid: there is none, or it cannot be read, or it is empty.
    """
    if environ.get("MCP_BACKUP_PASSWORD"):
        return Secret(environ["MCP_BACKUP_PASSWORD"])
    if file is not None:
        return Secret(_text(_read(file), f"the password file {file}"))
    if command is not None:
        return Secret(_text(_printed(command, environ, directory), "the password command"))
    raise SettingsInvalid(
        "the repository's password is not set",
        hint="Set `repository.password_file` (`mcp-backup init` makes one), "
        "`repository.password_command` or MCP_BACKUP_PASSWORD.",
    )


def password_file_risk(file: Path) -> str:
    """Say who else may read or change the password file; "" if nobody but its owner may."""
    try:
        mode = stat.S_IMODE(file.stat().st_mode)
    except OSError:
        return ""
    if not mode & 0o077:
        return ""
    who = "everybody on this machine" if mode & 0o007 else "its group"
    return f"{file} (mode {mode:04o}) is open to {who}"


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError as error:
        raise SettingsInvalid(
            f"the password file {file} does not exist",
            hint="Put the repository's password there (the recovery kit has it), or correct "
            "`repository.password_file`. For a new repository `mcp-backup init` makes one.",
        ) from error
    except OSError as error:
        raise SettingsInvalid(
            f"the password file {file} cannot be read: {error.strerror}",
            hint="Make it a file that this user may read (mode 0600), or correct "
            "`repository.password_file`.",
        ) from error


def _printed(command: str, environ: Mapping[str, str], directory: Path | None) -> bytes:
    hint = "Run `repository.password_command` yourself: it must print the password and end with 0."
    try:
        done = subprocess.run(
            shlex.split(command),
            stdin=subprocess.DEVNULL,  # our own may be carrying a protocol
            stdout=subprocess.PIPE,
            cwd=directory,
            env=dict(environ),
            timeout=_COMMAND_SECONDS,
            check=True,
        )
    except subprocess.CalledProcessError as error:
        ended = f"exit status {error.returncode}"
    except subprocess.TimeoutExpired:
        ended = f"no end after {_COMMAND_SECONDS} seconds"
    except OSError as error:
        ended = error.strerror or type(error).__name__
    except ValueError:
        ended = "its quotes do not pair"
    else:
        return done.stdout
    raise SettingsInvalid(f"the password command gave no password: {ended}", hint=hint)


def _text(data: bytes, origin: str) -> str:
    encoding = "utf-8"
    for mark, marked in _ENCODINGS:
        if data.startswith(mark):
            data, encoding = data[len(mark) :], marked
            break
    try:
        password = data.decode(encoding).strip(_WHITE)
    except UnicodeDecodeError:
        raise SettingsInvalid(
            f"{origin} gave bytes that are not {encoding.upper()} text",
            hint="Use the text file with the password that `mcp-backup init` made, or the text "
            "the repository was made with.",
        ) from None
    if not password:
        raise SettingsInvalid(
            f"{origin} is empty",
            hint="It must give the password the repository was made with; an empty one is refused.",
        )
    return password
