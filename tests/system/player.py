"""A source that tests command: player.py FOLDER FRAME_BYTES RATE_HZ SPEED plays FOLDER/<mode>.raw round and round.

The file FOLDER/mode names what to play and may change at any time; "hang" = deliver nothing, "die" = end at once,
"half NAME" = at half of the speed, "random" = random bytes.
SPEED times faster than life.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path


def main() -> None:
    folder, frame_bytes, rate_hz, speed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    sounds = {path.stem: path.read_bytes() for path in folder.glob("*.raw")}
    size, at, due_s = rate_hz // 10 * frame_bytes, 0, time.monotonic()
    while (mode := (folder / "mode").read_text()) != "die":
        if mode == "hang":
            time.sleep(0.05)
            continue
        sound = os.urandom(2 * size) if mode == "random" else sounds[mode.removeprefix("half ")]
        pace = speed / 2 if mode.startswith("half ") else speed
        at = at % (len(sound) - size)
        sys.stdout.buffer.write(sound[at : at + size])
        sys.stdout.buffer.flush()
        at += size
        due_s = max(due_s + 0.1 / pace, time.monotonic() - 0.1)
        time.sleep(max(0.0, due_s - time.monotonic()))


main()
