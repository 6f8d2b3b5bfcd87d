"""`asd-agent whatif`: with the settings that ran, the alarms that were; with others, others; a mistake is one line."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
import soundfile
import yaml

from asd_agent import config
from asd_agent.baseline import Baseline, BaselineStore
from asd_agent.cli import main
from asd_agent.scoring.pipeline import Pipeline, Reported
from asd_agent.service.reported import ReportedValues
from asd_agent.store import Reader, Store
from asd_agent.types import Cause, Level
from asd_agent.whatif import Answer, what_if
from listening import FAULT, RATE, calibrated, listening, sound

MACHINE = config.Machine(
    id="pump-1",
    source=config.SimulatedSource(),
    window_s=1.0,
    hop_s=0.5,
    alarm=config.Alarm(transient_repeats=2, window_votes="3/5"),
)


@pytest.fixture(scope="module")
def baseline() -> Baseline:
    return calibrated(MACHINE, sound(40))


@pytest.fixture(scope="module")
def heard(baseline: Baseline, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A state directory: faults, a restart in the middle of an alarm, a dead microphone, a fault while shelved."""
    folder = tmp_path_factory.mktemp("heard")
    with listening(folder, MACHINE, baseline, time.time() - 600.0) as item:
        item.hear(sound(6, seed=1))
        item.hear(sound(4, FAULT, seed=2))
        item.hear(sound(6, seed=3))
        item.hear(sound(0.6, FAULT, seed=4))  # too short for an alarm
        item.hear(sound(4, seed=5))
        item.hear(sound(4, FAULT, seed=6))
        item.restart()  # while the alarm stands
        item.wait(20.0)
        item.hear(sound(3, FAULT, seed=6) * 0)  # the microphone is dead
        item.hear(sound(6, seed=7))
        item.monitor.alarm.shelve(time.time() + 3600, "eva", "painting")
        item.utc_s = time.time() + 1.0  # people live by the clock, this sound has been faster
        item.hear(sound(4, FAULT, seed=8))
        item.hear(sound(6, seed=9))
        item.store.flush()
        yield folder


def asked(folder: Path, screened: bool = True, since_s: float = 3600.0, **alarm: object) -> Answer:
    machine = msgspec.structs.replace(MACHINE, alarm=msgspec.structs.replace(MACHINE.alarm, **alarm))
    baselines = BaselineStore(folder, machine.id)
    return what_if(Reader(folder), baselines, machine, time.time() - since_s, screened=screened)


@pytest.mark.parametrize("screened", [False, True])
def test_the_settings_that_ran_give_the_alarms_that_were(heard: Path, screened: bool) -> None:
    answer = asked(heard, screened)
    told = [e.announced for e in answer.then]
    assert told[:2] == [True, True]
    assert told[-1] is False
    assert answer.then[0].level is Level.DANGER
    assert [without_words(e) for e in answer.now] == [without_words(e) for e in answer.then]
    assert answer.judged < answer.windows  # the dead microphone
    assert not answer.lost


@pytest.mark.parametrize("seed", range(3))
def test_reported_states_and_nuisance_sounds_give_the_alarms_that_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Windows at a reported change of state neither vote nor break a row of votes; recognised sounds do not vote."""
    machine = msgspec.structs.replace(MACHINE, operating=config.Operating(topic="plc/state"))
    plain = calibrated(machine, sound(40))
    states = [msgspec.structs.replace(state, name="idle") for state in plain.manifest.states]
    manifest = msgspec.structs.replace(plain.manifest, states=states, states_reported=True)
    arrays = {f"idle/{key.partition('/')[2]}": value for key, value in plain.arrays.items()}
    baseline = msgspec.structs.replace(plain, manifest=manifest, arrays=arrays)
    rng = np.random.default_rng(seed)
    now = {"reported": Reported(), "nuisance": ""}
    monkeypatch.setattr(ReportedValues, "of", lambda self, window: now["reported"])
    monkeypatch.setattr(Pipeline, "_nuisance", lambda self, description, operating: now["nuisance"])
    kinds = {
        "normal": Reported(operating="idle"), "changing": Reported(changing=True),
        "unknown": Reported(operating="purging"), "unreported": Reported(),
    }  # fmt: skip
    with listening(tmp_path, machine, baseline, time.time() - 900.0) as item:
        for piece in range(24):
            now["reported"] = kinds[rng.choice(list(kinds), p=[0.5, 0.3, 0.1, 0.1])]
            now["nuisance"] = "Dog (z 7)" if rng.random() < 0.2 else ""
            faults = [FAULT] if rng.random() < 0.5 else []
            item.hear(sound(float(rng.choice([0.5, 1.0, 2.5])), *faults, seed=100 * seed + piece))
            if piece == 12:
                item.restart()
                item.wait(5.0)
        now["reported"], now["nuisance"] = kinds["normal"], ""
        item.hear(sound(4, FAULT, seed=98))
        item.hear(sound(5, seed=99))
        item.store.flush()
        answers = [what_if(item.store, item.monitor.baselines, machine, 0.0, screened=way) for way in (False, True)]
    for answer in answers:
        assert [without_words(e) for e in answer.now] == [without_words(e) for e in answer.then]
    assert answers[0].then
    with Reader(tmp_path) as reader:
        causes = {part.words[cause] for part in reader.history("pump-1") for cause in part.cause}
    assert {Cause.STATE_CHANGING, Cause.STATE_UNKNOWN} <= causes


def without_words(episode: msgspec.Struct) -> dict[str, object]:
    """The reason names no detector when it is made from the store; ids hold the exact time."""
    found = msgspec.to_builtins(episode)
    for name in ("reason", "alarm_id"):
        found.pop(name)
    return {k: round(v, 3) if isinstance(v, float) else v for k, v in found.items()}


def test_a_real_motor_with_a_damaged_propeller(shared_dir: Path, tmp_path: Path) -> None:
    def motor(kind: str) -> np.ndarray:
        paths = sorted((shared_dir / "data" / "bldc_m1" / kind).glob("*.flac"))[:3]
        parts = [soundfile.read(path, dtype="float32", always_2d=True)[0][:, :1] for path in paths]
        return np.concatenate([0.05 * part / part.std() for part in parts])  # the fault is louder too

    machine = msgspec.structs.replace(MACHINE, mechanism=None)
    healthy = motor("healthy")
    with listening(tmp_path, machine, calibrated(machine, healthy), time.time() - 600.0) as item:
        for samples in (healthy[: 8 * RATE], motor("propeller"), healthy[-10 * RATE :]):
            item.hear(samples)
        item.store.flush()
        answer = what_if(item.store, item.monitor.baselines, machine, 0.0)
    assert [without_words(e) for e in answer.now] == [without_words(e) for e in answer.then]
    assert answer.then  # not far beyond its limits: what is stored must be what decided


def test_other_settings_give_other_alarms(heard: Path) -> None:
    usual = asked(heard)
    strict = asked(heard, window_votes="12/12")
    assert len(strict.now) < len(usual.now)
    assert strict.then == usual.then
    eager = asked(heard, window_votes="1/1", false_alarms_per_month=30.0)
    assert eager.score is not None
    assert usual.score is not None
    assert eager.score < usual.score
    assert eager.now[0].raised_utc_s < usual.now[0].raised_utc_s


def test_an_alarm_that_began_before_is_seen_whole(heard: Path) -> None:
    usual = asked(heard)
    first = usual.then[0]
    assert first.cleared_utc_s is not None
    middle_s = time.time() - (first.raised_utc_s + first.cleared_utc_s) / 2
    later = asked(heard, since_s=middle_s)
    assert later.first_utc_s > first.raised_utc_s
    assert without_words(later.now[0]) == without_words(first)


def test_a_baseline_that_is_gone_is_said(heard: Path, tmp_path: Path) -> None:
    answer = what_if(Reader(heard), BaselineStore(tmp_path, "pump-1"), MACHINE, 0.0)
    assert list(answer.lost.values()) == [answer.windows]
    assert not answer.now


# -- the command


@pytest.fixture
def agent_yaml(heard: Path, tmp_path: Path) -> str:
    return write_config(tmp_path, heard)


def write_config(folder: Path, state_dir: Path) -> str:
    path = folder / "agent.yaml"
    machine = {
        "id": "pump-1", "source": {"kind": "simulated"}, "window_s": 1.0, "hop_s": 0.5,
        "alarm": {"transient_repeats": 2, "window_votes": "3/5"},
    }  # fmt: skip
    idle = {"id": "idle", "source": {"kind": "simulated"}}
    settings = {"agent": {"id": "a", "state_dir": str(state_dir)}, "machines": [machine, idle]}
    path.write_text(yaml.safe_dump(settings))
    return str(path)


def test_the_command_shows_both(agent_yaml: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["whatif", "-c", agent_yaml, "pump-1"]) == 0
    same = capsys.readouterr().out
    assert same.count("the same") >= 3
    assert "danger *" in same
    assert "with the settings of the configuration" in same
    assert main(["whatif", "-c", agent_yaml, "pump-1", "--votes", "12/12", "--budget", "0.5"]) == 0
    other = capsys.readouterr().out
    assert "with votes 12/12 instead of " in other
    assert "budget 0.5 instead of 1;" in other
    assert "then: " in other
    assert main(["whatif", "-c", agent_yaml, "pump-1", "--json", "--since", "1h"]) == 0
    data = msgspec.json.decode(capsys.readouterr().out)
    assert len(data["then"]) == len(data["now"]) > 0


@pytest.mark.parametrize(
    ("options", "words", "code"),
    [
        (["nobody"], "there is no machine 'nobody' (there are: pump-1, idle)", 2),
        (["idle"], "idle: no scores since then", 1),
        (["pump-1", "--votes", "7/3"], "--votes 7/3: window_votes: '7/3' is not of the form k/n", 2),
        (["pump-1", "--votes", "many"], "--votes many", 2),
        (["pump-1", "--clear-votes", "0/2"], "--clear-votes 0/2", 2),
        (["pump-1", "--budget", "-1"], "--budget -1.0: Expected `float` > 0", 2),
        (["pump-1", "--deadband", "7"], "--deadband 7.0: Expected `float` <= 1", 2),
        (["pump-1", "--transient-repeats", "1"], "--transient-repeats 1: Expected `int` >= 2", 2),
        (["pump-1", "--since", "monday"], "'monday' is not a duration", 2),
        (["pump-1", "--budget", "lots"], "argument --budget: invalid float value", 2),
    ],
)
def test_a_mistake_is_one_line(
    agent_yaml: str, options: list[str], words: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        found = main(["whatif", "-c", agent_yaml, *options])
    except SystemExit as exc:  # argparse
        found = int(exc.code or 0)
    assert found == code
    assert words in capsys.readouterr().err


def test_without_a_database_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["whatif", "-c", write_config(tmp_path, tmp_path / "nothing"), "pump-1"]) == 1
    assert "no database yet" in capsys.readouterr().err
    with Store(tmp_path / "nothing"):
        pass
    assert main(["whatif", "-c", write_config(tmp_path, tmp_path / "nothing"), "pump-1"]) == 1
    assert "no scores since then" in capsys.readouterr().err
