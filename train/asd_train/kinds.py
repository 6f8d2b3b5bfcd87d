"""Which command a configuration file is for, told by its keys."""

from __future__ import annotations

from pathlib import Path

import yaml

from asd_agent.errors import UsageError

_COMMANDS = {
    "members": "asd-train ensemble {path} -o RESULTS",
    "nuisance": "asd-train distil {path}",
    "masking": "asd-train pretrain {path}",
    "decoder": "asd-train pretrain {path}",
    "teacher": "asd-train pretrain {path}",
    "autoencoder": "asd-train evaluate {path} -o RESULTS",
    "mechanism": "asd-train evaluate {path} -o RESULTS",
    "model": "asd-train fit {path}",
}


def check_kind(path: str | Path, command: str) -> None:
    """UsageError that names the right command where the file is for another; nothing where it cannot be told."""
    wanted = command_of(path)
    if wanted is not None and f"asd-train {command} " not in f"{wanted} ":
        raise UsageError(f"{path}: not a configuration for asd-train {command}; use {wanted}")


def command_of(path: str | Path) -> str | None:
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return None  # whoever reads it next says what is wrong
    keys = content if isinstance(content, dict) else {}
    return next((text.format(path=path) for key, text in _COMMANDS.items() if key in keys), None)
