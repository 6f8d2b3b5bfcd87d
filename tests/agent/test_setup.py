"""From answers to a configuration, and what `asd-agent init` installs."""

from __future__ import annotations

import json
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import get_args

import msgspec
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_agent import config
from asd_agent.cli import main, parser
from asd_agent.errors import AsdError, ConfigError, SourceError
from asd_agent.setup import Answers, Places, configuration, install
from asd_agent.setup.example import example, keys
from asd_agent.setup.install import unit
from asd_agent.setup.meter import Level, levels, of

REPOSITORY = Path(__file__).resolve().parents[2]


def test_the_answers_become_a_configuration_that_says_the_same():
    answers = Answers(
        agent="hall-1", machine="compressor-1", source="usb-id:0d8c:0014", channel=1, broker="mqtts://broker:8883",
        username="hall-1", rpm=1494, mains_hz=50, bearings=("DE=6205", "6204"), gears=(23,),
    )  # fmt: skip
    made = config.parse(configuration(answers), "agent.yaml")
    machine = made.machines[0]
    assert (made.agent.id, machine.id) == ("hall-1", "compressor-1")
    assert machine.source == config.MicrophoneSource(device="usb-id:0d8c:0014", channel=1)
    assert made.mqtt is not None
    assert (made.mqtt.url, made.mqtt.username) == ("mqtts://broker:8883", "hall-1")
    assert machine.mechanism is not None
    assert machine.mechanism.shaft_hz == pytest.approx(24.9)
    assert [(b.name, b.type) for b in machine.mechanism.bearings] == [("DE", "6205"), ("bearing 2", "6204")]
    assert [g.teeth for g in machine.mechanism.gears] == [23]


word = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF), min_size=1, max_size=30)


@settings(max_examples=60)
@given(source=word, username=word, state_dir=word)
def test_whatever_is_answered_is_kept_as_it_is_or_refused_in_one_line(source, username, state_dir):
    answers = Answers(agent="a", source=source, broker="broker", username=username, state_dir=state_dir)
    try:
        made = config.parse(configuration(answers), "agent.yaml")
    except AsdError as exc:
        said = str(exc)
    else:
        said = ""
    assert "\n" not in said
    if said:
        return
    assert made.agent.state_dir == state_dir
    assert made.mqtt is not None
    assert made.mqtt.username == username


@pytest.mark.parametrize(
    ("answers", "key"),
    [
        (Answers(machine="two words"), "machines[0].id"),
        (Answers(bearings=("DE=0815",)), "0815"),
        (Answers(broker="http://broker"), "mqtt.url"),
    ],
)
def test_an_impossible_answer_names_its_key(answers, key):
    with pytest.raises(ConfigError, match=re.escape(key)):
        configuration(answers)


def test_the_example_is_complete_valid_and_current():
    text = example()
    made = config.parse(text, "example.yaml")
    assert made.machines[0].alarm == config.Alarm()
    for struct, key in keys(config.Config):
        assert re.search(rf"^[ #-]*{key}:", text, re.MULTILINE), f"{struct}.{key} is missing"
    stored = (REPOSITORY / "configs" / "agent" / "example.yaml").read_text()
    assert stored == text, "run `make generated`"


def test_every_kind_of_source_in_the_example_is_valid_when_it_is_switched_on():
    lines = [re.sub(r"^( *)# ", r"\1", line) for line in example().splitlines()]
    starts = [i for i, line in enumerate(lines) if line.startswith("      kind: ")]
    kinds = []
    for start in starts:
        end = next(i for i in range(start, len(lines)) if not lines[i].startswith("      "))
        text = "\n".join(line for line in lines[start:end] if re.match(r" +(- )?\w+:", line))
        made = msgspec.convert(yaml.safe_load(text.replace("kind: name", "kind: bearing")), config.Source)
        kinds.append(type(made))
    assert sorted(k.__name__ for k in kinds) == sorted(k.__name__ for k in get_args(config.Source))


def test_init_writes_what_runs_and_says_the_next_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    flags = ["--yes", "--source", "simulated", "--machine", "motor", "--rpm", "1494", "--bearing", "DE=6205"]
    assert main(["init", "-o", "agent.yaml", *flags]) == 0
    said = capsys.readouterr().out
    assert "asd-agent calibrate motor --duration 10m --promote" in said
    assert config.load("agent.yaml").machines[0].source == config.SimulatedSource()
    assert main(["init", "-o", "agent.yaml", *flags]) == 2  # nothing is overwritten
    assert "exists already" in capsys.readouterr().err
    assert main(["init", "-o", "b.yaml", "--json", *flags]) == 0
    assert json.loads(capsys.readouterr().out)["configuration"] == "b.yaml"


def test_init_asks_only_what_it_cannot_know(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    asked = []
    answers = {"user name": "", "broker": "broker", "machine": "motor", "speed": "1494", "bearings": "DE=6205"}

    def answer(question: str) -> str:
        asked.append(question)
        return next(value for key, value in answers.items() if key in question)

    monkeypatch.setattr("builtins.input", answer)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("asd_agent.capture.devices.list_devices", list)
    assert main(["init", "-o", "agent.yaml"]) == 0
    made = config.load("agent.yaml")
    assert made.mqtt == config.Mqtt(url="mqtt://broker")
    assert made.machines[0].mechanism is not None
    assert len(asked) == 5
    assert "simulated machine" in capsys.readouterr().out  # there is no sound card


def test_installing_writes_three_files_and_keeps_the_old_one(tmp_path):
    places = Places(tmp_path)
    text = configuration(Answers(source="simulated", broker="broker", username="u"))
    done = install(text, "secret", places, start=False)
    assert len(done) == 3
    assert config.load(places.configuration).mqtt is not None
    assert places.credential.read_text() == "secret\n"
    assert stat.S_IMODE(places.credential.stat().st_mode) == 0o600
    assert "secret" not in places.configuration.read_text()
    assert "ExecStart=" in places.unit.read_text()
    install(text + "# new\n", None, places, start=False)
    assert places.configuration.with_suffix(".yaml.old").read_text() == text


def test_the_unit_of_a_package_is_left_alone(tmp_path):
    places = Places(tmp_path)
    packaged = places.packaged_units[0]
    packaged.parent.mkdir(parents=True)
    packaged.write_text("[Unit]\n")
    install(configuration(Answers(source="simulated")), None, places, start=False)
    assert not places.unit.exists()


def test_the_unit_starts_this_installation():
    assert "ExecStart=/usr/local/bin/asd-agent run -c /etc/asd-agent/agent.yaml" in unit("/usr/local/bin/asd-agent")


def test_the_meter_hears_the_source_and_advises():
    heard = list(levels(config.SimulatedSource(pace="fast", duration_s=2.0), 5.0))
    assert heard
    assert all(-40 < level.rms_dbfs < -10 for level in heard)
    assert of(np.zeros(100, np.float32)).advice.startswith("silent")
    assert of(np.ones(100, np.float32)).advice.startswith("too loud")
    assert Level(-70.0, -60.0, False).advice.startswith("quiet")
    assert not of(0.1 * np.sin(np.arange(1000)).astype(np.float32)).advice
    with pytest.raises(SourceError, match="channel 3 wanted"):
        list(levels(config.SimulatedSource(pace="fast", duration_s=2.0, channel=3), 1.0))


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completions_know_every_command(shell, capsys):
    assert main(["init", "--completion", shell]) == 0
    script = capsys.readouterr().out
    names = next(a.choices for a in parser()._actions if a.dest == "command")
    assert all(name in script for name in names)


def test_the_completion_for_bash_is_a_script_bash_takes(tmp_path):
    script = subprocess.run(
        [sys.executable, "-m", "asd_agent", "init", "--completion", "bash"], capture_output=True, check=True
    ).stdout
    subprocess.run(["bash", "-n"], input=script, check=True)
