"""Configuration -> source."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial

from asd_agent import config
from asd_agent.capture.base import Source
from asd_agent.capture.devices import check_name
from asd_agent.capture.files import directory_blocks, file_blocks
from asd_agent.capture.live import LiveSource, Patience
from asd_agent.capture.pcm import PacketDecoder, RawDecoder
from asd_agent.capture.replay import ReplaySource
from asd_agent.capture.simulate import machine_blocks
from asd_agent.capture.stdin import StdinSource
from asd_agent.config import plugins
from asd_agent.errors import SourceError


def open_source(source: config.Source, channels_used: Sequence[int] = (), patience: Patience | None = None) -> Source:
    """A source that delivers all channels; `channels_used` are those that machines listen to.

    Returns at once: a device that is absent is a matter of `status`. Raises SourceError for what can never
    work. `patience` is for tests.
    """
    wanted = max((source.channel, *channels_used)) + 1
    match source:
        case config.MicrophoneSource():
            check_name(source.device)
            channels = _enough(source.channels or wanted, wanted)
            return LiveSource(_microphone(source, channels), PacketDecoder, patience)
        case config.CommandSource():
            decoder = partial(RawDecoder, source.format, source.rate_hz, _enough(source.channels, wanted))
            return LiveSource(source.argv, decoder, patience)
        case config.StdinSource():
            return StdinSource(source.format, source.rate_hz, _enough(source.channels, wanted))
        case config.FileSource():
            return ReplaySource(file_blocks(source.path, source.loop), source.pace)
        case config.DirectorySource():
            return ReplaySource(directory_blocks(source.path, source.loop), source.pace)
        case config.PluginSource():
            return _plugin(source)
        case config.SimulatedSource():
            _enough(1, wanted)
            return ReplaySource(machine_blocks(source), source.pace)


def _plugin(source: config.PluginSource) -> Source:
    opened = plugins.load("asd_agent.sources", source.name)(**source.options)
    if not isinstance(opened, Source):
        raise SourceError(f"the plug-in {source.name!r} made a {type(opened).__name__}, not an asd_agent.api.Source")
    return opened


def _microphone(source: config.MicrophoneSource, channels: int) -> list[str]:
    argv = [sys.executable, "-P", "-m", "asd_agent.capture.child"]
    argv += [f"--device={source.device}", f"--channels={channels}"]
    return argv if source.rate_hz is None else [*argv, f"--rate={source.rate_hz}"]


def _enough(channels: int, wanted: int) -> int:
    if channels < wanted:
        raise SourceError(f"channel {wanted - 1} wanted (counted from 0), but the source has {channels} channel(s)")
    return channels
