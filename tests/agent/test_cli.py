from __future__ import annotations

import subprocess
import sys

import pytest

from asd_agent.cli import duration, main, parser


def test_importing_the_command_loads_nothing_heavy():
    code = (
        "import sys, asd_agent.cli; "
        "heavy = {'torch', 'scipy.signal', 'scipy', 'numpy', 'onnxruntime', 'paho', 'soundfile', 'rich', 'yaml'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def commands() -> list[list[str]]:
    top = parser()
    found = [[]]
    for action in top._actions:
        for name, sub in (getattr(action, "choices", None) or {}).items():
            found.append([name])
            for inner in sub._actions:
                if inner.dest == "action":
                    found += [[name, deeper] for deeper in inner.choices]
    return found


@pytest.mark.parametrize("command", commands(), ids=lambda c: " ".join(c) or "top")
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([*command, "--help"])
    assert end.value.code == 0
    assert "usage: asd-agent" in capsys.readouterr().out


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("10m", 600), ("1.5h", 5400), ("2d", 172800)])
def test_durations(text, seconds):
    assert duration(text) == seconds


@pytest.mark.parametrize(
    "arguments", [["calibrate"], ["nonsense"], ["calibrate", "-c", "x", "m", "--duration", "soon"]]
)
def test_usage_errors_exit_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2


@pytest.mark.parametrize("command", [["run"], ["status"], ["doctor"], ["baseline", "list"], ["alarms", "list"]])
def test_a_missing_configuration_is_one_line_and_2(command, tmp_path, capsys):
    missing = tmp_path / "agent.yaml"
    assert main([*command, "-c", str(missing)]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert str(missing) in lines[0]
