"""YAML -> a typed struct; a mistake becomes one line that names the file, the key and what would be right."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import yaml

from asd_agent.config.model import Config
from asd_agent.errors import ConfigError

T = TypeVar("T", bound=msgspec.Struct)


class _Loader(yaml.SafeLoader):
    """PyYAML knows 1.0e-5 but takes 1e-5, which people write, for a string."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+"), list("-+0123456789")
)


LONGEST_TEXT = 1 << 20
MOST_VALUES = 100_000  # aliases of aliases multiply: a page of YAML can stand for more than fits into memory
VARIABLE = "ASD_AGENT_CONFIG"
PLACES = (Path("agent.yaml"), Path("/etc/asd-agent/agent.yaml"))


def locate(given: str | None = None) -> Path:
    """The configuration file: as given, else $ASD_AGENT_CONFIG, ./agent.yaml, /etc/asd-agent/agent.yaml.

    A path that somebody named is taken as it is, whether there is such a file or not. Raises ConfigError.
    """
    if named := given or os.environ.get(VARIABLE):
        return Path(named)
    for place in PLACES:
        if place.exists():
            return place
    raise ConfigError(
        f"no configuration: neither -c nor ${VARIABLE} names one, and there is no "
        + " and no ".join(str(place if place.is_absolute() else Path.cwd() / place) for place in PLACES)
        + "; `asd-agent init` writes one"
    )


def load(path: str | Path) -> Config:
    """Read and validate the agent's configuration file; raises ConfigError."""
    return read(path, Config)


def read(path: str | Path, kind: type[T], changes: Sequence[str] = ()) -> T:
    """Read and validate a file of any kind of configuration; raises ConfigError.

    `changes` are "key.key=value" (list items by number) that replace what the file says, values as in YAML.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path}: cannot be read ({getattr(exc, 'strerror', None) or exc})") from exc
    return _parsed(text, path, kind, changes)


def parse(text: str, name: str) -> Config:
    """Validate the text of an agent's configuration; `name` is how errors call it. Raises ConfigError."""
    return _parsed(text, name, Config, ())


def _parsed(text: str, path: str | Path, kind: type[T], changes: Sequence[str]) -> T:
    if len(text) > LONGEST_TEXT:
        raise ConfigError(f"{path}: longer than {LONGEST_TEXT} characters: is it a configuration?")
    try:
        data = yaml.load(text, _Loader)
    except (yaml.YAMLError, RecursionError, ValueError) as exc:  # ValueError: a date that is none
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(exc).split())}") from exc
    for change in changes:
        _change(data, change)
    _check_values(data, path)
    try:
        return msgspec.convert(data, kind, strict=True)
    except msgspec.ValidationError as exc:
        raise ConfigError(f"{path}: {_explain(str(exc), data, kind)}") from exc


def _check_values(data: object, path: str | Path) -> None:
    """Every value in turn, as often as it is named. Raises ConfigError for too many, and for text with NUL in it."""
    waiting: list[tuple[str, object]] = [("", data)]
    count = 0
    while waiting:
        key, value = waiting.pop()
        count += 1
        if count > MOST_VALUES:
            raise ConfigError(f"{path}: more than {MOST_VALUES} values: aliases of aliases?")
        if isinstance(value, str) and "\0" in value:
            raise ConfigError(f"{path}: {key.lstrip('.')}: holds a NUL character, which no path and no command may")
        if isinstance(value, dict):
            waiting += [(f"{key}.{name}", item) for name, item in value.items()]
        elif isinstance(value, list):
            waiting += [(f"{key}[{i}]", item) for i, item in enumerate(value)]


def _change(data: Any, change: str) -> None:
    key, equals, value = change.partition("=")
    *parents, last = key.split(".")
    if not equals or not all([*parents, last]):
        raise ConfigError(f"{change!r} is not of the form key.key=value")
    try:
        for name in parents:
            data = data[int(name)] if isinstance(data, list) else data.setdefault(name, {})
        data[int(last) if isinstance(data, list) else last] = yaml.load(value, _Loader)
    except (ValueError, IndexError, TypeError, AttributeError) as exc:
        raise ConfigError(f"{change!r}: there is no such place in the configuration") from exc
    except yaml.YAMLError as exc:
        raise ConfigError(f"{change!r}: the value is not valid YAML") from exc


def _explain(message: str, data: object, kind: type[msgspec.Struct]) -> str:
    """msgspec says "Object contains unknown field `x` - at `$.machines[0]`": say it in the reader's order."""
    what, _, where = message.partition(" - at `$")
    key = where.rstrip("`").lstrip(".")
    unknown = re.search(r"unknown field `([^`]*)`", what)
    if unknown:
        name = f"{key}.{unknown[1]}".lstrip(".")
        return f"{name}: unknown key{_suggest(unknown[1], kind)}"
    missing = re.search(r"missing required field `([^`]*)`", what)
    if missing:
        return f"{key}.{missing[1]}".lstrip(".") + ": this key is required"
    return f"{key}: {what}" if key else what


def _suggest(name: str, kind: type[msgspec.Struct]) -> str:
    known = {f.encode_name for s in _structs(kind, set()) for f in msgspec.structs.fields(s)}
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
