"""The commands that README.md and docs/*.md print, found in code blocks and in inline code."""

from __future__ import annotations

import argparse
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PROGRAMS = ("asd-agent", "asd-train", "asd-export")
_BEGINS = re.compile(rf"(?:sudo )?(?:/opt/asd-agent/bin/)?({'|'.join(PROGRAMS)}) (.+)", re.DOTALL)
_SYNOPSIS = re.compile(r"\[|\||\.\.\.|…")
_BLOCK = re.compile(r"^([ \t]*)```[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Documented:
    """One command: where it is printed, its program and its words."""

    place: str
    program: str
    text: str

    @property
    def synopsis(self) -> bool:
        """It stands for several commands: "alarms list|ack", "[--json]", "PATH..."."""
        return bool(_SYNOPSIS.search(self.text))

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text, comments=True)

    def __str__(self) -> str:
        return f"{self.place}: {self.program} {self.text}"


def pages() -> list[Path]:
    return [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]


def documented(page: Path) -> list[Documented]:
    """In the order of the page, each once."""
    text = page.read_text(encoding="utf-8")
    found: list[Documented] = []
    for part in [*_lines(text), *_inline(_BLOCK.sub("", text))]:
        if match := _BEGINS.fullmatch(part):
            words = match[2].partition("  #")[0].split(" && ")[0].rstrip(" .&")
            command = Documented(str(page.relative_to(REPOSITORY)), match[1], words)
            if command not in found:
                found.append(command)
    return found


def _lines(text: str) -> list[str]:
    """Of code blocks, fenced or indented, without what begins no command; continued lines are joined."""
    fenced = "\n".join(match[2] for match in _BLOCK.finditer(text))
    indented = "\n".join(line for line in text.splitlines() if line.startswith("    "))
    lines = re.sub(r"\\\n\s*", "", fenced + "\n" + indented).splitlines()
    return [re.sub(r"^\$ ", "", line.strip()) for line in lines]


def _inline(text: str) -> list[str]:
    return [" ".join(span.split()) for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", text)]


def deepest(parser: argparse.ArgumentParser, words: list[str]) -> tuple[argparse.ArgumentParser, list[str]]:
    """The parser of the command that the words begin with, and the words after it."""
    while words:
        choices = next((a.choices for a in parser._actions if isinstance(a, argparse._SubParsersAction)), None)
        if choices is None or words[0] not in choices:
            break
        parser, words = choices[words[0]], words[1:]
    return parser, words
