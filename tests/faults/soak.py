"""python -m faults.soak [--minutes 360] [-o soak.json]: eight machines, short windows, as fast as the host can.

Memory, threads and files of the daemon over the windows that it has scored. The slope is a straight line through the
samples after the first fifth of the time, with its standard error: a short run cannot prove a small slope.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from daemons import Site, Template
from mosquitto import Mosquitto

from faults.world import Resources

MACHINES = 8
WARM_UP = 0.2  # of the time
EVERY_S = 5.0


def machine(number: int) -> dict[str, Any]:
    source = {"kind": "simulated", "seed": number, "pace": "fast", "duration_s": 1e7, "rate_hz": 16_000}
    return {"id": f"m{number}", "source": source, "window_s": 1.0, "hop_s": 0.25}


def sampled(site: Site, seconds: float) -> list[tuple[float, int, Resources]]:
    """(seconds, windows, resources) every few seconds."""
    found = []
    began_s = time.monotonic()
    assert site.process is not None
    while (at_s := time.monotonic() - began_s) < seconds:
        windows = sum(m["health"]["windows_scored"] for m in site.ask("status")["machines"])
        found.append((at_s, windows, Resources.of(site.process.pid)))
        time.sleep(EVERY_S)
    return found


def result(samples: list[tuple[float, int, Resources]]) -> dict[str, Any]:
    kept = [s for s in samples if s[0] >= WARM_UP * samples[-1][0]]
    millions = np.array([s[1] for s in kept]) / 1e6
    mib = np.array([s[2].rss_kib for s in kept]) / 1024
    (slope, _), covariance = np.polyfit(millions, mib, 1, cov=True)
    hours_of_sound = samples[-1][1] * 0.25 / 3600
    return {
        "minutes": round(samples[-1][0] / 60, 1),
        "machines": MACHINES,
        "windows": samples[-1][1],
        "sound_hours": round(hours_of_sound, 2),
        "times_real_time": round(hours_of_sound / MACHINES / (samples[-1][0] / 3600), 1),
        "rss_mib_first": round(float(mib[0]), 1),
        "rss_mib_last": round(float(mib[-1]), 1),
        "slope_mib_per_million_windows": round(float(slope), 1),
        "slope_standard_error": round(float(np.sqrt(covariance[0, 0])), 1),
        "first": kept[0][2]._asdict(),
        "last": kept[-1][2]._asdict(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=float(os.environ.get("FAULTS_MINUTES", "360")))
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        folder = Path(name)
        broker = Mosquitto(folder / "broker")
        broker.start()
        (folder / "site").mkdir()
        site = Site(folder / "site", Template(folder / "template"))
        for i in range(MACHINES):
            site.copy_baseline(f"m{i}")
        site.configure(*map(machine, range(MACHINES)), mqtt={"url": broker.url, "score_interval_s": 60})
        try:
            site.start()
            found = result(sampled(site, 60 * args.minutes))
        finally:
            site.close()
            broker.stop()
    print(json.dumps(found, indent=1))
    if args.output is not None:
        args.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
