"""What a bundle costs: time of a window, the agent's share of it, time to the first result, memory.

    python benchmarks/encoder.py [--bundle NAME_OR_PATH] [--window-s 10] [-o benchmarks/results/encoder.json]

Everything runs on one thread. The two sides of a ratio take turns, so that a busy machine slows both alike;
start and memory are measured in fresh processes.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

import host
import numpy as np
import onnxruntime

from asd_agent.encode.bundle import Bundle
from asd_agent.encode.encoder import Encoder

# Prints seconds from the first import to the first embeddings, and MiB of RSS along the way.
_FRESH = """
import sys, time
start = time.perf_counter()
from asd_agent.encode.bundle import Bundle
from asd_agent.encode.encoder import Encoder
from asd_agent.memory import lean_malloc
import numpy as np
def mib(key):
    line = next(l for l in open("/proc/self/status") if l.startswith(key))
    return int(line.split()[1]) / 1024
lean = sys.argv[3] == "lean" and lean_malloc()
imported = time.perf_counter(), mib("VmRSS")
encoder = Encoder(Bundle.load(sys.argv[1]))
loaded = time.perf_counter(), mib("VmRSS")
window = 0.1 * np.random.default_rng(0).standard_normal(int(sys.argv[2])).astype(np.float32)
before = time.perf_counter()
encoder.embed(window)
first = time.perf_counter() - before
for _ in range(20):
    encoder.embed(window)
print(lean, imported[0] - start, loaded[0] - imported[0], first,
      imported[1], loaded[1], mib("VmRSS"), mib("VmHWM"))
"""


def time_windows(encoder: Encoder, window: np.ndarray, rounds: int) -> dict[str, float]:
    """Milliseconds of `Encoder.embed` and of the bare session on the same samples, taking turns."""
    session, batch = encoder._session, window[None, :]
    names = [output.name for output in encoder.bundle.meta.outputs]
    agent, bare = [], []
    for _ in range(rounds):
        start = time.perf_counter()
        session.run(names, {"waveform": batch})
        middle = time.perf_counter()
        encoder.embed(window)
        bare.append(middle - start)
        agent.append(time.perf_counter() - middle)
    return {
        "embed_ms_median": 1e3 * statistics.median(agent),
        "embed_ms_min": 1e3 * min(agent),
        "bare_ms_median": 1e3 * statistics.median(bare),
        "bare_ms_min": 1e3 * min(bare),
        "ratio_of_medians": statistics.median(agent) / statistics.median(bare),
        "ratio_of_minima": min(agent) / min(bare),
    }


def fresh(bundle: str, samples: int, malloc: str, repeats: int) -> dict[str, float | bool]:
    """Start and memory of a new process with numpy, onnxruntime and one session; medians."""
    rows = []
    for _ in range(repeats):
        done = subprocess.run(
            [sys.executable, "-c", _FRESH, bundle, str(samples), malloc],
            capture_output=True,
            text=True,
            check=True,
        )
        rows.append(done.stdout.split())
    middle = [statistics.median(float(row[i]) for row in rows) for i in range(1, 8)]
    names = ["import_s", "load_s", "first_window_s"]
    names += ["rss_imported_mib", "rss_loaded_mib", "rss_after_21_windows_mib", "rss_peak_mib"]
    result: dict[str, float | bool] = dict(zip(names, middle, strict=True))
    result["import_to_first_result_s"] = sum(middle[:3])
    result["mallopt"] = rows[0][0] == "True"
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--bundle", default="default")
    parser.add_argument("--window-s", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).parent / "results" / "encoder.json")
    args = parser.parse_args()

    encoder = Encoder(Bundle.load(args.bundle))
    samples = round(args.window_s * encoder.bundle.meta.rate_hz)
    window = 0.1 * np.random.default_rng(0).standard_normal(samples).astype(np.float32)
    time_windows(encoder, window, 5)
    report = {
        "machine": host.machine(),
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "onnxruntime": onnxruntime.__version__,
        },
        "bundle": {"name": encoder.bundle.meta.name, "variant": encoder.variant, "window_s": args.window_s},
        "window": time_windows(encoder, window, args.rounds),
        "fresh_process": fresh(args.bundle, samples, "plain", args.repeats),
        "fresh_process_lean_malloc": fresh(args.bundle, samples, "lean", args.repeats),
    }
    text = json.dumps(report, indent=2)
    print(text)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
