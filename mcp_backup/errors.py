"""Every failure the product expects, as one tree.

    BackupError                    `code`, `exit_code`, `hint`
    ├── UsageError                 what was asked cannot be meant; nothing was done
    │   ├── SettingsInvalid        the settings file or environment is wrong
    │   ├── UnknownBackup          no snapshot answers to that id
    │   ├── UnknownSource          no source of that name
    │   ├── UnknownPlan            no plan, restore or undo point of that id
    │   └── NotPermitted           the caller's scopes do not cover it
    ├── ServerUnreachable          no MCP server answers at that address
    ├── HistoryUnusable            what happened could not be put on record, or read from there
    ├── SlotTaken                  the schedule's slot has been run, or is being run
    ├── SourceError                a source could not be captured or put back
    │   ├── SourceMissing          the path does not exist
    │   ├── SourceUnreadable       it exists, but is not what the settings say
    │   ├── SourceBusy             another process holds it longer than we wait
    │   ├── SourceUnstable         no consistent copy could be had
    │   ├── NothingBackedUp        every source failed, so nothing was stored
    │   ├── NotExportable          the image holds what SQL text cannot carry
    │   └── WorkerDied             the process that read it ended without an answer
    ├── StoreError
    │   ├── ObjectMissing          permanent
    │   ├── StoreFull              no space left where the objects are kept
    │   ├── StoreDenied            not permitted, read-only, wrong credentials
    │   └── StoreUnavailable       the only retryable error in the tree
    ├── RepositoryError
    │   ├── RepositoryMissing      there is no repository at that location
    │   ├── RepositoryExists       there is one already
    │   ├── WrongPassword          no key in the repository opens with it
    │   ├── RepositoryLocked       another process has a conflicting lock
    │   ├── UnsupportedFormat      written by something newer than we know
    │   └── IntegrityError         bytes are not what they claim; never retried, never skipped
    └── RestoreError
        ├── ApprovalRequired       a plan waits for a human
        ├── ApprovalRefused        the passphrase was wrong, or could not be asked for
        ├── RestoreDeclined        a person was asked and did not say yes
        ├── PlanExpired            too old, or what it saw has changed; plan again
        ├── StagingRejected        what came out is not what went in; nothing live was touched
        ├── TargetBusy             another process holds the live file; nothing was touched
        ├── RolledBack             live data was changed, then put back byte for byte
        └── RestoreInterrupted     live data is part old, part new; the undo point is kept

Codes are part of the MCP contract and never change their meaning. Messages are facts: lower case,
what, which, expected and got. Hints are sentences: what to do next, and what is still true.
"""

from collections.abc import Sequence
from typing import ClassVar


class BackupError(Exception):
    """Anything that can go wrong and is expected to, now and then.

    `code` is stable and machine-readable, `exit_code` is the terminal's, `hint` says what to do.
    """

    code: ClassVar[str] = "backup-error"
    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str = "") -> None:
        """Word the failure: `message` is the fact, `hint` the next step."""
        super().__init__(message)
        self.hint = hint


class UsageError(BackupError):
    """The request itself is wrong; nothing was done."""

    code, exit_code = "usage", 2


class SettingsInvalid(UsageError):
    """The settings file or the environment says something impossible."""

    code = "settings-invalid"


class UnknownBackup(UsageError):
    """No snapshot answers to that id."""

    code = "unknown-backup"

    def __init__(self, backup_id: str, known: int) -> None:
        """Name the id asked for, and how many backups there are to choose from."""
        super().__init__(
            f"no backup answers to {backup_id!r} among {known}",
            hint="Call list_backups (or `mcp-backup list`) and use one of its ids, or `latest`.",
        )


class UnknownSource(UsageError):
    """No source of that name is configured or in the backup."""

    code = "unknown-source"

    def __init__(self, name: str, known: list[str]) -> None:
        """Name the source asked for, and those there are."""
        listed = ", ".join(sorted(known)) or "none"
        super().__init__(
            f"no source is named {name!r}; there are: {listed}", hint="Use one of these names."
        )


class UnknownPlan(UsageError):
    """No plan, restore or undo point of that id."""

    code = "unknown-plan"


class NotPermitted(UsageError):
    """The caller's scopes do not cover what it asks for; nothing was done."""

    code = "not-permitted"

    def __init__(self, tool: str, needed: str, scopes: Sequence[str]) -> None:
        """Name the tool, the scope it needs, and those that the caller has."""
        super().__init__(
            f"{tool} needs the scope {needed!r}; you have {', '.join(scopes) or 'none'}",
            hint="Ask the person: scopes are set by them alone, in `server.scopes` of the settings "
            "or with `mcp-backup token create`. Nothing was done.",
        )


class ServerUnreachable(BackupError):
    """No MCP server answers at that address."""

    code, exit_code = "server-unreachable", 4

    def __init__(self, address: str, why: str) -> None:
        """Name the address tried, and what happened."""
        super().__init__(
            f"no MCP server answers at {address}: {why}",
            hint="Start one with `mcp-backup serve --http`, correct --url or MCP_BACKUP_URL, or "
            "leave it out to call in this process.",
        )


class HistoryUnusable(BackupError):
    """What happened could not be put on record, or read from there."""

    code = "history-unusable"

    def __init__(self, path: object, why: str) -> None:
        """Name the file, and what is wrong with it."""
        super().__init__(
            f"the history at {path} cannot be used: {why}",
            hint="Make room, or let this user write there; or move the file away, and a new one "
            "is made from what the repository tells. Backups do not need it.",
        )


class SlotTaken(BackupError):
    """The schedule's slot has been run, or is being run."""

    code = "slot-taken"

    def __init__(self, slot: str) -> None:
        """Name the slot."""
        super().__init__(
            f"the run for {slot} has been made, or is being made",
            hint="There is nothing to do; `mcp-backup history` shows it.",
        )


class SourceError(BackupError):
    """A source could not be captured or put back."""

    code, exit_code = "source-error", 1


class SourceMissing(SourceError):
    """The source's path does not exist."""

    code = "source-missing"

    def __init__(self, name: str, path: object) -> None:
        """Name the source and the path that is not there."""
        super().__init__(
            f"source {name!r}: {path} does not exist",
            hint="Correct `path` in the settings, or remove the source. It was not backed up.",
        )


class SourceUnreadable(SourceError):
    """The source exists, but is not what the settings say, or may not be read."""

    code = "source-unreadable"


class SourceBusy(SourceError):
    """Another process holds the source longer than we are willing to wait."""

    code = "source-busy"


class SourceUnstable(SourceError):
    """No consistent copy could be had in the tries allowed."""

    code = "source-unstable"


class NothingBackedUp(SourceError):
    """Every source failed, so nothing was stored."""

    code = "nothing-backed-up"


class NotExportable(SourceError):
    """The image holds things that SQL text cannot carry exactly."""

    code = "not-exportable"


class WorkerDied(SourceError):
    """A worker process ended without an answer, or could not be had at all."""

    code = "worker-died"

    def __init__(self, task: str, ended: str) -> None:
        """Say what the worker was doing and how it ended."""
        super().__init__(
            f"the worker process for {task} {ended}",
            hint="Try again; if it happens again, run `mcp-backup doctor` and look at the log. "
            "Nothing live was changed by it.",
        )


class StoreError(BackupError):
    """The place where objects are kept refused or failed."""

    code = "store-error"


class ObjectMissing(StoreError):
    """An object that should exist does not. Permanent."""

    code = "object-missing"

    def __init__(self, name: str, location: str) -> None:
        """Name the object and the store."""
        super().__init__(
            f"{name} is missing from {location}",
            hint="Run `mcp-backup check` to learn what is affected.",
        )
        self.name = name


class StoreFull(StoreError):
    """No space is left where the objects are kept."""

    code = "store-full"


class StoreDenied(StoreError):
    """Not permitted: read-only, wrong owner, wrong credentials."""

    code = "store-denied"


class StoreUnavailable(StoreError):
    """The store did not answer this time; the only error worth trying again."""

    code, exit_code, retryable = "store-unavailable", 4, True


class RepositoryError(BackupError):
    """The repository as a whole cannot be used as asked."""

    code = "repository-error"


class RepositoryMissing(RepositoryError):
    """There is no repository at that location."""

    code, exit_code = "repository-missing", 4

    def __init__(self, location: str) -> None:
        """Name the location looked at."""
        super().__init__(
            f"there is no repository at {location}",
            hint="Run `mcp-backup init` to make one, or correct `repository.location` in the "
            "settings.",
        )


class RepositoryExists(RepositoryError):
    """There is a repository already."""

    code = "repository-exists"

    def __init__(self, location: str) -> None:
        """Name the location."""
        super().__init__(
            f"{location} already holds a repository",
            hint="Use it as it is, or choose another location. Nothing was changed.",
        )


class WrongPassword(RepositoryError):
    """No key in the repository opens with that password."""

    code = "wrong-password"

    def __init__(self, location: str, keys: int) -> None:
        """Name the repository and the number of keys tried."""
        super().__init__(
            f"the password opens none of the {keys} keys of {location}",
            hint="Check `repository.password_file` (or MCP_BACKUP_PASSWORD): it must be the one "
            "this repository was made with. Nothing was changed.",
        )


class RepositoryLocked(RepositoryError):
    """Another process holds a conflicting lock."""

    code, exit_code = "repository-locked", 4


class UnsupportedFormat(RepositoryError):
    """Written by something newer than this version knows."""

    code = "unsupported-format"


class IntegrityError(RepositoryError):
    """Bytes are not what they claim to be. Never retried, never skipped."""

    code, exit_code = "integrity", 3


class RestoreError(BackupError):
    """A restore stopped."""

    code = "restore-error"


class ApprovalRequired(RestoreError):
    """The plan waits for a human; nothing was touched."""

    code, exit_code = "approval-required", 5

    def __init__(self, plan_id: str, undoes: str = "") -> None:
        """Name the plan, the command that approves it, and the call to make afterwards."""
        again = f"undo_restore again with restore_id={undoes}" if undoes else ""
        super().__init__(
            f"plan {plan_id} has not been approved by a person",
            hint=f"Ask the person to run `mcp-backup approve {plan_id}` in a terminal, then call "
            f"{again or f'restore_backup again with plan_id={plan_id}'}. Nothing was touched.",
        )


class ApprovalRefused(RestoreError):
    """The approval passphrase was wrong, or could not be asked for; nothing was touched."""

    code, exit_code = "approval-refused", 5


class RestoreDeclined(RestoreError):
    """A person was asked, and did not say yes; nothing was touched."""

    code, exit_code = "restore-declined", 5

    def __init__(self, subject: str) -> None:
        """Name what was asked about: a plan's or a restore's id."""
        super().__init__(
            f"the person did not agree to {subject}",
            hint="Do not ask again unless they want it. Nothing was touched.",
        )


class PlanExpired(RestoreError):
    """The plan is too old, used up, or what it saw has changed since."""

    code = "plan-expired"


class StagingRejected(RestoreError):
    """What came out of the repository is not what went in. Nothing live was touched."""

    code, exit_code = "staging-rejected", 3


class TargetBusy(RestoreError):
    """Another process holds the live file so that it cannot be exchanged. Nothing was touched."""

    code, exit_code = "target-busy", 4


class RolledBack(RestoreError):
    """Live data was changed, then put back byte for byte."""

    code = "rolled-back"


class RestoreInterrupted(RestoreError):
    """Live data was changed and could not be put back everywhere; the undo point is kept."""

    code, exit_code = "restore-interrupted", 3
