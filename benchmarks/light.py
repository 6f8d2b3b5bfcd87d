"""How light the agent is: importing the daemon, and the peak memory while 30 minutes of sound calibrate.

    python benchmarks/light.py [-o benchmarks/results]

Each figure is of a process of its own; processor time, so that other work hardly matters.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile

from asd_agent.cli.bench import host
from asd_agent.encode.bundle import shipped

MINUTES, RATE_HZ = 30, 48_000
IMPORT = "import time; t = time.process_time(); import asd_agent.service.daemon; print(time.process_time() - t)"


CALIBRATE = "from asd_agent.cli import main; raise SystemExit(main())"
WATCH = """
import atexit
def keep():
    with open("/proc/self/status") as status, open({kept!r}, "w") as kept:
        kept.write(next(line.split()[1] for line in status if line.startswith("VmHWM")))
atexit.register(keep)
"""


def measured(code: str, *words: str) -> tuple[str, float, float]:
    """Output, peak memory in MiB and processor time in s of a python process that runs `code`.

    The peak is the kernel's VmHWM, which begins with the program; ru_maxrss begins with the peak of this process.
    """
    with tempfile.NamedTemporaryFile("r") as kept:
        watch = WATCH.format(kept=kept.name)
        process = subprocess.Popen([sys.executable, "-c", watch + code, *words], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        said = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        assert status == 0, said
        return said, int(kept.read()) / 1024, usage.ru_utime + usage.ru_stime


def calibrations(folder: Path) -> dict[str, dict[str, float]]:
    rng, t = np.random.default_rng(0), np.arange(60 * RATE_HZ) / RATE_HZ
    with soundfile.SoundFile(folder / "sound.wav", "w", RATE_HZ, 1, "PCM_16") as file:
        for _ in range(MINUTES):
            file.write(0.05 * np.sin(2 * np.pi * 50 * t) + 0.02 * rng.standard_normal(len(t)))
    found = {}
    for bundle in shipped():
        path = folder / f"{bundle}.yaml"
        path.write_text(
            f"agent: {{id: b, state_dir: {folder / bundle}}}\n"
            f"machines: [{{id: m, source: {{kind: stdin, rate_hz: {RATE_HZ}}}, bundle: {bundle}}}]\n"
        )
        words = (CALIBRATE, "calibrate", "-c", str(path), "m", "--from", str(folder / "sound.wav"))
        _, peak_mib, cpu_s = measured(*words)
        found[bundle] = {"peak_mib": round(peak_mib, 1), "cpu_s": round(cpu_s, 1)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    imports = [measured(IMPORT) for _ in range(5)]
    with tempfile.TemporaryDirectory() as folder:
        result = {
            "cpu": host().cpu,
            "load_average": os.getloadavg()[0],
            "import_cpu_s": round(min(float(said) for said, _, _ in imports), 3),
            "import_peak_mib": round(min(peak for _, peak, _ in imports), 1),
            "calibrate_minutes": MINUTES,
            "calibrate": calibrations(Path(folder)),
        }
    (args.output / "light.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
