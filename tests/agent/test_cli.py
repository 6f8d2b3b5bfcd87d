from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from asd_agent import config
from asd_agent.cli import main, parser
from asd_agent.cli.options import duration
from asd_agent.config import locate


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


CONFIG = "agent: {id: %s, state_dir: state}\nmachines: [{id: m, source: {kind: stdin, rate_hz: 16000}}]\n"


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Nobody names a configuration, and none lies where one is looked for; the folder of the system's one."""
    monkeypatch.delenv("ASD_AGENT_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        sys.modules["asd_agent.config.load"], "PLACES", (Path("agent.yaml"), tmp_path / "etc" / "agent.yaml")
    )
    (tmp_path / "etc").mkdir()
    return tmp_path


def test_a_configuration_is_looked_for_in_the_order_of_the_documentation(places, monkeypatch):
    (places / "etc" / "agent.yaml").write_text(CONFIG % "system")
    assert config.load(locate()).agent.id == "system"
    (places / "agent.yaml").write_text(CONFIG % "here")
    assert config.load(locate()).agent.id == "here"
    (places / "named.yaml").write_text(CONFIG % "named")
    monkeypatch.setenv("ASD_AGENT_CONFIG", str(places / "named.yaml"))
    assert config.load(locate()).agent.id == "named"
    assert config.load(locate("agent.yaml")).agent.id == "here"


def test_a_named_configuration_that_is_missing_is_not_replaced_by_another(places, monkeypatch, capsys):
    (places / "agent.yaml").write_text(CONFIG % "here")
    monkeypatch.setenv("ASD_AGENT_CONFIG", "elsewhere.yaml")
    assert main(["alarms", "list"]) == 2
    assert "elsewhere.yaml" in capsys.readouterr().err


def test_without_any_configuration_one_line_names_what_was_tried(places, capsys):
    assert main(["status"]) == 2
    said = capsys.readouterr().err.strip()
    assert said.count("\n") == 0
    for tried in ("-c", "$ASD_AGENT_CONFIG", str(places / "agent.yaml"), str(places / "etc" / "agent.yaml")):
        assert tried in said


def test_every_command_that_takes_a_configuration_runs_without_the_option(places, capsys):
    (places / "agent.yaml").write_text(CONFIG % "here")
    assert main(["baseline", "list"]) == 0
    assert "no baseline yet" in capsys.readouterr().out


PRINTS_NO_TABLE = {("run",): "its log is JSON wherever it is no terminal", ("schema",): "it prints JSON anyway"}


def _options(command: list[str]) -> set[str]:
    """Of a command, or of an action of it."""
    found = parser(command[0])
    for word in command:
        (choices,) = (
            a.choices for a in found._actions if getattr(a, "choices", None) and a.dest in ("command", "action")
        )
        found = choices[word]
    return {option for action in found._actions for option in action.option_strings}


@pytest.mark.parametrize(
    "command",
    [c for c in commands() if c and not (len(c) == 1 and any(o[:1] == c and len(o) == 2 for o in commands()))],
    ids=" ".join,
)
def test_every_command_that_prints_can_print_json(command):
    assert ("--json" in _options(command)) != (tuple(command) in PRINTS_NO_TABLE)
