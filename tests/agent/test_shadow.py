"""A candidate in shadow: judged and recorded, never published, never in the way of the active baseline."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
import soundfile
import yaml

from asd_agent import config
from asd_agent.baseline import Baseline, BaselineStore
from asd_agent.calibration.workflow import CalibrationOptions
from asd_agent.cli import main
from asd_agent.cli.status import shadow_words
from asd_agent.errors import CalibrationError, StoreError, UsageError
from asd_agent.service.commands import Commands
from asd_agent.service.machine import Machine
from asd_agent.service.status import ShadowStatus
from asd_agent.store import Reader
from asd_agent.store.records import shadow_name
from asd_agent.types import EventKind, Level, State
from asd_agent.whatif.compare import compare
from listening import FAULT, RATE, Listening, calibrated, listening, sound, status_of

MACHINE = config.Machine(id="pump-1", source=config.SimulatedSource(), window_s=1.0, hop_s=0.5)
CANDIDATE = "20260202T000000Z"
NAME = shadow_name("pump-1", CANDIDATE)


@pytest.fixture(scope="module")
def baseline() -> Baseline:
    return calibrated(MACHINE, sound(30))


@pytest.fixture(scope="module")
def tolerant() -> Baseline:
    """A candidate that has learnt the fault as a way to sound."""
    return calibrated(MACHINE, np.concatenate([sound(20), sound(20, FAULT, seed=2)]), CANDIDATE)


@pytest.fixture
def item(baseline: Baseline, tmp_path: Path) -> Iterator[Listening]:
    with listening(tmp_path, MACHINE, baseline, time.time() - 600.0) as found:
        yield found


def propose(item: Listening, candidate: Baseline, version: str = CANDIDATE) -> None:
    manifest = msgspec.structs.replace(candidate.manifest, version=version)
    item.monitor.baselines.write(msgspec.structs.replace(candidate, manifest=manifest))


def shadow_of(monitor: Machine) -> Any:
    return status_of(monitor).shadow


def test_a_candidate_is_recorded_and_not_published(item: Listening, baseline: Baseline) -> None:
    item.hear(sound(3, seed=1))
    assert status_of(item.monitor).shadow is None
    propose(item, baseline)
    item.hear(sound(3, seed=3))
    item.hear(sound(4, FAULT, seed=2))
    own, other = item.store.events(machine="pump-1"), item.store.events(machine=NAME)
    assert [e.kind for e in other][-1] is EventKind.RAISED
    assert {e.baseline for e in other} == {CANDIDATE}
    assert item.store.events() == own  # a list of alarms holds none of a shadow
    assert not {e.id for e in own} & {e.id for e in other}
    assert item.store.outbox.depth() == 0
    rows = item.store.scores(NAME)
    assert {row.baseline for row in rows} == {CANDIDATE}
    assert State.ANOMALOUS in {row.state for row in rows}
    same = {row.utc_s: row.score for row in item.store.scores("pump-1")}
    assert all(same[row.utc_s] == row.score for row in rows)  # the same baseline says the same
    status = shadow_of(item.monitor)
    assert (status.baseline, status.level, status.trouble) == (CANDIDATE, "danger", "")
    assert shadow_words(status) == f"; in shadow {CANDIDATE}, danger"


def test_the_shadow_never_changes_what_the_active_baseline_says(
    baseline: Baseline, tolerant: Baseline, tmp_path: Path
) -> None:
    heard = [sound(4, seed=1), sound(4, FAULT, seed=2), sound(6, seed=3)]
    kept = []
    for name, candidate in (("alone", None), ("beside", tolerant)):
        with listening(tmp_path / name, MACHINE, baseline, 1.7e9) as item:
            if candidate is not None:
                propose(item, candidate)
            for samples in heard:
                item.hear(samples)
            events = [(e.id, e.kind, e.utc_s, e.reason) for e in item.store.events(machine="pump-1")]
            kept.append((item.store.scores("pump-1"), events))
    assert kept[0] == kept[1]


def test_it_goes_on_after_a_restart(item: Listening, baseline: Baseline) -> None:
    propose(item, baseline)
    item.hear(sound(3, seed=1))
    item.hear(sound(4, FAULT, seed=2))
    raised = item.store.states()[NAME]
    assert raised.level is Level.DANGER
    item.restart()
    assert shadow_of(item.monitor).level == "danger"
    item.hear(sound(6, seed=3))
    kinds = [e.kind for e in item.store.events(machine=NAME)]
    assert kinds.count(EventKind.RAISED) == kinds.count(EventKind.CLEARED) == 1
    assert item.store.states()[NAME].sequence == len(kinds) > raised.sequence - 1


def test_promoting_ends_the_shadow_and_another_candidate_begins_anew(item: Listening, baseline: Baseline) -> None:
    propose(item, baseline)
    item.hear(sound(4, FAULT, seed=2))
    item.monitor.active.promote(None)
    item.hear(sound(2, seed=1))
    assert status_of(item.monitor).shadow is None
    before = len(item.store.scores(NAME))
    propose(item, baseline, "20260303T000000Z")
    item.hear(sound(2, seed=3))
    assert shadow_of(item.monitor) == ShadowStatus(
        baseline="20260303T000000Z", windows_scored=4, level=Level.NORMAL, trouble=""
    )
    assert len(item.store.scores(NAME)) == before


@pytest.mark.parametrize("how", ["another bundle", "damaged", "broken"])
def test_a_candidate_that_cannot_be_used_is_said_and_nothing_else(
    item: Listening, baseline: Baseline, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    propose(item, baseline)
    folder = item.monitor.baselines.folder / "baselines" / CANDIDATE
    if how == "damaged":
        (folder / "arrays.npz").write_bytes(b"nonsense")
    elif how == "another bundle":
        manifest = msgspec.structs.replace(baseline.manifest, version="20260404T000000Z", bundles={"x": "0" * 64})
        item.monitor.baselines.write(msgspec.structs.replace(baseline, manifest=manifest))
    else:
        item.hear(sound(2, seed=1))
        shadow = item.monitor._shadow
        assert shadow is not None
        assert shadow._unit is not None
        monkeypatch.setattr(shadow._unit.decision, "update", lambda result, synced: 1 / 0)
    windows = item.monitor.scored
    item.hear(sound(4, FAULT, seed=2))
    assert item.monitor.scored - windows >= 7
    assert item.monitor.active.alarm_state.level is Level.DANGER
    assert item.monitor.scoring_error == ""
    words = {"damaged": "checksum", "another bundle": "was made with the bundle", "broken": "ZeroDivisionError"}
    assert words[how] in str(shadow_of(item.monitor).trouble)
    assert words[how] in shadow_words(shadow_of(item.monitor))


def test_no_shadow_where_the_configuration_says_so() -> None:
    machine = msgspec.convert({"id": "m", "source": {"kind": "simulated"}, "shadow": None}, config.Machine, strict=True)
    assert machine.shadow is None
    assert machine.shadowed is machine
    other = msgspec.convert({"id": "m", "source": {"kind": "simulated"}, "shadow": {"bundle": "x"}}, config.Machine)
    assert other.shadowed.bundles == ("x",)


# -- another bundle


@pytest.fixture(scope="module")
def second_bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The shipped encoder under another name: another bundle as far as anybody can tell."""
    import shutil

    from asd_agent.encode.bundle import Bundle

    folder = tmp_path_factory.mktemp("bundles") / "second"
    shutil.copytree(Bundle.load("default").folder, folder)
    meta = folder / "bundle.json"
    meta.write_text(meta.read_text().replace('"provenance"', '"provenance" ', 1))  # another checksum
    return str(folder)


def test_another_bundle_runs_beside(baseline: Baseline, second_bundle: str, tmp_path: Path) -> None:
    machine = msgspec.structs.replace(MACHINE, shadow=config.Shadow(bundle=second_bundle))
    candidate = calibrated(machine.shadowed, sound(30), CANDIDATE)
    assert candidate.manifest.bundles != baseline.manifest.bundles
    with listening(tmp_path, machine, baseline, time.time() - 600.0) as item:
        propose(item, candidate)
        item.hear(sound(3, seed=1))
        item.hear(sound(4, FAULT, seed=2))
        item.store.flush()
        assert shadow_of(item.monitor).trouble == ""
        assert item.store.states()[NAME].level is Level.DANGER
        found = compare(item.store, "pump-1", CANDIDATE, 0.0)
        assert found.windows == len(item.store.scores(NAME))


def test_a_bundle_that_wants_more_than_the_source_has_leaves_the_machine_alone(
    baseline: Baseline, second_bundle: str, tmp_path: Path
) -> None:
    machine = msgspec.structs.replace(MACHINE, shadow=config.Shadow(bundle=second_bundle))
    with listening(tmp_path, machine, baseline, time.time() - 600.0) as item:
        propose(item, calibrated(machine.shadowed, sound(20), CANDIDATE))
        shadow = item.monitor._shadow
        assert shadow is not None
        own = dict(item.monitor.active.pipeline.rates)
        assert shadow.rates(RATE, {}) == own  # both bundles want the same
        assert shadow.rates(RATE, own) == {}  # and the machine has it already
        assert shadow.rates(min(own.values()) // 2, own) == {}
        assert "the shadow's bundle wants" in str(shadow_of(item.monitor).trouble)
        item.hear(sound(2, seed=1))
        assert item.monitor.scored == 3
        assert item.monitor.scoring_error == ""
        assert item.store.scores(NAME) == []


def test_a_bundle_that_is_not_there_is_said(baseline: Baseline, tmp_path: Path) -> None:
    machine = msgspec.structs.replace(MACHINE, shadow=config.Shadow(bundle="/nowhere"))
    with listening(tmp_path, machine, baseline, time.time() - 600.0) as item:
        item.hear(sound(2, seed=1))
        assert item.monitor.scored == 3
        assert "/nowhere" in str(shadow_of(item.monitor).trouble)


# -- the comparison


@pytest.fixture(scope="module")
def compared(baseline: Baseline, tolerant: Baseline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half a day together, with a fault that only the active baseline minds."""
    folder = tmp_path_factory.mktemp("compared")
    with listening(folder, MACHINE, baseline, time.time() - 40_000.0) as item:
        propose(item, tolerant)
        item.hear(sound(4, seed=1))
        item.hear(sound(4, FAULT, seed=2))
        item.hear(sound(6, seed=3))
        item.wait(39_000.0)
        item.hear(sound(4, seed=4))
    return folder


def test_the_comparison_counts_and_advises(compared: Path) -> None:
    found = compare(Reader(compared), "pump-1", CANDIDATE, 0.0)
    rows = {row.utc_s: row for row in Reader(compared).scores(NAME)}
    own = {row.utc_s: row for row in Reader(compared).scores("pump-1")}
    assert found.windows == len(rows) == len(own)
    odd = [t for t in rows if (rows[t].state is State.ANOMALOUS) != (own[t].state is State.ANOMALOUS)]
    assert found.differ == len(odd) > 0
    assert found.active.anomalous == sum(row.state is State.ANOMALOUS for row in own.values())
    assert (len(found.active.alarms), len(found.shadow.alarms)) == (1, 0)
    assert found.active.scores[3] > found.shadow.scores[3]
    assert "0 alarms where the active baseline had 1" in found.line
    assert "less than a day" in found.advice


def test_advice_follows_the_alarms(compared: Path) -> None:
    from dataclasses import replace

    found = compare(Reader(compared), "pump-1", CANDIDATE, 0.0)
    long = replace(found, last_utc_s=found.first_utc_s + 3 * 86_400)
    assert "fewer alarms" in long.advice
    assert "more alarms" in replace(long, active=found.shadow, shadow=found.active).advice
    assert "as many alarms" in replace(long, shadow=found.active).advice
    assert "neither" in replace(long, active=found.shadow).advice


def write_config(folder: Path, state_dir: Path) -> str:
    path = folder / "agent.yaml"
    machine = {"id": "pump-1", "source": {"kind": "simulated"}, "window_s": 1.0, "hop_s": 0.5}
    idle = {"id": "idle", "source": {"kind": "simulated"}}
    path.write_text(yaml.safe_dump({"agent": {"id": "a", "state_dir": str(state_dir)}, "machines": [machine, idle]}))
    return str(path)


def test_the_command_and_the_line_before_a_promotion(
    compared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_config(tmp_path, compared)
    assert main(["baseline", "compare", "-c", path, "pump-1"]) == 0
    shown = capsys.readouterr().out
    assert "score, 99 % of windows below" in shown
    assert "in shadow over" in shown
    assert "active: danger" in shown
    assert main(["baseline", "compare", "-c", path, "pump-1", "--json"]) == 0
    data = msgspec.json.decode(capsys.readouterr().out)
    assert data["shadow"]["alarms"] == []
    assert main(["baseline", "promote", "-c", path, "pump-1"]) == 0
    assert "in shadow over" in capsys.readouterr().out
    assert BaselineStore(compared, "pump-1").pointers().active == CANDIDATE
    assert main(["baseline", "rollback", "-c", path, "pump-1"]) == 0
    assert "in shadow" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words", "code"),
    [
        (["nobody"], "there is no machine 'nobody'", 2),
        (["idle"], "idle: there is no candidate; calibrate without --promote", 1),
        (["pump-1", "20200101T000000Z"], "baseline 20200101T000000Z has no scores in shadow", 1),
        (["pump-1", "--since", "long ago"], "'long ago' is not a duration", 2),
    ],
)
def test_a_mistake_is_one_line(
    compared: Path, tmp_path: Path, options: list[str], words: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        found = main(["baseline", "compare", "-c", write_config(tmp_path, compared), *options])
    except SystemExit as exc:
        found = int(exc.code or 0)
    assert found == code
    assert words in capsys.readouterr().err


def test_without_common_windows_there_is_no_comparison(compared: Path) -> None:
    with pytest.raises(StoreError, match="no scores in shadow"):
        compare(Reader(compared), "pump-1", "20200101T000000Z", 0.0)
    with pytest.raises(StoreError, match="no scores in shadow since then"):
        compare(Reader(compared), "pump-1", CANDIDATE, time.time() + 1e6)


# -- calibrate --shadow


def test_a_candidate_of_another_bundle_is_made_without_touching_the_active_one(
    baseline: Baseline, second_bundle: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_config(tmp_path, tmp_path / "state")
    soundfile.write(tmp_path / "normal.wav", sound(20), RATE)
    make = ["calibrate", "-c", path, "pump-1", "--shadow", "--from", str(tmp_path / "normal.wav")]
    assert main(make) == 2
    assert "has no shadow.bundle" in capsys.readouterr().err
    settings = yaml.safe_load(Path(path).read_text())
    settings["machines"][0]["shadow"] = {"bundle": second_bundle}
    Path(path).write_text(yaml.safe_dump(settings))
    for wrong in (["--promote"], ["--extend"], ["--exclude-outliers"]):
        assert main([*(make if wrong != ["--exclude-outliers"] else make[:5]), *wrong]) == 2
        assert "--shadow makes a candidate of another bundle" in capsys.readouterr().err
    store = BaselineStore(tmp_path / "state", "pump-1")
    store.write(baseline)
    store.promote()
    assert main(make) == 0
    assert "name its bundle as the bundle of pump-1" in capsys.readouterr().out
    pointers = store.pointers()
    assert pointers.active == baseline.manifest.version
    assert pointers.candidate is not None
    assert list(store.load(pointers.candidate).manifest.bundles) == [second_bundle]
    assert main(["baseline", "promote", "-c", path, "pump-1"]) == 1  # not before the configuration names it
    assert "was made with the bundle" in capsys.readouterr().err
    settings["machines"][0] |= {"bundle": second_bundle, "shadow": None}
    Path(path).write_text(yaml.safe_dump(settings))
    assert main(["baseline", "promote", "-c", path, "pump-1"]) == 0


def test_a_running_daemon_learns_a_candidate_of_another_bundle(
    baseline: Baseline, second_bundle: str, tmp_path: Path
) -> None:
    machine = msgspec.structs.replace(MACHINE, shadow=config.Shadow(bundle=second_bundle))
    options = CalibrationOptions(shadow=True)
    with listening(tmp_path, machine, baseline, time.time() - 600.0) as item:
        item.monitor.calibrator.calibrate(8.0, False, options)
        item.hear(sound(9, seed=5))
        learnt = finished(item.monitor)
        soundfile.write(tmp_path / "normal.wav", sound(10), RATE)
        item.monitor.calibrator.calibrate_from([str(tmp_path / "normal.wav")], False, options)
        read = finished(item.monitor)
        for version in (learnt, read):
            assert list(item.monitor.baselines.load(version).manifest.bundles) == [second_bundle]
        assert item.monitor.baselines.pointers().active == baseline.manifest.version
        item.hear(sound(3, seed=1))
        assert shadow_of(item.monitor).baseline == read
        assert item.monitor.scored == 23
        item.monitor.calibrator.calibrate(8.0, False)  # one of its own is one of its own again
        item.hear(sound(9, seed=6))
        own = item.monitor.baselines.load(finished(item.monitor))
        assert own.manifest.bundles == baseline.manifest.bundles


def finished(monitor: Machine) -> str:
    deadline = time.monotonic() + 60
    while (progress := monitor.calibrator.progress()).phase in ("listening", "fitting"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert progress.phase == "done", progress
    return str(progress.version)


def test_without_another_bundle_there_is_nothing_to_learn_for_the_shadow(item: Listening) -> None:
    with pytest.raises(CalibrationError, match=r"there is no shadow\.bundle"):
        item.monitor.calibrator.calibrate(8.0, False, CalibrationOptions(shadow=True))
    assert not item.monitor.calibrator.running
    with pytest.raises(UsageError, match="cannot be promoted"):
        Commands(SimpleNamespace(machine=lambda name: item.monitor, changing=contextlib.nullcontext()))(  # type: ignore[arg-type]
            "calibrate", {"machine": "pump-1", "duration_s": 8.0, "shadow": True, "promote": True}
        )
