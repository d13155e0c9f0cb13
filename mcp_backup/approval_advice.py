"""Whether approvals are out of the reach of the agents that were here, as far as we know them."""

from mcp_backup.engine import Engine
from mcp_backup.passphrase import Passphrase
from mcp_backup.verbs_upkeep import Diagnosis

_LOOK_BACK = 1000  # runs
_WITH_SHELL = (  # parts of the names by which clients that can run commands introduce themselves
    "claude-code",
    "cline",
    "codex",
    "copilot",
    "cursor",
    "gemini",
    "goose",
    "opencode",
    "roo",
    "visual studio code",
    "vscode",
    "windsurf",
    "zed",
)
_SET = "Run `mcp-backup passphrase set`: approvals then ask for what only you know."


async def approval_diagnosis(engine: Engine) -> Diagnosis:
    """Say what keeps an agent from agreeing to its own restores, and what does not."""
    subject = "approval"
    if engine.confirmation == "token":
        told = "restore.confirmation is token: an agent needs nobody to replace live data"
        return Diagnosis("warning", subject, told, "Use human, unless you mean that.")
    if Passphrase(engine.settings.state_dir, engine.now).is_set:
        return Diagnosis("ok", subject, "asks for a passphrase")
    runs = await engine.history.runs(limit=_LOOK_BACK)
    names = {run.asker.name for run in runs if run.asker.door == "mcp"}
    shells = sorted(name for name in names if any(part in name.lower() for part in _WITH_SHELL))
    if shells:
        told = f"{', '.join(shells)} can run commands, and so `mcp-backup approve` as well"
        return Diagnosis("warning", subject, told, _SET)
    return Diagnosis("ok", subject, "needs no passphrase; no client with a shell was here so far")
