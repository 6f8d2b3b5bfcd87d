"""What a reference microphone with a clock of its own is worth: the subtraction with drift and delay between the two.

    python benchmarks/reference_clock.py [--windows 6]
    python benchmarks/reference_clock.py --alarms [--data ../shared/data]

The workshop of `reference.py`: the simulated machine half a metre from the near microphone, everyday sound (white
noise) at +5 dB from elsewhere, each microphone with its own noise. The far channel is resampled by so many ppm, as a
second sound card would deliver it, or delayed. Windows of 10 s with the frame of the agent. Printed in dB: by how much
the everyday sound falls, whole and in bands, and the coherence. --alarms: of that workshop, how many beds of 4 min
raise and how many faults are found when the far channel drifts, in calibration as afterwards.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soxr
from reference import BED_DB, BEDS_S, HALLS, NOISE_DB, RATE, Listener, Scene, Site, scenes, through
from scenes import FAULTS
from scipy.signal import butter, sosfilt

from asd_agent import config
from asd_agent.capture.simulate import SimulatedMachine
from asd_agent.types import Description, Samples
from asd_agent.windowing.reference import frame_of, subtract

WINDOW_S = 10
BANDS_HZ = ((100, 500), (500, 2000), (2000, 7500))
DRIFTS_PPM = (0.0, 2.0, 5.0, 10.0, 20.0, -20.0, 50.0, -50.0, 100.0, -100.0)
DELAYS_MS = (1.0, 20.0, -20.0, 50.0, -50.0, 100.0, -100.0)


def power(x: Samples, band_hz: tuple[int, int] | None = None) -> float:
    if band_hz is not None:
        x = sosfilt(butter(4, band_hz, "bandpass", fs=RATE, output="sos"), x)
    return float(np.mean(np.square(x, dtype=np.float64)))


def drifted(far: Samples, ppm: float) -> Samples:
    """As a card delivers it whose clock is so much too fast."""
    return soxr.resample(far, RATE, RATE * (1 + ppm * 1e-6), "VHQ")


def scene(seed: int) -> tuple[Samples, Samples]:
    """The machine and what is not the machine, as both microphones hear them, [n, 2]. Longer than a window."""
    hall, n = HALLS[0], round((WINDOW_S + 1) * RATE)
    rng = np.random.default_rng(seed)
    machine = through(
        hall, hall.machine, SimulatedMachine(config.SimulatedSource(rate_hz=RATE, seed=seed)).take(n).astype(np.float32)
    )
    machine += rng.standard_normal((n, 2)) * np.sqrt(power(machine[:, 0])) * 10 ** (NOISE_DB / 20)
    room = through(hall, hall.elsewhere, rng.standard_normal(n).astype(np.float32))
    return machine, room * np.sqrt(power(machine[:, 0]) / power(room[:, 0])) * 10 ** (BED_DB / 20)


def judge(machine: Samples, room: Samples, drift_ppm: float, delay_ms: float) -> list[float]:
    """Coherence, then dB by which the everyday sound falls: whole, and in each band."""
    far = drifted((machine + room)[:, 1], drift_ppm)
    delay, n = round(delay_ms * RATE / 1000), WINDOW_S * RATE
    near = slice(RATE // 2, RATE // 2 + n)
    heard = (machine + room)[near, 0]
    found = subtract(heard, far[near.start - delay : near.stop - delay], frame_of(RATE, n))
    left, bed = found.samples - machine[near, 0], room[near, 0]
    return [found.coherence, *(10 * np.log10(power(bed, b) / power(left, b)) for b in (None, *BANDS_HZ))]


class TwoClocks(Site):
    """A scene whose far microphone has a clock of its own."""

    def __init__(self, scene: Scene, drift_ppm: float) -> None:
        self._drift_ppm = drift_ppm
        super().__init__(scene)

    def describe(self, x: Samples, origin: str = "") -> list[Description]:
        far = drifted(x[:, 1], self._drift_ppm)
        n = min(len(x), len(far))
        return super().describe(np.ascontiguousarray(np.stack([x[:n, 0], far[:n]], axis=1)), origin)


def alarms(data: Path, drifts_ppm: Sequence[float]) -> None:
    beds = sorted(p for p in (data / "nuisance").glob("*.*") if p.suffix in (".ogg", ".flac"))[::4]
    for one in scenes(data, HALLS[:1]):
        heard = [one.with_bed(bed, BED_DB, BEDS_S[0]) for bed in beds]
        faults = [one.with_fault(kind, -10, 0) for kind in FAULTS]
        for drift_ppm in drifts_ppm:
            site = TwoClocks(one, drift_ppm)
            listener = Listener(site, True)
            raised, found = (sum(listener.raises(site.describe(x))[1] for x in all_) for all_ in (heard, faults))
            print(
                f"{one.name}, {drift_ppm:g} ppm: {raised} of {len(heard)} beds raise, "
                f"{found} of {len(faults)} faults of -10 dB found",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=6)
    parser.add_argument("--alarms", action="store_true")
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    args = parser.parse_args()
    if args.alarms:
        alarms(args.data, (0.0, 50.0))
        return
    scenes = [scene(seed) for seed in range(args.windows)]
    print("drift ppm  delay ms  coherence  whole dB " + " ".join(f"{low}-{high} Hz" for low, high in BANDS_HZ))
    for drift_ppm, delay_ms in [*((d, 0.0) for d in DRIFTS_PPM), *((0.0, d) for d in DELAYS_MS)]:
        rows = [judge(*one, drift_ppm, delay_ms) for one in scenes]
        coherence, *fall_db = np.mean(rows, axis=0)
        print(f"{drift_ppm:9g} {delay_ms:9g} {coherence:10.2f} " + " ".join(f"{v:9.1f}" for v in fall_db))


if __name__ == "__main__":
    main()
