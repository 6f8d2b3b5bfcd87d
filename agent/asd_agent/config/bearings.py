"""Fault frequencies of rolling bearings, and the geometry of some common ones.

With r = ball_d / pitch_d * cos(angle), in turns of the shaft per turn (Harris, Rolling Bearing Analysis; Randall &
Antoni, Mech. Syst. Signal Process. 25, 2011): cage FTF = (1 - r)/2, outer race BPFO = n FTF, inner race BPFI = n (1 -
FTF), ball spin BSF = (1 - r^2) pitch_d / (2 ball_d). A ball defect strikes both races: the line is 2 BSF.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Orders:
    """Multiples of the shaft speed; `bsf2` is 2 x BSF and may be unknown."""

    bpfo: float
    bpfi: float
    bsf2: float | None
    ftf: float


def geometry_orders(
    balls: int, ball_d: float, pitch_d: float, angle_deg: float = 0.0, rotating: Literal["inner", "outer"] = "inner"
) -> Orders:
    """Lengths in mm (only their ratio counts). With a turning outer ring the cage runs at (1 + r)/2."""
    contact = math.cos(math.radians(angle_deg))
    r = ball_d / pitch_d * contact
    bsf2 = pitch_d / ball_d * (1 - r * r)
    if rotating == "inner":
        ftf = (1 - r) / 2
        return Orders(bpfo=balls * ftf, bpfi=balls * (1 - ftf), bsf2=bsf2, ftf=ftf)
    ftf = (1 + r) / 2
    return Orders(bpfo=balls * (1 - ftf), bpfi=balls * ftf, bsf2=bsf2, ftf=ftf)


# (balls, ball_d, pitch_d, angle_deg). 6203 and 6205 as in the CWRU data, ER-12K and ER-16K SpectraQuest, UER204
# XJTU-SY, ZA-2115 IMS; the others by the usual pitch = (bore + outside) / 2. Makers differ by about 1 %: a data sheet
# wins.
BEARINGS: dict[str, tuple[int, float, float, float]] = {
    "6203": (8, 6.746, 28.499, 0.0),
    "6204": (8, 7.938, 33.5, 0.0),
    "6205": (9, 7.940, 39.040, 0.0),
    "6206": (9, 9.525, 46.0, 0.0),
    "6207": (9, 11.112, 53.5, 0.0),
    "6208": (9, 11.906, 60.0, 0.0),
    "6308": (8, 15.081, 65.0, 0.0),
    "6309": (8, 17.462, 72.5, 0.0),
    "6310": (8, 19.050, 80.0, 0.0),
    "6312": (8, 22.225, 95.0, 0.0),
    "6314": (8, 25.400, 110.0, 0.0),
    "ER-12K": (8, 7.938, 33.477, 0.0),
    "ER-16K": (9, 7.938, 38.500, 0.0),
    "UER204": (8, 7.920, 34.550, 0.0),
    "ZA-2115": (16, 8.400, 71.500, 15.17),
}
