"""What the agent installs: its licences are listed, its files are pinned."""

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


def test_every_dependency_of_the_agent_is_pinned_with_its_checksum() -> None:
    """Container and Debian package install what packaging/lock.py has written down."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lock = (ROOT / "packaging" / "requirements.txt").read_text()
    pins = re.findall(r"^([a-z0-9_.-]+)==[^ ]+((?: \\\n    --hash=sha256:[0-9a-f]{64})+)$", lock, re.MULTILINE)
    names = {name.replace("_", "-") for name, _ in pins}
    assert len(names) == lock.count("==")
    for requirement in project["dependencies"]:
        assert re.split(r"[<>=!~;\[ ]", requirement, maxsplit=1)[0].lower() in names, "run packaging/lock.py"
