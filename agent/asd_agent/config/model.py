"""The agent's configuration as frozen, typed structs with their defaults beside them."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta

from asd_agent.config.kinematics import Mechanism
from asd_agent.config.web import Web as Web

Identifier = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]  # safe as topic level and path
Positive = Annotated[float, Meta(gt=0)]
Channel = Annotated[int, Meta(ge=0)]
Rate = Annotated[int, Meta(ge=4000, le=384_000)]


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class _Source(_Section, frozen=True, kw_only=True, tag_field="kind"):
    channel: Channel = 0

    def device_key(self) -> str:
        """Equal for machines that listen to different channels of one stream: it is opened once."""
        fields = {k: v for k, v in msgspec.to_builtins(self).items() if k != "channel"}
        return msgspec.json.encode(fields, order="deterministic").decode()


class MicrophoneSource(_Source, frozen=True, kw_only=True, tag="microphone"):
    """A sound card by stable name: "usb-path:1-1.4", "usb-id:0d8c:0014[:serial]", an ALSA name, or "default"."""

    device: str = "default"
    rate_hz: Rate | None = None  # None = the device's native rate
    channels: Annotated[int, Meta(ge=1, le=64)] | None = None  # None = just as many as `channel` needs


class CommandSource(_Source, frozen=True, kw_only=True, tag="command"):
    """Any program that writes raw PCM to its standard output (arecord, ffmpeg with RTSP, ...)."""

    argv: Annotated[list[str], Meta(min_length=1)]
    rate_hz: Rate
    channels: Annotated[int, Meta(ge=1, le=64)] = 1
    format: Literal["s16le", "s24le", "s32le", "f32le"] = "s16le"


class StdinSource(_Source, frozen=True, kw_only=True, tag="stdin"):
    rate_hz: Rate
    channels: Annotated[int, Meta(ge=1, le=64)] = 1
    format: Literal["s16le", "s24le", "s32le", "f32le"] = "s16le"


class FileSource(_Source, frozen=True, kw_only=True, tag="file"):
    path: str
    pace: Literal["live", "fast"] = "live"
    loop: bool = False


class DirectorySource(_Source, frozen=True, kw_only=True, tag="directory"):
    """All recordings below a folder in the order of their names; each file is a segment of its own."""

    path: str
    pace: Literal["live", "fast"] = "live"
    loop: bool = False


class Fault(_Section, frozen=True, kw_only=True):
    """A fault of the simulated machine, from `at_s` to `until_s` after the start."""

    kind: Literal[
        "bearing", "imbalance", "squeal", "hiss", "knocks", "inner_race", "rolling_element", "tooth", "wheel_tooth",
        "belt", "blade", "cavitation", "rotor_bar", "eccentricity", "electrical", "looseness", "flow", "surge",
    ]  # fmt: skip
    level_db: Annotated[float, Meta(ge=-60, le=40)] = -5.0  # RMS of the fault relative to the machine
    at_s: Annotated[float, Meta(ge=0)] = 0.0
    until_s: Positive | None = None


class SimulatedSource(_Source, frozen=True, kw_only=True, tag="simulated"):
    """A motor-driven machine: rotation, harmonics, gear mesh, flow noise, load and speed changes, faults."""

    rate_hz: Rate = 16_000
    shaft_hz: Positive = 24.9
    gear_teeth: Annotated[int, Meta(ge=0)] = 23
    wheel_teeth: Annotated[int, Meta(ge=1)] = 57
    blades: Annotated[int, Meta(ge=1)] = 7
    belt_turns: Positive = 0.26  # of the belt per turn of the shaft
    mains_hz: Positive = 50.0
    poles: Annotated[int, Meta(ge=2)] = 4
    level_dbfs: Annotated[float, Meta(ge=-80, le=-3)] = -20.0
    load_change: Annotated[float, Meta(ge=0, le=1)] = 0.1  # depth of the slow load variation
    speed_change: Annotated[float, Meta(ge=0, le=0.2)] = 0.005  # depth of the slow speed variation
    seed: Annotated[int, Meta(ge=0)] = 0
    pace: Literal["live", "fast"] = "live"
    duration_s: Positive | None = None  # None = for ever
    faults: list[Fault] = []

    def __post_init__(self) -> None:
        for fault in self.faults:
            if fault.kind in ("tooth", "wheel_tooth") and self.gear_teeth == 0:
                raise ValueError(f"faults: {fault.kind} needs a gear, and gear_teeth is 0")


class PluginSource(_Source, frozen=True, kw_only=True, tag="plugin"):
    """A source that another package brings (entry point asd_agent.sources)."""

    name: str
    options: dict[str, Any] = {}  # keywords for it


Source = MicrophoneSource | CommandSource | StdinSource | FileSource | DirectorySource | SimulatedSource | PluginSource


SEPARATE_VOTES = (4, 5)  # everyday sound of 20 s touches fewer


class Alarm(_Section, frozen=True, kw_only=True):
    """The user's number is the false-alarm budget; thresholds follow from it and from the calibration."""

    false_alarms_per_month: Positive = 1.0
    # On-delay: k anomalous of the last n assessable windows, "4/6". None = 4 of 5 where windows do not overlap, and as
    # many overlapping ones as touch as much sound: 7/9 with 10 s windows every 5 s.
    window_votes: str | None = None
    clear_votes: str = "4/5"  # off-delay: k windows below the deadband of the last n
    danger_factor: Annotated[float, Meta(gt=1)] = 1000.0  # danger: p this many times smaller than alert needs
    deadband: Annotated[float, Meta(ge=0, le=1)] = 0.15  # share of the threshold score to fall below it
    # The event rate: single transients. A transient counts from this p on; at least so many half minutes with one
    # within an hour, and more than calibration and budget allow, raise an alarm. One alone never does.
    transient_p: Annotated[float, Meta(gt=0, lt=1)] = 1e-4
    transient_repeats: Annotated[int, Meta(ge=2)] = 4
    latch: bool = False  # keep a gone alarm until it is acknowledged

    def __post_init__(self) -> None:
        for name in ("window_votes", "clear_votes"):
            if (text := getattr(self, name)) is not None:
                votes(text, name)

    def raise_votes(self, window_s: float, hop_s: float) -> tuple[int, int]:
        """How many of how many windows, `hop_s` apart, raise the alarm."""
        if self.window_votes is not None:
            return votes(self.window_votes, "window_votes")
        (k, n), share = SEPARATE_VOTES, window_s / hop_s
        return 1 + math.ceil((k - 1) * share - 1e-9), 1 + math.floor((n - 1) * share + 1e-9)


def votes(text: str, key: str) -> tuple[int, int]:
    """ "3/5" -> (3, 5). Raises ValueError with the key."""
    match = re.fullmatch(r"(\d{1,3})/(\d{1,3})", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]) <= 100:
        raise ValueError(f"{key}: {text!r} is not of the form k/n with 1 <= k <= n <= 100, e.g. 3/5")
    return int(match[1]), int(match[2])


class QualityLimits(_Section, frozen=True, kw_only=True):
    silence_dbfs: Annotated[float, Meta(le=0)] = -90.0  # quieter than any working chain
    clipped_share: Annotated[float, Meta(gt=0, le=1)] = 1e-3
    dc_share: Annotated[float, Meta(gt=0, le=1)] = 0.5  # |mean| relative to the RMS with DC
    off_db: Positive | None = 12.0  # this far below the calibrated level, and unlike it = not running; null = never


Topic = Annotated[str, Meta(pattern=r"^[^#+\s]+$")]
TopicFilter = Annotated[str, Meta(pattern=r"^([^#+/]*|\+)(/([^#+/]*|\+))*(/#)?$", min_length=1)]


class Operating(_Section, frozen=True, kw_only=True):
    """The operating state as the machine's controller reports it: its name, plain or as JSON with `state`."""

    topic: Topic
    holds_s: Positive = 120.0  # after the last message; a controller that only reports changes needs more
    settle_s: Annotated[float, Meta(ge=0, le=60)] = 2.0  # before and after a change no window is judged


class Reference(_Section, frozen=True, kw_only=True):
    """A second microphone, which hears the room and hardly the machine (docs/microphone.md)."""

    channel: Channel  # of the machine's source


class Shadow(_Section, frozen=True, kw_only=True):
    """The candidate baseline beside the active one: judged and recorded, never published."""

    bundle: str | Annotated[list[str], Meta(min_length=1)] | None = None  # None = the machine's own; another one costs


class Machine(_Section, frozen=True, kw_only=True):
    id: Identifier
    source: Source
    reference: Reference | None = None  # None = one microphone
    window_s: Annotated[float, Meta(ge=1, le=60)] = 10.0
    hop_s: Annotated[float, Meta(ge=0.1, le=60)] = 5.0
    bundle: str | Annotated[list[str], Meta(min_length=1)] = "default"
    distance: str | None = None  # None = the bundle's; else for all its embeddings, built in or of a plug-in
    mechanism: Mechanism | None = None
    operating: Operating | None = None  # None = the state is found from the sound
    alarm: Alarm = Alarm()
    quality: QualityLimits = QualityLimits()
    shadow: Shadow | None = Shadow()  # null = a candidate does not run beside the active baseline

    def __post_init__(self) -> None:
        if self.hop_s > self.window_s:
            raise ValueError(f"hop_s {self.hop_s:g} is longer than window_s {self.window_s:g}: sound would be skipped")
        if self.reference is not None and self.reference.channel == self.source.channel:
            raise ValueError(f"reference: channel {self.source.channel} is the machine's own microphone")

    @property
    def channels(self) -> tuple[int, ...]:
        """Of the source: the machine's own, and that of the reference where there is one."""
        return (self.source.channel,) if self.reference is None else (self.source.channel, self.reference.channel)

    @property
    def votes(self) -> tuple[int, int]:
        """How many of how many windows raise the alarm."""
        return self.alarm.raise_votes(self.window_s, self.hop_s)

    @property
    def bundles(self) -> tuple[str, ...]:
        return (self.bundle,) if isinstance(self.bundle, str) else tuple(self.bundle)

    @property
    def shadowed(self) -> Machine:
        """The machine with the bundle of its shadow."""
        if self.shadow is None or self.shadow.bundle is None:
            return self
        return msgspec.structs.replace(self, bundle=self.shadow.bundle)


RequestVerb = Literal[
    "status",
    "ack",
    "shelve",
    "unshelve",
    "out_of_service",
    "calibrate",
    "calibrate_without",
    "calibration",
    "cancel_calibration",
    "clip",
    "extend",
    "mark",
    "rename_state",
    "promote",
    "rollback",
    "install",
]
REQUEST_VERBS: tuple[RequestVerb, ...] = get_args(RequestVerb)


SparkplugName = Annotated[str, Meta(pattern=r"^[^#+/]+$")]


class Sparkplug(_Section, frozen=True, kw_only=True):
    """Sparkplug B 3.0 beside the native topics."""

    group: SparkplugName
    node: SparkplugName | None = None  # None = agent.id
    primary_host: SparkplugName | None = None  # data are published only while this host application is online


class Mqtt(_Section, frozen=True, kw_only=True):
    url: Annotated[str, Meta(pattern=r"^mqtts?://[^/\s@]+$")]
    username: str | None = None
    password_file: str | None = None  # or the systemd credential "mqtt-password"
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    base_topic: Annotated[str, Meta(pattern=r"^[^#+\s]+$")] = "asd"
    protocol: Literal["auto", "5", "3.1.1"] = "auto"
    keepalive_s: Annotated[int, Meta(ge=5, le=3600)] = 15
    score_interval_s: Annotated[float, Meta(ge=0)] = 0.0  # 0 = every window; else one aggregate per interval
    requests: tuple[RequestVerb, ...] = ("status", "ack", "shelve", "unshelve")  # verbs that are served over MQTT
    response_topics: tuple[TopicFilter, ...] = ()  # beside our own, where MQTT 5's response topic may lead

    # Home Assistant: one message a device, or (before 2024.11) one an entity
    discovery: Literal["homeassistant", "homeassistant-components"] | None = None
    discovery_prefix: Topic = "homeassistant"
    sparkplug: Sparkplug | None = None
    picture_max_kb: Annotated[int, Meta(ge=0, le=10_000)] = 256  # of the retained picture of the last alarm; 0 = none

    def __post_init__(self) -> None:
        if self.key_file is not None and self.cert_file is None:
            raise ValueError("key_file needs cert_file beside it")
        if self.url.startswith("mqtt:") and (self.ca_file is not None or self.cert_file is not None):
            raise ValueError("url mqtt:// is not encrypted, ca_file and cert_file would be ignored: use mqtts://")


Occasion = Literal[
    "raised",
    "escalated",
    "deescalated",
    "named",
    "cleared",
    "acknowledged",
    "not_assessable",
    "assessable",
    "chain_failure",
    "chain_out_of_specification",
    "chain_maintenance_required",
    "chain_good",
]


class Hook(_Section, frozen=True, kw_only=True):
    """Told of alarms: the payload of the event (or of the chain's health) as JSON, as it goes over MQTT."""

    command: Annotated[list[str], Meta(min_length=1)] | None = None  # argv; the JSON on its standard input
    webhook: Annotated[str, Meta(pattern=r"^https?://[^/\s]+")] | None = None  # the JSON is posted there
    headers: dict[str, str] = {}  # of the webhook, e.g. Authorization
    plugin: str | None = None  # of another package (entry point asd_agent.notifiers)
    options: dict[str, Any] = {}  # of the plug-in: its keywords
    on: tuple[Occasion, ...] = ("raised", "escalated", "cleared", "chain_failure")
    timeout_s: Annotated[float, Meta(gt=0, le=600)] = 30.0

    def __post_init__(self) -> None:
        if sum(way is not None for way in (self.command, self.webhook, self.plugin)) != 1:
            raise ValueError("notify: give one of command, webhook and plugin")


class Evidence(_Section, frozen=True, kw_only=True):
    """Clips around alarms, with scores and a picture (docs/evidence.md)."""

    enabled: bool = True
    before_s: Annotated[float, Meta(ge=0, le=120)] = 20.0  # at least, and all that the voting windows were made from
    after_s: Annotated[float, Meta(ge=0, le=120)] = 10.0
    max_age_days: Positive = 90.0
    max_total_mb: Positive = 500.0


class Agent(_Section, frozen=True, kw_only=True):
    id: Identifier
    state_dir: str = "/var/lib/asd-agent"
    socket: str | None = None  # default: $RUNTIME_DIRECTORY/control.sock, else <state_dir>/control.sock
    socket_group: str | None = None  # members may use the control socket
    score_days: Positive = 400.0  # scores older than this are deleted; alarm events never
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    evidence: Evidence = Evidence()


class Artefacts(_Section, frozen=True, kw_only=True):
    """Signed baselines and bundles that the fleet's operator sends (docs/fleet.md)."""

    public_key: Annotated[str, Meta(pattern=r"^[A-Za-z0-9+/]{43}=$")]  # Ed25519, as `asd-agent fleet key` prints it
    url: Annotated[str, Meta(pattern=r"^https://[^/\s@]+/")] | None = (
        None  # below it they may be fetched; null = nowhere
    )
    most_mb: Positive = 256.0  # of one


RESERVED = ("availability", "request", "response")  # next to the machines' topics


class Config(_Section, frozen=True, kw_only=True):
    agent: Agent
    machines: Annotated[list[Machine], Meta(min_length=1)]
    mqtt: Mqtt | None = None  # None = local only: store, control socket, log
    web: Web | None = None  # the local page; its own process, `asd-agent web`
    notify: list[Hook] = []
    artefacts: Artefacts | None = None  # None = no signed baselines or bundles are taken

    def __post_init__(self) -> None:
        ids = [m.id for m in self.machines]
        for machine_id in ids:
            if ids.count(machine_id) > 1:
                raise ValueError(f"machines: the id {machine_id!r} is used twice")
            if machine_id in RESERVED:
                raise ValueError(f"machines: the id {machine_id!r} is a topic of the agent itself: choose another")

    @property
    def subscribed_topics(self) -> frozenset[str]:
        """MQTT topics on which the machines' speed and operating state are reported."""
        speeds = {m.mechanism.speed_topic for m in self.machines if m.mechanism and m.mechanism.speed_topic}
        return frozenset(speeds | {m.operating.topic for m in self.machines if m.operating})

    def machine(self, machine_id: str) -> Machine | None:
        return next((m for m in self.machines if m.id == machine_id), None)

    @property
    def state_dir(self) -> Path:
        return Path(self.agent.state_dir)
