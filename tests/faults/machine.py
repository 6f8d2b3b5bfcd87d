"""Faults under a whole daemon: its sound source, its process, its configuration and its clock."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path

from daemons import Site, Template, machine
from mosquitto import Mosquitto

from asd_agent.errors import AsdError
from asd_agent.types import rfc3339
from faults.outcomes import Outcome
from faults.reference import PATIENCE_S, Reference, waited_s
from faults.world import GIVE_UP_S

SOURCE = ("hangs", "ends at once", "child killed", "child stands still", "random bytes", "half of the speed")
DAEMON = ("killed", "killed twice", "told to end", "reload", "reload of nonsense", "reload without a machine")
CLOCK = ("hours ahead", "hours back", "starts in 1970, is set later")
COMMAND = ("shelved during a reload", "out of service during a kill")
CLOCK_SHIM = Path(__file__).with_name("clock")
HOUR_S = 3600


class DaemonLane:
    def __init__(self, folder: Path, name: str, rng: random.Random) -> None:
        self._rng = rng
        folder.mkdir(parents=True)
        template = Template(folder / "template")
        self.broker = Mosquitto(folder / "broker")
        self.broker.start()
        (folder / "site").mkdir()
        self.site = Site(folder / "site", template)
        self.reference = Reference(self.broker.port, "reference-daemon")
        self._clock = folder / "clock"
        self.kinds = [
            *(f"source: {fault}" for fault in SOURCE),
            *(f"daemon: {fault}" for fault in DAEMON),
            *(f"command: {fault}" for fault in COMMAND),
            *(f"clock: {fault}" for fault in CLOCK),
        ]
        self._set_clock(0)
        path = os.pathsep.join([str(CLOCK_SHIM), os.environ.get("PYTHONPATH", "")])
        self.site.environment = {"PYTHONPATH": path, "ASD_TEST_CLOCK": str(self._clock)}
        self.site.copy_baseline("n")
        self._configure("m", "n")
        self.site.start()
        self.site.more_windows(3)
        self._counted = (0, 0)

    def _configure(self, *machines: str) -> None:
        folder = self.site.folder
        made = [machine(folder, name, alarm={"window_votes": "2/3"}) for name in machines]
        self.site.configure(*made, mqtt={"url": self.broker.url})

    def inject(self, kind: str) -> Outcome:
        area, fault = kind.split(": ", 1)
        self.site.play(self._rng.choice(("faulty", "normal")))
        time.sleep(self._rng.uniform(0.0, 2.0))
        wrong = {"source": self._source, "daemon": self._daemon, "clock": self._time, "command": self._command}[area](
            fault
        )
        return self._outcome(kind, wrong)

    def resources(self) -> None:
        """The process is another after many of the faults; the network lane looks at one that stays."""

    def close(self) -> list[str]:
        said = self.site.said
        self.site.close()
        self.reference.close()
        self.broker.stop()
        return [line for line in said.splitlines() if line.startswith("Traceback")]

    # -- faults

    def _source(self, fault: str) -> str:
        if fault.startswith("child"):
            children = self.site.children()
            number = signal.SIGKILL if fault.endswith("killed") else signal.SIGSTOP
            for pid in children[:1]:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
            return ""
        modes = {"hangs": "hang", "ends at once": "die", "random bytes": "random", "half of the speed": "half normal"}
        self.site.play(modes[fault])
        time.sleep(self._rng.uniform(1.0, 8.0))
        self.site.play("normal")
        return ""

    def _daemon(self, fault: str) -> str:
        site = self.site
        if fault.startswith("killed"):
            site.kill()
            site.launch()
            if fault.endswith("twice"):
                time.sleep(self._rng.uniform(0.0, 2.0))
                site.kill()
                site.launch()
        elif fault == "told to end":
            site.stop()
            site.launch()
        elif fault == "reload of nonsense":
            text = site.path.read_text()
            site.path.write_text(text.replace("machines:", "machnies:"))
            site.reload()
            time.sleep(self._rng.uniform(0.1, 1.0))
            site.path.write_text(text)
        elif fault == "reload without a machine":
            self._configure("m")
            site.reload()
            time.sleep(self._rng.uniform(0.5, 3.0))
            self._configure("m", "n")
            site.reload()
        else:
            for _ in range(self._rng.randrange(1, 5)):
                site.reload()
                time.sleep(self._rng.uniform(0.0, 0.3))
        return ""

    def _time(self, fault: str) -> str:
        if fault.startswith("starts"):
            self.site.kill()
            self._set_clock(-int(time.time()) + self._rng.randrange(86_400))
            self.site.launch()
            time.sleep(self._rng.uniform(3.0, 8.0))
            self._set_clock(0)
        else:
            hours = self._rng.uniform(0.1, 20.0)
            self._set_clock(int(hours * HOUR_S * (1 if fault.endswith("ahead") else -1)))
            time.sleep(self._rng.uniform(1.0, 4.0))
            if self._rng.random() < 0.5:
                self._set_clock(0)
        return ""

    def _command(self, fault: str) -> str:
        """What was answered `ok` must hold afterwards."""
        site = self.site
        self._set_clock(0)
        try:
            if fault.startswith("shelved"):
                self._configure("m", "n")
                text = site.path.read_text()
                site.path.write_text(text.replace("2/3", self._rng.choice(("3/4", "2/4", "4/5"))))
                site.reload()
                time.sleep(self._rng.uniform(0.0, 0.2))
                site.ask("shelve", machine="m", until=rfc3339(time.time() + HOUR_S), by="suite", reason=fault)
                kept = "shelved_until"
            else:
                site.ask("out_of_service", machine="m", on=True, by="suite", reason=fault)
                site.kill()
                site.launch()
                kept = "out_of_service"
        except AsdError:
            return ""  # it was not answered ok
        waited_s(lambda: self._answers() and bool(self._alarm()[kept]), 15.0)
        wrong = "" if self._answers() and self._alarm()[kept] else f"{fault}: answered ok, and forgotten"
        with suppress(AsdError):
            site.ask("unshelve", machine="m", by="suite", reason="over")
        with suppress(AsdError):
            site.ask("out_of_service", machine="m", on=False, by="suite", reason="over")
        return wrong

    def _set_clock(self, shift_s: int) -> None:
        part = self._clock.with_suffix(".part")
        part.write_text(f"{shift_s:+d}")
        part.rename(self._clock)

    # -- afterwards

    def _outcome(self, kind: str, wrong: str) -> Outcome:
        over_s = time.monotonic()
        windows: list[int] = []

        def scored() -> bool:
            """Windows come in again."""
            if self._answers():
                windows.append(int(self.site.status()["health"]["windows_scored"]))
            return len(windows) > 1 and windows[-1] > windows[0]

        recovery_s = waited_s(scored, GIVE_UP_S)
        told = {event.id for event in self.site.events() if event.notify}
        waited_s(lambda: not self.reference.missing(told), max(PATIENCE_S - (time.monotonic() - over_s), 5.0))
        lost = self.reference.missing(told)
        same_s = waited_s(lambda: not self._differences(), max(PATIENCE_S - (time.monotonic() - over_s), 2.0))
        # Equal once is equal: asked again, an alarm may be raised between the two answers that are compared.
        wrongs = [*(self._differences() if same_s is None else []), *([wrong] if wrong else [])]
        before, self._counted = self._counted, (self.reference.duplicates, self.reference.conflicts)
        return Outcome(
            kind,
            events=len(told),
            lost=len(lost),
            duplicates=self._counted[0] - before[0],
            conflicts=self._counted[1] - before[1],
            wrong_states=len(wrongs),
            recovery_s=recovery_s,
            stuck=recovery_s is None,
            note="; ".join(wrongs),
        )

    def _answers(self) -> bool:
        assert self.site.process is not None
        if self.site.process.poll() is not None:
            return False
        try:
            self.site.ask("status")
        except AsdError:
            return False
        return True

    def _alarm(self, name: str = "m") -> dict[str, object]:
        found: dict[str, object] = self.site.status(name)["alarm"]
        return found

    def _differences(self) -> list[str]:
        """Between the retained state of each machine and the daemon's own."""
        told = self.reference.retained("a", ("m", "n"))
        if not self._answers():
            return ["the daemon does not answer"]
        wrong = []
        for name, state in told.items():
            try:
                alarm = self._alarm(name)
            except StopIteration:  # the reload that brings it back is not through
                return [f"{name} is not there"]
            pairs = (
                (state.get("alarm_id"), alarm["alarm_id"]),
                (state.get("out_of_service"), alarm["out_of_service"]),
                (state.get("shelved_until"), alarm["shelved_until"]),
            )
            wrong += [f"{name}: broker {json.dumps(a)}, agent {json.dumps(b)}" for a, b in pairs if a != b]
        return wrong
