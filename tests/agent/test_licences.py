"""docs/licences.md names every package that the agent itself needs."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_dependency_of_the_agent_is_listed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    page = (ROOT / "docs" / "licences.md").read_text()
    for requirement in project["dependencies"]:
        name = re.split(r"[<>=!~;\[ ]", requirement, maxsplit=1)[0].lower()
        row = re.search(rf"^\| {re.escape(name)} \| (.+) \|$", page, re.MULTILINE)
        assert row, f"{name}: run .ci/licences > docs/licences.md"
        assert row[1] != "see the package"
