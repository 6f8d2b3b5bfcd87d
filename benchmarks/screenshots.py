"""Pictures of the local page for the documentation: python benchmarks/screenshots.py [-o docs/page]

A daemon with four simulated machines (one falls ill, one has no sound) is calibrated, and photographed in Chromium.
Takes about four minutes. Look at the pictures before they are committed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import yaml
from page import answers, free_port, started, until

from asd_agent import config
from asd_agent.service import client
from asd_agent.service.control import ask
from asd_agent.store import Reader

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "system"))
from browser import DESKTOP, PHONE, Browser

CALIBRATE_S = 60.0
FAULT_S = 110.0
WINDOW_S, HOP_S = 2.0, 1.0


def settings(folder: Path, port: int) -> config.Config:
    fault = config.Fault(kind="bearing", level_db=-16, at_s=FAULT_S, until_s=FAULT_S + 25)
    sources: dict[str, config.Source] = {
        "compressor-1": config.SimulatedSource(faults=[fault]),
        "fan-2": config.SimulatedSource(seed=4, shaft_hz=17.0, gear_teeth=0, level_dbfs=-31.0),
        "pump-3": config.CommandSource(argv=["false"], rate_hz=16_000),
        "mixer-4": config.SimulatedSource(seed=9, shaft_hz=31.0, level_dbfs=-26.0),
    }
    machines = [
        config.Machine(id=name, source=source, window_s=WINDOW_S, hop_s=HOP_S) for name, source in sources.items()
    ]
    return config.Config(
        agent=config.Agent(id="hall-1", state_dir=str(folder / "state"), log_level="warning"),
        machines=machines,
        web=config.Web(listen=f"127.0.0.1:{port}", live_sound=True),
    )


def photograph(folder: Path, port: int, out: Path) -> None:
    made = settings(folder, port)
    (folder / "agent.yaml").write_text(yaml.safe_dump(msgspec.to_builtins(made)))
    with started("run", folder), started("web", folder):
        until(lambda: answers(port))
        for name in ("compressor-1", "fan-2"):
            ask(made, "calibrate", machine=name, duration_s=CALIBRATE_S, promote=True)
        url = f"http://127.0.0.1:{port}"
        until(lambda: alarm(made) is not None, 240.0)
        take(url, "/", out / "overview.png", DESKTOP, pause_s=4.0)
        take(url, "/", out / "overview-phone.png", PHONE, dark=True, pause_s=2.0)
        until(lambda: any((folder / "state" / "evidence").rglob("*.png")), 120.0)
        number = alarm(made)
        take(url, f"/machines/compressor-1/alarms/{number}", out / "alarm.png", (1280, 640), pause_s=2.0)
        take(url, "/machines/compressor-1", out / "machine.png", (1280, 1000), pause_s=12.0, click="#look", dark=True)
        take(url, "/machines/compressor-1/calibrate", out / "calibrate.png", (1280, 900), pause_s=2.0)
        take(url, "/machines/compressor-1/whatif", out / "whatif.png", (1280, 700), pause_s=1.0)


def alarm(made: config.Config) -> str | None:
    client.status(made)
    events = Reader(made.state_dir).events(machine="compressor-1")
    return next((event.alarm_id for event in events if event.kind == "raised"), None)


def take(
    url: str, path: str, out: Path, size: tuple[int, int], *, dark: bool = False, pause_s: float = 1.0, click: str = ""
) -> None:
    from io import BytesIO

    from PIL import Image

    person = Browser(url, size, dark=dark)
    try:
        person.open(path)
        person.settled(1.0)
        if click:
            person.click(click)
            person.run("window.scrollTo(0, 0)")
        person.until(lambda: "Computing" not in person.text("main"), "all has been computed", 120.0)
        time.sleep(pause_s)
        picture = Image.open(BytesIO(person.driver.get_screenshot_as_png())).convert("RGB")
        picture.quantize(128).save(out, optimize=True)
    finally:
        person.close()
    print(out, f"{out.stat().st_size / 1000:.0f} kB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).parents[1] / "docs" / "page")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="asd-pictures-") as name:
        photograph(Path(name), free_port(), args.output)


if __name__ == "__main__":
    main()
