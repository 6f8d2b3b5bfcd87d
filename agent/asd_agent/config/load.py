"""YAML -> Config; every mistake becomes one line that names the file, the key and what would be right."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

import msgspec
import yaml

from asd_agent.config.model import Config
from asd_agent.errors import ConfigError


def load(path: str | Path) -> Config:
    """Read and validate a configuration file; raises ConfigError."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path}: cannot be read ({getattr(exc, 'strerror', None) or exc})") from exc
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as exc:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(exc).split())}") from exc
    try:
        return msgspec.convert(data, Config, strict=True)
    except msgspec.ValidationError as exc:
        raise ConfigError(f"{path}: {_explain(str(exc), data)}") from exc


def _explain(message: str, data: object) -> str:
    """msgspec says "Object contains unknown field `x` - at `$.machines[0]`": say it in the reader's order."""
    what, _, where = message.partition(" - at `$")
    key = where.rstrip("`").lstrip(".")
    unknown = re.search(r"unknown field `([^`]*)`", what)
    if unknown:
        name = f"{key}.{unknown[1]}".lstrip(".")
        return f"{name}: unknown key{_suggest(unknown[1])}"
    missing = re.search(r"missing required field `([^`]*)`", what)
    if missing:
        return f"{key}.{missing[1]}".lstrip(".") + ": this key is required"
    return f"{key}: {what}" if key else what


def _suggest(name: str) -> str:
    known = {f.encode_name for s in _structs(Config, set()) for f in msgspec.structs.fields(s)}
    close = difflib.get_close_matches(name, sorted(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _structs(kind: object, seen: set[type]) -> set[type]:
    """All struct types reachable from `kind`."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        if kind not in seen:
            seen.add(kind)
            for item in msgspec.structs.fields(kind):
                _structs(item.type, seen)
        return seen
    for inner in getattr(kind, "__args__", ()):
        _structs(inner, seen)
    return seen
