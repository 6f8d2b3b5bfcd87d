"""The man page from the parser of the command line: manpage.py VERSION > asd-agent.1"""

from __future__ import annotations

import argparse
import sys

from asd_agent import cli


def escaped(text: str) -> str:
    return text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").lstrip(".")


def options(parser: argparse.ArgumentParser) -> list[str]:
    """Arguments of one command as .TP paragraphs."""
    lines = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction) or action.help == argparse.SUPPRESS:
            continue
        names = ", ".join(action.option_strings) or str(action.metavar or action.dest)
        shown = f" {action.metavar or action.dest.upper()}" if action.option_strings and action.nargs != 0 else ""
        lines += [".TP", f"\\fB{escaped(names)}\\fR{escaped(shown)}", escaped((action.help or "").replace("%%", "%"))]
    return lines


def commands(parser: argparse.ArgumentParser, name: str) -> list[str]:
    """Every command below `parser`, with its arguments."""
    lines = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, sub in action.choices.items():
                lines += [".SS", f"{escaped(f'{name} {word}')}", escaped(sub.description or ""), *options(sub)]
                lines += commands(sub, f"{name} {word}")
    return lines


def page(version: str) -> str:
    parser = cli.parser()
    lines = [
        f'.TH ASD\\-AGENT 1 "" "asd\\-agent {escaped(version)}" "User Commands"',
        ".SH NAME",
        "asd\\-agent \\- listens to a machine and says over MQTT when its sound changes",
        ".SH SYNOPSIS",
        ".B asd\\-agent",
        "COMMAND [OPTIONS]",
        ".SH DESCRIPTION",
        escaped(parser.description or ""),
        ".SH COMMANDS",
        *commands(parser, "asd-agent"),
        ".SH FILES",
        ".TP",
        "/etc/asd\\-agent/agent.yaml",
        "The configuration; every key is in /usr/share/doc/asd\\-agent/agent.yaml.example.",
        ".TP",
        "/etc/credstore/mqtt\\-password",
        "The broker\\(aqs password, a systemd credential.",
        ".TP",
        "/var/lib/asd\\-agent",
        "Baselines, scores, alarms and their clips.",
        ".SH EXIT STATUS",
        "0; 2 for usage and configuration errors; 1 otherwise.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(page(sys.argv[1]))
