"""Live sources: real child processes, one reader and one watchdog. Waits are for events, with wide limits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import structlog

from asd_agent import config
from asd_agent.capture import open_source
from asd_agent.capture.live import LiveSource, Patience
from asd_agent.capture.packets import LOST, PACKET, hello
from asd_agent.capture.pcm import PacketDecoder
from asd_agent.capture.process import Child
from asd_agent.errors import SourceError
from asd_agent.types import Block

RATE = 8000
LIMIT_S = 60.0
HASTY = Patience(start_s=30, stall_s=0.5, healthy_s=0.0, backoff_s=0.05, backoff_max_s=0.2)
PACED = """
import sys, time
while True:
    sys.stdout.buffer.write(bytes(1600)); sys.stdout.buffer.flush(); time.sleep(0.05)
"""


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def command(argv: list[str], patience: Patience = HASTY) -> LiveSource:
    source = open_source(config.CommandSource(argv=argv, rate_hz=RATE), patience=patience)
    assert isinstance(source, LiveSource)
    return source


@pytest.fixture
def opened() -> Iterator[Callable[[list[str], Patience], LiveSource]]:
    sources = []

    def start(argv: list[str], patience: Patience = HASTY) -> LiveSource:
        sources.append(command(argv, patience))
        return sources[-1]

    yield start
    for source in sources:
        source.close()


Start = Callable[..., LiveSource]


def until(source: LiveSource, wanted: Callable[[], bool]) -> list[Block]:
    """Read until `wanted()`; fails after LIMIT_S."""
    blocks = []
    deadline = time.monotonic() + LIMIT_S
    while not wanted():
        assert time.monotonic() < deadline, source.status()
        block = source.read(0.05)
        if block is not None:
            blocks.append(block)
    return blocks


def gone(pid: int) -> bool:
    """Ended; a zombie that nobody has asked about yet counts."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_command_delivers_blocks_of_all_channels(tmp_path: Path) -> None:
    x = np.arange(-16_000, 16_000, dtype="<i2").reshape(-1, 2)
    (tmp_path / "pcm").write_bytes(x.tobytes())
    source = config.CommandSource(argv=["cat", str(tmp_path / "pcm")], rate_hz=RATE, channels=2, channel=1)
    with open_source(source, patience=HASTY) as live:
        assert isinstance(live, LiveSource)
        blocks = until(live, lambda: live.status().restarts > 0)
        while (block := live.read(0)) is not None and not block.gap:
            blocks.append(block)
    np.testing.assert_array_equal(np.concatenate([b.samples for b in blocks]), x.astype(np.float32) / 32768)
    assert [b.start_frame for b in blocks] == [0, *np.cumsum([len(b.samples) for b in blocks])[:-1]]
    assert all(b.rate_hz == live.rate_hz == RATE and not b.gap for b in blocks)
    assert all(abs(time.time() - b.utc_s) < LIMIT_S and b.monotonic_s <= time.monotonic() for b in blocks)


@pytest.mark.parametrize(("number", "how"), [(signal.SIGSTOP, "killed"), (signal.SIGKILL, "exit code -9")])
def test_a_child_that_is_stopped_or_killed_is_replaced(opened: Start, number: int, how: str) -> None:
    source = opened(python(PACED))
    until(source, lambda: source.status().available)
    first = source.child_pid
    assert first is not None
    os.kill(first, number)
    until(source, lambda: not source.status().available and source.status().restarts == 1)
    assert how in source.status().detail
    assert gone(first)
    blocks = until(source, lambda: source.status().available and source.status().gaps > 0)
    assert [b.gap for b in blocks].count(True) == 1
    assert blocks[-1].start_frame == 0
    assert source.child_pid not in (None, first)
    assert source.status().restarts == source.status().gaps == 1


def test_a_hung_child_goes_with_all_it_started(opened: Start, tmp_path: Path) -> None:
    pids = tmp_path / "pid"
    argv = ["sh", "-c", f"sleep 1000 & echo $! > {pids}.new; mv {pids}.new {pids}; exec sleep 1000"]
    source = opened(argv, Patience(start_s=3, backoff_s=1000, backoff_max_s=1000))
    until(source, lambda: source.status().restarts == 1)
    wait_for(lambda: gone(int(pids.read_text())))
    assert "no frames for 3 s" in source.status().detail
    assert source.status().last_frame_age_s is None


def test_a_child_that_ends_at_once_is_tried_for_ever_with_its_last_words(opened: Start) -> None:
    source = opened(python("import sys; print('noise', file=sys.stderr); sys.exit('no such microphone')"))
    until(source, lambda: source.status().restarts >= 2)
    open_files = len(os.listdir("/proc/self/fd"))
    assert until(source, lambda: source.status().restarts >= 6 and source.child_pid is None) == []
    assert len(os.listdir("/proc/self/fd")) <= open_files
    assert source.status().detail == "no such microphone (ended with exit code 1)"
    assert not source.status().available
    assert source.status().gaps == 0


def test_a_command_that_is_not_there_is_unavailable_not_an_exception(opened: Start) -> None:
    source = opened(["no-such-recorder-anywhere", "-r"])
    until(source, lambda: source.status().restarts >= 1)
    assert (
        source.status().detail
        == "cannot run 'no-such-recorder-anywhere': No such file or directory (ended with exit code 127)"
    )


def test_the_back_off_doubles_up_to_its_limit(opened: Start, tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    code = f"import time; open({str(starts)!r}, 'a').write(str(time.monotonic()) + chr(10))"
    source = opened(python(code), Patience(backoff_s=0.1, backoff_max_s=0.4))
    until(source, lambda: source.status().restarts >= 6)
    at = [float(line) for line in starts.read_text().split()]
    assert np.all(np.diff(at)[:5] >= [0.1, 0.2, 0.4, 0.4, 0.4])


def test_healthy_delivery_resets_the_back_off(opened: Start) -> None:
    once = "sys.stdout.buffer.write(bytes(1600)); sys.stdout.flush(); time.sleep(.01)"
    code = f"import sys, time\nfor _ in range(3): {once}"
    source = opened(python(code), Patience(healthy_s=0, backoff_s=0.2, backoff_max_s=1000))
    until(source, lambda: source.status().restarts >= 9)  # without the reset this takes 100 s: the limit fails it


def test_a_talkative_child_is_neither_blocked_nor_kept(opened: Start) -> None:
    code = "import sys; sys.stderr.write(('x' * 99 + chr(10)) * 30000); sys.stdout.buffer.write(bytes(1600))"
    child = Child(python(code))
    received = b""
    deadline = time.monotonic() + LIMIT_S
    while (data := child.read(1.0)) != b"":
        assert time.monotonic() < deadline
        received += data or b""
    child.end(5)
    assert len(received) == 1600
    assert child.last_words() == "x" * 99
    assert len(child._words) <= 4096


def test_credentials_never_leave_the_last_words() -> None:
    child = Child(python("import sys; sys.exit('rtsp://admin:geheim@10.0.0.7/live: refused')"))
    wait_for(lambda: child.read(0.1) == b"")
    child.end(5)
    assert child.last_words() == "rtsp://***@10.0.0.7/live: refused"


def test_the_child_ends_with_its_parent() -> None:
    parent = subprocess.Popen(
        python(
            "from asd_agent import config\nfrom asd_agent.capture import open_source\n"
            "s = open_source(config.CommandSource(argv=['sleep', '1000'], rate_hz=8000)); s.read(0.1)\n"
            "print(s.child_pid, flush=True)\nwhile True: s.read(1)"
        ),
        stdout=subprocess.PIPE,
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert not gone(pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_for(lambda: gone(pid))


def test_close_ends_the_child_politely(opened: Start, tmp_path: Path) -> None:
    said = tmp_path / "said"
    code = (
        f"import signal, sys\ndef bye(*_): open({str(said)!r}, 'w').write('bye'); sys.exit()\n"
        f"signal.signal(signal.SIGTERM, bye)\n{PACED}"
    )
    source = opened(python(code))
    until(source, lambda: source.status().available)
    pid = source.child_pid
    assert pid is not None
    source.close()
    assert gone(pid)
    assert said.read_text() == "bye"
    assert (source.status().available, source.status().detail) == (False, "closed")


def packets(*parts: tuple[int, int]) -> bytes:
    """(flags, value) -> packets of 800 frames of two channels."""
    body = b"".join(PACKET.pack(flags, 800, 12.5) + np.full((800, 2), value, "<f4").tobytes() for flags, value in parts)
    return hello(RATE, 2, "a card") + body


def test_lost_frames_travel_from_the_card_to_the_block(tmp_path: Path) -> None:
    (tmp_path / "stream").write_bytes(packets((0, 1), (LOST, 2), (0, 3)))
    argv = python(f"import sys, time; sys.stdout.buffer.write(open({str(tmp_path / 'stream')!r}, 'rb').read())")
    with LiveSource(argv, PacketDecoder, HASTY) as source:
        blocks = until(source, lambda: source.status().gaps >= 1)
        while len(blocks) < 3:
            blocks += [b for b in [source.read(1.0)] if b is not None]
    assert [(b.gap, b.samples[0, 1], b.start_frame) for b in blocks[:3]] == [
        (False, 1, 0),
        (True, 2, 800),
        (False, 3, 1600),
    ]
    assert blocks[0].monotonic_s == 12.5
    assert blocks[0].samples.shape == (800, 2)


@pytest.mark.parametrize("rubbish", [b"not a greeting\n" + bytes(99), b"x" * 5000, packets((0, 1)) + b"\xff" * 999])
def test_a_stream_that_is_not_ours_is_replaced_not_believed(opened: Start, tmp_path: Path, rubbish: bytes) -> None:
    (tmp_path / "stream").write_bytes(rubbish)
    with LiveSource(["cat", str(tmp_path / "stream"), "/dev/zero"], PacketDecoder, HASTY) as source:
        until(source, lambda: source.status().restarts >= 2)
        assert "the sound-card child" in source.status().detail


def test_changes_are_logged_once_not_every_attempt(opened: Start) -> None:
    with structlog.testing.capture_logs() as logs:
        source = opened(python("import sys; sys.exit('gone')"))
        until(source, lambda: source.status().restarts >= 4)
    assert [entry["event"] for entry in logs] == ["no sound"]


def test_a_microphone_that_is_not_there_says_so(opened: Start) -> None:
    source = open_source(config.MicrophoneSource(device="usb-id:dead:beef"), patience=HASTY)
    assert isinstance(source, LiveSource)
    with source:
        until(source, lambda: source.status().restarts >= 1)
        assert "'usb-id:dead:beef' is not connected" in source.status().detail


@pytest.mark.parametrize("index", ["3", "hw:1,0", "plughw:2"])
def test_an_index_is_refused_at_once(index: str) -> None:
    with pytest.raises(SourceError, match="index"):
        open_source(config.MicrophoneSource(device=index))


def test_a_channel_beyond_the_stream_is_refused_at_once() -> None:
    with pytest.raises(SourceError, match=r"channel 2 wanted .* 2 channel"):
        open_source(config.CommandSource(argv=["true"], rate_hz=RATE, channels=2), [0, 2])


def test_children_and_the_daemon_import_nothing_heavy() -> None:
    heavy = "numpy, scipy, soundfile, sounddevice, soxr, structlog, msgspec"
    for module, allowed in (
        ("asd_agent.capture.child", set()),
        ("asd_agent.capture.sources", {"numpy", "structlog", "msgspec"}),
        ("asd_agent.windowing.windower", {"numpy", "msgspec"}),
        ("asd_agent.windowing.quality", {"numpy", "msgspec"}),
    ):
        code = f"import {module}, sys; print(*(m for m in '{heavy}'.split(', ') if m in sys.modules))"
        loaded = subprocess.run(python(code), capture_output=True, text=True, check=True).stdout.split()
        assert set(loaded) <= allowed, module


def test_a_source_that_ends_well_again_and_again_is_started_at_once(opened: Start) -> None:
    """It delivers a file each time: after the first ones there must be no growing pause."""
    code = "import sys; sys.stdout.buffer.write(bytes(3200))"
    source = opened(python(code), Patience(healthy_s=1000, backoff_s=0.05, backoff_max_s=1000))
    deadline = time.monotonic() + LIMIT_S
    while source.status().restarts < 12 and time.monotonic() < deadline:
        source.read(0.1)
    assert source.status().restarts >= 12  # doubling from 0.05 s would have reached minutes


def test_a_source_that_ends_without_a_frame_backs_off(opened: Start) -> None:
    source = opened(python("pass"), Patience(healthy_s=1000, backoff_s=0.05, backoff_max_s=1000))
    deadline = time.monotonic() + 5.0
    while time.monotonic() < deadline:
        source.read(0.1)
    assert source.status().restarts < 9
