"""A deviation becomes the words that a fitter would use."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from asd_agent.decide import reason
from asd_agent.encode.bundle import Bundle
from asd_agent.encode.deviation import changes, level_change_db, levelled
from asd_agent.encode.meta import Axis, Output

HZ = [100.0 * 2 ** (i / 4) for i in range(20)]  # 100 Hz .. 2.69 kHz
LEVEL = Output(name="spectrum", dim=20, distance="whitened", axes=[Axis(quantity="level", values=HZ)])
BOTH = Output(
    name="both",
    dim=40,
    distance="whitened",
    axes=[Axis(quantity="level", values=HZ), Axis(quantity="unsteadiness", values=HZ)],
)
RATES = Output(
    name="rates",
    dim=31,
    distance="whitened",
    axes=[Axis(quantity="modulation", values=[float(i) for i in range(1, 32)])],
)

CARRIERS = [(500.0, 800.0), (800.0, 1300.0), (1300.0, 2100.0), (2100.0, 3400.0)]
PER_BAND = Output(
    name="per_band",
    dim=12,
    distance="whitened",
    axes=[Axis(quantity="modulation", values=[5.0, 30.0, 90.0], band_hz=band_hz) for band_hz in CARRIERS],
)


def deviation(dim: int, **values: float) -> np.ndarray:
    z = np.zeros(dim)
    for index, value in values.items():
        z[int(index[1:])] = value
    return z


def told(output: Output, z: np.ndarray, most: int = 2) -> str:
    """With differences of 1 dB for each standard deviation."""
    return ", ".join(reason.change(c) for c in changes(output, z, z)[:most])


@pytest.mark.parametrize(
    ("output", "z", "words"),
    [
        (LEVEL, deviation(20, i12=7.2), "736-876 Hz louder by 7 dB"),
        (LEVEL, deviation(20, i12=-7.2), "736-876 Hz quieter by 7 dB"),
        (LEVEL, deviation(20, i16=4, i17=9, i18=4), "1.5-2.5 kHz louder by 6 dB"),
        (LEVEL, deviation(20, i4=5, i5=5), "184-260 Hz louder by 5 dB"),
        (LEVEL, deviation(20, i2=4, i12=-9), "736-876 Hz quieter by 9 dB, 130-155 Hz louder by 4 dB"),
        (BOTH, deviation(40, i32=6), "736-876 Hz less steady by 6 dB"),
        (BOTH, deviation(40, i32=-6), "736-876 Hz steadier by 6 dB"),
        (RATES, deviation(31, i11=8), "all of the sound pulsates more at 12 Hz by 8 dB"),
        (RATES, deviation(31, i11=-8, i12=-8), "all of the sound pulsates less at 12-13 Hz by 8 dB"),
        (PER_BAND, deviation(12, i5=8), "0.8-1.3 kHz pulsates more at 90 Hz by 8 dB"),
        (PER_BAND, deviation(12, i2=4, i5=8, i8=5), "0.5-2.1 kHz pulsates more at 90 Hz by 8 dB"),
        (
            PER_BAND,
            deviation(12, i5=8, i6=-7),
            "0.8-1.3 kHz pulsates more at 90 Hz by 8 dB, 1.3-2.1 kHz pulsates less at 5 Hz by 7 dB",
        ),
    ],
)
def test_changes(output: Output, z: np.ndarray, words: str) -> None:
    assert told(output, z) == words


def test_the_band_of_a_modulation_is_the_one_whose_envelope_it_is() -> None:
    assert changes(PER_BAND, deviation(12, i5=8, i8=5), np.zeros(12))[0].band_hz == (800.0, 2100.0)
    assert changes(RATES, deviation(31, i11=8), np.zeros(31))[0].band_hz is None


def test_a_hole_does_not_split_a_band_and_a_wide_gap_does() -> None:
    assert told(LEVEL, deviation(20, i10=6, i13=6)) == "0.5-1.0 kHz louder by 6 dB"
    assert told(LEVEL, deviation(20, i10=6, i14=6)).count("louder") == 2


def test_a_wide_band_comes_before_a_higher_peak() -> None:
    wide = deviation(20, **{f"i{i}": 6.0 for i in range(10, 18)}, i1=8)
    assert told(LEVEL, wide, 1) == "0.5-2.1 kHz louder by 6 dB"


def test_one_loud_band_does_not_make_the_others_quieter() -> None:
    relative = np.full(20, -9.0)  # all levels are relative to the whole sound
    relative[14:18] = 11.0
    assert levelled(LEVEL, relative).tolist() == [0.0] * 14 + [20.0] * 4 + [0.0] * 2
    assert level_change_db(LEVEL, levelled(LEVEL, relative), (1200.0, 1800.0)) == [20.0]


def test_nothing_to_say() -> None:
    assert changes(LEVEL, np.zeros(20), np.zeros(20)) == []
    assert changes(Output(name="learnt", dim=3, distance="cosine"), np.ones(3), np.ones(3)) == []


def test_a_deviation_of_another_embedding_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="spectrum"):
        changes(LEVEL, np.zeros(19), np.zeros(19))


@given(arrays(np.float64, 128, elements=st.floats(allow_nan=True, allow_infinity=True)))
def test_any_deviation_of_a_shipped_embedding_can_be_told(z: np.ndarray) -> None:
    output = Bundle.load("default").meta.outputs[1]
    text = told(output, z)
    assert "\n" not in text
    assert len(text) < 200
