#!/usr/bin/env python3
"""Write packaging/requirements.txt: what container and Debian package install, each file by its sha256.

Asks the configured package index for wheels of CPython 3.11 on amd64 and arm64. Run it to take up new versions.
"""

import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PLATFORMS = ("x86_64", "aarch64")
LEVELS = ("2_17", "2_24", "2_26", "2_27", "2_28", "2_31", "2_34")  # of glibc; Debian 12 has 2.36


def wanted(platform: str, pins: list[str]) -> list[dict]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--report", "-", "--target", folder,
                   "--python-version", "3.11", "--implementation", "cp", "--only-binary", ":all:",
                   *(f"--platform=manylinux_{level}_{platform}" for level in LEVELS),
                   f"--platform=manylinux2014_{platform}", "--platform=any"]  # fmt: skip
        done = subprocess.run([*command, *pins], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)["install"]


def main() -> None:
    import tomllib

    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    dependencies.append("hatchling>=1.25")  # builds the package itself, without asking the index
    hashes: dict[str, set[str]] = defaultdict(set)
    pins = dependencies
    for platform in PLATFORMS:
        found = wanted(platform, pins)
        for item in found:
            name = f"{item['metadata']['name'].lower()}=={item['metadata']['version']}"
            hashes[name].add(item["download_info"]["archive_info"]["hashes"]["sha256"])
        pins = sorted(hashes)  # the same versions everywhere
    lines = ["# Written by packaging/lock.py: CPython 3.11, amd64 and arm64."]
    lines += [
        " \\\n    ".join([name, *(f"--hash=sha256:{value}" for value in sorted(found))])
        for name, found in sorted(hashes.items())
    ]
    (ROOT / "packaging" / "requirements.txt").write_text("\n".join(lines) + "\n")


main()
