"""Every command that README and docs print: its parser takes it as printed, and it runs as printed on a real site."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from daemons import Site, Template, machine
from mosquitto import wait_for

import asd_agent.cli
import asd_export.cli
import asd_train.cli
from documented import Documented, deepest, documented, pages

COMMANDS = [command for page in pages() for command in documented(page)]
PARSERS = {
    "asd-agent": asd_agent.cli.parser,
    "asd-train": asd_train.cli._parser,
    "asd-export": asd_export.cli._parser,
}
# Commands of asd-agent that are not run here as printed, and why.
LISTED = {
    "run": "the daemon of this test is started by it",
    "demo": "test_demo.py runs it",
    "init": "asks a person, or writes to /etc; test_init.py runs it",
    "web": "serves until it is stopped; the tests of the page run it",
    "archive": "needs an archive; tests/agent/test_archive.py and tests/system/test_archive.py run it",
    "fleet": "needs a broker and several agents; tests/system/test_fleet.py runs it",
    "doctor": "the broker in the examples does not exist; tests/agent/test_bad_input.py runs it",
    "embed": "writes what is named; tests/agent/test_encoder.py runs it",
    "baseline extend": "needs an unknown state; tests/agent/test_states.py runs it",
    "baseline rename": "needs the state that the example names; tests/agent/test_states.py runs it",
    "baseline promote": "needs a candidate; tests/agent/test_calibration_workflow.py runs it",
    "baseline rollback": "needs a previous baseline; tests/agent/test_calibration_workflow.py runs it",
    "baseline compare": "needs a candidate that ran in shadow; tests/agent/test_shadow.py runs it",
    "calibrate --extend": "needs recordings of another state; tests/agent/test_states.py runs it",
    "calibrate --shadow": "needs a second bundle; tests/agent/test_shadow.py runs it",
    "calibrate --exclude": "needs a calibration with outliers; tests/agent/test_calibration_workflow.py runs it",
}


def runnable(command: Documented) -> bool:
    parser, rest = deepest(asd_agent.cli.parser(), command.words)
    name = parser.prog.removeprefix("asd-agent").strip()
    listed = [key.split(" ") for key in LISTED]
    words = name.split() + [word for word in rest if word.startswith("--")]
    return bool(rest or name in ("status", "devices", "bench")) and not any(
        all(any(word.startswith(part) for word in words) for part in key) for key in listed
    )


RUN = [c for c in COMMANDS if c.program == "asd-agent" and not c.synopsis and runnable(c)]


def test_there_are_commands_in_the_documents():
    assert len(COMMANDS) > 20
    assert len(RUN) >= 5


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_its_parser_takes_it(command, capsys):
    top = PARSERS[command.program]()
    if command.synopsis:
        check_synopsis(top, command.text)
        return
    parser, rest = deepest(top, command.words)
    assert parser is not top, f"there is no command {command.words[0]}"
    if not rest:
        return  # the name of a command in a sentence
    try:
        top.parse_args(command.words)
    except SystemExit:
        pytest.fail(capsys.readouterr().err)


def check_synopsis(top, text: str) -> None:
    """ "alarms list|ack MACHINE [--json]": each alternative is a command, each option one of theirs."""
    words = re.sub(r"\s*\|\s*", "|", text).split()
    parsers = [top]
    for word in words:
        found = [deepest(parser, [name]) for parser in parsers for name in word.split("|")]
        if not all(not rest for _, rest in found):
            break
        parsers = [parser for parser, _ in found]
    assert parsers != [top], f"there is no command {words[0]}"
    known = {option for parser in parsers for action in parser._actions for option in action.option_strings}
    assert set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", text)) <= known


@pytest.fixture(scope="module")
def hall(tmp_path_factory: pytest.TempPathFactory, template: Template) -> Iterator[Site]:
    """The site of the documents: agent hall-1, machine compressor-1, a running daemon, one alarm with its clip."""
    site = Site(tmp_path_factory.mktemp("hall"), template)
    mechanism = {"shaft_hz": 24.9, "bearings": [{"name": "DE", "type": "6205"}]}
    site.configure(
        machine(site.folder, "compressor-1", mechanism=mechanism, alarm={"window_votes": "2/3"}),
        agent={"id": "hall-1", "evidence": {"before_s": 3, "after_s": 1}},
    )
    shutil.copy(template.folder / "normal.wav", site.folder / "rec.wav")
    site.start()
    site.cli("calibrate", "compressor-1", "--from", site.folder / "rec.wav", "--promote")
    site.until("compressor-1", state="normal")
    site.play("faulty")
    wait_for(lambda: any(event.evidence for event in site.events()), "an alarm with a clip", 60.0)
    site.play("normal")
    wait_for(lambda: list((site.state_dir / "evidence").rglob("*.png")), "the clip and its picture", 60.0)
    yield site
    site.close()


def raise_again(site: Site) -> None:
    """What is acknowledged has to be there, and not acknowledged yet."""
    site.play("normal")
    wait_for(lambda: site.status("compressor-1")["alarm"]["level"] == "normal", "the last alarm has gone", 60.0)
    site.play("faulty")
    wait_for(lambda: site.status("compressor-1")["alarm"]["level"] in ("alert", "danger"), "an alarm", 60.0)


def as_printed(command: Documented, site: Site) -> list[str]:
    """Its words; names that stand for something, and durations of a calibration, are those of the site."""
    event = next(event.id for event in site.events() if event.evidence)
    stands_for = {
        "/etc/asd-agent/agent.yaml": str(site.path), "EVENT": event, "85724fd0": event, "PATH": "rec.wav",
        "recordings/": "rec.wav", "recordings": "rec.wav", "30m": "10s", "1h": "10s", "60m": "10s",
        "MACHINE": "compressor-1",
    }  # fmt: skip
    return [stands_for.get(word, word) for word in command.words]


@pytest.mark.system
@pytest.mark.parametrize("command", RUN, ids=str)
def test_it_runs(command, hall):
    if command.words[:2] == ["alarms", "ack"]:
        raise_again(hall)
    words = [sys.executable, "-m", "asd_agent", *as_printed(command, hall)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    child = subprocess.Popen(
        words, cwd=hall.folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    if "--watch" in words:  # goes on until somebody stops it
        assert child.stdout is not None
        shown = child.stdout.readline()
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=30)
        assert shown
        assert child.returncode == 130
        return
    said, errors = child.communicate(timeout=120)
    nothing_here = command.words[0] == "devices" and "no sound device" in said
    assert child.returncode == 0 or nothing_here, errors or said
    assert "Traceback" not in errors


def test_what_is_listed_as_not_run_are_commands():
    for key in LISTED:
        parser, _ = deepest(asd_agent.cli.parser(), key.split()[:1])
        assert parser.prog != "asd-agent" or key in ("init", "web", "archive"), key
