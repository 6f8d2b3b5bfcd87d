"""What docs/security.md promises of each trust boundary, line by line. Brokers and pages have tests of their own."""

from __future__ import annotations

import io
import os
import random
import resource
import socket
import stat
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import soundfile

from asd_agent import config
from asd_agent.capture.files import read_file
from asd_agent.encode.bundle import Bundle
from asd_agent.encode.encoder import Encoder
from asd_agent.errors import AsdError, BundleError, ConfigError, SourceError, UsageError
from asd_agent.evidence.clip import expire_clips
from asd_agent.files import load_arrays, save_arrays
from asd_agent.mechanism.speed import from_message
from asd_agent.publish import Messages
from asd_agent.publish.requests import Request, RequestDesk
from asd_agent.service import control
from asd_agent.service.commands import Commands
from asd_agent.service.control import ControlServer, ask
from asd_agent.service.reported import parsed
from asd_agent.store import Message

MIB = 1 << 20
DEEP = b"[" * 100_000 + b"]" * 100_000
MACHINE = "machines: [{id: m, source: {kind: simulated}"


# -- requests over MQTT


class Desk:
    """A request desk whose answers are kept."""

    def __init__(self, **settings: Any) -> None:
        self.answers: list[Message] = []
        self.handled: list[tuple[str, dict[str, Any]]] = []
        mqtt = config.Mqtt(url="mqtt://127.0.0.1", **settings)
        self._desk = RequestDesk(mqtt, self._handle, Messages("a", "asd", lambda: True), self.answers.append)

    def _handle(self, verb: str, data: dict[str, Any]) -> str:
        self.handled.append((verb, data))
        return "done"

    def ask(self, payload: bytes, verb: str = "status", **more: Any) -> dict[str, Any]:
        self._desk._serve(Request(verb, payload, **more))
        found: dict[str, Any] = msgspec.json.decode(self.answers[-1].payload)
        return found


@pytest.mark.parametrize(
    "payload",
    [b"x" * 70_000, DEEP, b'{"a": NaN}', b"[1]", b'"text"', b"\xff\xfe", b"{", b'{"a": 1e999999}', b"null"],
)
def test_a_hostile_request_is_refused_in_one_line(payload: bytes) -> None:
    desk = Desk()
    answer = desk.ask(payload)
    assert answer["status"] == "error"
    assert "internal error" not in answer["error"]
    assert desk.handled == []


def test_a_retained_request_is_refused() -> None:
    desk = Desk()
    assert "retained" in desk.ask(b"{}", retained=True)["error"]
    assert desk.handled == []


@pytest.mark.parametrize("verb", ["calibrate", "promote", "../status", "", "out_of_service"])
def test_only_the_verbs_of_the_configuration_are_served(verb: str) -> None:
    desk = Desk()
    assert desk.ask(b"{}", verb)["status"] == "error"
    assert desk.handled == []


@pytest.mark.parametrize("topic", ["asd/a/m/alarm", "asd/b/response/status", "homeassistant/x", "#", "$SYS/x", ""])
def test_an_answer_goes_nowhere_but_below_our_own_response_topic(topic: str) -> None:
    desk = Desk()
    desk.ask(b"{}", response_topic=topic)
    assert desk.answers[-1].topic == "asd/a/response/status"
    desk.ask(b"{}", response_topic="asd/a/response/me")
    assert desk.answers[-1].topic == "asd/a/response/me"


def test_a_flood_of_10000_requests_is_answered_and_bounded() -> None:
    answers: list[Message] = []
    begun = threading.Event()

    def slow(verb: str, data: dict[str, Any]) -> str:
        begun.wait(30)
        return "done"

    mqtt = config.Mqtt(url="mqtt://127.0.0.1")
    desk = RequestDesk(mqtt, slow, Messages("a", "asd", lambda: True), answers.append)
    desk.start()
    before = threading.active_count()
    began_s = time.monotonic()
    for _ in range(10_000):
        desk.receive(Request("status", b"{}"))
    assert time.monotonic() - began_s < 60
    assert threading.active_count() == before
    assert len(answers) >= 10_000 - 20
    begun.set()
    desk.stop()


@pytest.mark.parametrize("payload", [DEEP, b"\xff" * 100, b"1e999", b"-1", b'{"rpm": "x"}', b"{}" * 1000, b""])
def test_a_hostile_speed_or_state_is_no_value(payload: bytes) -> None:
    assert from_message(payload) is None
    assert parsed(payload) is None or payload == b"-1" or payload == b"1e999"


# -- commands


class FakeDaemon:
    changing = threading.RLock()

    def machine(self, name: str) -> Any:
        raise UsageError(f"there is no machine {name!r}")

    def status(self) -> dict[str, Any]:
        return {}


@pytest.mark.parametrize(
    ("verb", "args"),
    [
        ("ack", {"machine": "../../etc/passwd"}),
        ("ack", {"machine": "a\0b"}),
        ("ack", {"machine": "m", "by": "x" * 10_000}),
        ("ack", {"machine": ["m"]}),
        ("ack", {"machine": None}),
        ("ack", {}),
        ("ack", {"machine": "m", "unknown": 1}),
        ("shelve", {"machine": "m", "minutes": -1.0}),
        ("shelve", {"machine": "m", "minutes": 1e300}),
        ("shelve", {"machine": "m", "until": "soon"}),
        ("calibrate", {"machine": "m", "duration_s": 1e300}),
        ("calibrate", {"machine": "m", "paths": ["a\0b"]}),
        ("promote", {"machine": "m", "version": "../../x"}),
        ("nonsense", {}),
    ],
)
def test_a_wrong_command_is_one_line(verb: str, args: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        Commands(FakeDaemon())(verb, args)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


# -- the control socket


@pytest.fixture
def server(tmp_path: Path) -> Any:
    made = ControlServer(tmp_path / "control.sock", lambda verb, args: verb)
    yield made
    made.close()


def connected(server: ControlServer) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(10)
    sock.connect(str(server.path))
    return sock


def served(server: ControlServer) -> bool:
    try:
        with connected(server) as sock:
            sock.sendall(b'{"verb": "status"}\n')
            return b'"ok"' in sock.recv(1000)
    except OSError:
        return False


def test_the_socket_is_for_its_user_and_group_only(server: ControlServer) -> None:
    assert stat.S_IMODE(server.path.stat().st_mode) == 0o660


def test_1000_connections_cost_a_bounded_number_of_threads(server: ControlServer) -> None:
    before = threading.active_count()
    held = []
    try:
        for _ in range(1000):
            try:
                held.append(connected(server))
            except OSError:  # nobody takes it up at once: as good as refused
                continue
        assert threading.active_count() - before <= control.MOST_CLIENTS + 1
    finally:
        for sock in held:
            sock.close()
    deadline = time.monotonic() + 20
    while not served(server):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_slow_client_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "IDLE_S", 0.3)
    server = ControlServer(tmp_path / "control.sock", lambda verb, args: verb)
    try:
        with connected(server) as sock:
            sock.sendall(b'{"verb":')
            assert sock.recv(10) == b""  # closed from the other side
        assert served(server)
    finally:
        server.close()


@pytest.mark.parametrize("frame", [b"x" * (3 * MIB) + b"\n", DEEP + b"\n", b"\0\xff\n", b'{"verb": 1}\n'])
def test_a_hostile_frame_is_answered_with_an_error(server: ControlServer, frame: bytes) -> None:
    with connected(server) as sock:
        try:
            sock.sendall(frame)
        except OSError:
            pass  # it stopped reading
        try:
            assert b'"error"' in sock.recv(1000)
        except ConnectionResetError:
            pass
    assert served(server)


def test_an_argument_that_is_no_text_is_one_line(tmp_path: Path, server: ControlServer) -> None:
    settings = config.parse(f"agent: {{id: a, state_dir: {tmp_path}}}\n{MACHINE}}}]", "x")
    with pytest.raises(UsageError, match="not UTF-8"):
        ask(settings, "ack", by="\udcff")


# -- configuration


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
            f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(9)
        ), "aliases"),
        ("!!python/object/apply:os.system ['true']", "not valid YAML"),
        ("agent: !!python/name:os.system", "not valid YAML"),
        ("[" * 5000 + "]" * 5000, "not valid YAML"),
        ("x" * (2 * MIB), "longer than"),
        (f"agent: {{id: a}}\n{MACHINE}, bundle: \"a\\0b\"}}]", r"machines\[0\]\.bundle: holds a NUL"),
        ("agent: {id: a}\nmachines: [{id: m, source: {kind: command, argv: [\"a\\0b\"], rate_hz: 8000}}]", "NUL"),
        ("agent: {id: a}\nmachines: [{id: m, source: {kind: file, path: \"a\\0b\"}}]", "NUL"),
        ("agent: {id: a}\nmachines: [{id: m, source: {kind: microphone, device: \"\\0\"}}]", "NUL"),
        ("agent: {id: a}\nmachines: [{id: m, source: {kind: simulated, seed: -1}}]", "seed"),
        ("agent: {id: ../x}\nmachines: []", "agent.id"),
        ("agent: {id: a}\nmachines: [{id: ../../etc, source: {kind: simulated}}]", "id"),
        ("agent: {id: a}\nmachines: [{id: \"a\\0\", source: {kind: simulated}}]", "NUL"),
    ],
)  # fmt: skip
def test_a_hostile_configuration_is_one_line(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        config.parse(text, "agent.yaml")
    assert "\n" not in str(caught.value)


# -- bundles


def bundle_of(folder: Path, model: Any) -> Path:
    """A folder that claims to be a bundle with this ONNX model; its checksums are right."""
    import hashlib

    source = Bundle.load("spectral")
    meta = msgspec.to_builtins(source.meta)
    folder.mkdir()
    data = model.SerializeToString()
    (folder / "encoder.onnx").write_bytes(data)
    variants = {"fp32": {"file": "encoder.onnx", "sha256": hashlib.sha256(data).hexdigest()}}
    outputs = [{"name": "e", "dim": 4, "distance": "whitened"}]
    meta |= {"name": "hostile", "variants": variants, "outputs": outputs, "window_samples": None, "min_samples": 16}
    (folder / "bundle.json").write_bytes(msgspec.json.encode(meta))
    return folder


def model_with(nodes: Any, initializers: Any = ()) -> Any:
    onnx = pytest.importorskip("onnx")
    x = onnx.helper.make_tensor_value_info("waveform", 1, ["batch", "samples"])
    y = onnx.helper.make_tensor_value_info("e", 1, ["batch", 4])
    graph = onnx.helper.make_graph(list(nodes), "g", [x], [y], list(initializers))
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    model.ir_version = 9
    return model


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "link"])
def test_a_bundle_reads_no_file_outside_of_its_folder(tmp_path: Path, location: str) -> None:
    onnx = pytest.importorskip("onnx")
    secret = tmp_path / "secret"
    secret.write_bytes(np.arange(4, dtype=np.float32).tobytes())
    tensor = onnx.TensorProto(name="w", data_type=1, dims=[1, 4], data_location=1)
    for key, value in (("location", location), ("offset", "0"), ("length", "16")):
        tensor.external_data.add(key=key, value=value)
    node = onnx.helper.make_node("Identity", ["w"], ["e"])
    folder = bundle_of(tmp_path / "bundle", model_with([node], [tensor]))
    (folder / "link").symlink_to(secret)
    with pytest.raises(BundleError) as caught:
        Encoder(Bundle.load(folder))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file", ["../encoder.onnx", "/etc/passwd", "a/b.onnx", ".onnx"])
def test_a_bundle_names_files_of_its_own_folder_only(tmp_path: Path, file: str) -> None:
    source = Bundle.load("spectral")
    meta = msgspec.to_builtins(source.meta)
    meta["variants"] = {"fp32": {"file": file, "sha256": "0" * 64}}
    (tmp_path / "bundle.json").write_bytes(msgspec.json.encode(meta))
    with pytest.raises(BundleError, match="not a valid bundle"):
        Bundle.load(tmp_path)


def test_a_graph_of_absurd_shapes_ends_in_one_line_within_a_memory_limit(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    shape = onnx.helper.make_tensor("s", 7, [2], [1 << 20, 1 << 20])
    node = onnx.helper.make_node("ConstantOfShape", ["s"], ["big"])
    total = onnx.helper.make_node("ReduceSum", ["big"], ["sum"], keepdims=1)
    wide = onnx.helper.make_tensor("w", 7, [2], [1, 4])
    last = onnx.helper.make_node("Expand", ["sum", "w"], ["e"])
    folder = bundle_of(tmp_path / "bundle", model_with([node, total, last], [shape, wide]))
    code = (
        "import resource, sys, numpy as np\n"
        f"resource.setrlimit(resource.RLIMIT_AS, ({2048 * MIB}, {2048 * MIB}))\n"
        "from asd_agent.encode.bundle import Bundle\n"
        "from asd_agent.encode.encoder import Encoder\n"
        "from asd_agent.errors import BundleError\n"
        "try:\n    Encoder(Bundle.load(sys.argv[1])).embed(np.zeros(4096, np.float32))\n"
        "except BundleError as exc:\n    print('refused', exc)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("refused"), done.stderr[-500:]


# -- arrays and evidence


def test_arrays_come_back(tmp_path: Path) -> None:
    arrays = {"a": np.arange(6.0).reshape(2, 3), "b/c": np.array(["x"]), "e": np.empty((0, 3), np.float32)}
    save_arrays(tmp_path / "x.npz", arrays)
    found = load_arrays(tmp_path / "x.npz", MIB)
    assert found.keys() == arrays.keys()
    assert all(np.array_equal(found[name], arrays[name]) for name in arrays)


def header_bomb() -> bytes:
    member = io.BytesIO()
    np.lib.format.write_array_header_1_0(member, {"descr": "<f8", "fortran_order": False, "shape": (1 << 40,)})
    return member.getvalue()


@pytest.mark.parametrize("kind", ["header", "zip bomb", "pickle", "garbage", "not a zip"])
def test_hostile_arrays_are_refused_without_taking_memory(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.npz"
    members = {"header": header_bomb(), "garbage": b"\x93NUMPY\x09\x09junk"}
    if kind == "not a zip":
        path.write_bytes(b"PK" + os.urandom(1000))
    elif kind == "pickle":
        np.savez(path, a=np.array([{"a": 1}], dtype=object))
    else:
        content = members.get(kind, b"\0" * (64 * MIB))
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.npy", content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises((ValueError, OSError, zipfile.BadZipFile)):
        load_arrays(path, 32 * MIB)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024


def test_the_expiry_of_evidence_follows_no_links(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious.flac").write_bytes(b"x")
    folder = tmp_path / "evidence"
    (folder / "m").mkdir(parents=True)
    (folder / "link").symlink_to(elsewhere)
    (folder / "m" / "file.flac").symlink_to(elsewhere / "precious.flac")
    (folder / "m" / "old.flac").write_bytes(b"x")
    assert expire_clips(folder, time.time() + 1e9, 1.0, 0.0) == 1
    assert (elsewhere / "precious.flac").exists()


# -- recordings

FORMATS = {"wav": "PCM_16", "flac": "PCM_16", "ogg": "VORBIS", "aiff": "PCM_24", "mp3": "MPEG_LAYER_III",
           "au": "PCM_16", "caf": "PCM_16", "w64": "FLOAT"}  # fmt: skip
MUTANTS = 500


@pytest.mark.parametrize("suffix", sorted(FORMATS))
def test_mutated_recordings_are_read_or_refused(tmp_path: Path, suffix: str) -> None:
    """Bounded in time and memory, and nothing but a SourceError comes out."""
    rng = random.Random(suffix)
    good = tmp_path / f"good.{suffix}"
    try:
        soundfile.write(good, 0.1 * np.random.default_rng(1).standard_normal(2000), 16_000, FORMATS[suffix])
    except (soundfile.LibsndfileError, ValueError) as exc:
        pytest.skip(f"this libsndfile cannot write {suffix}: {exc}")
    data = good.read_bytes()
    path = tmp_path / f"mutant.{suffix}"
    refused: list[str] = []
    for _ in range(MUTANTS):
        mutant = bytearray(data)
        for _ in range(rng.choice((1, 1, 2, 8, 40))):
            at = rng.randrange(min(len(mutant), rng.choice((64, 256, len(mutant)))))
            mutant[at] = rng.choice((0, 255, 127, 128, rng.randrange(256)))
        if rng.random() < 0.2:
            del mutant[rng.randrange(len(mutant)) :]
        path.write_bytes(mutant)
        frames = 0
        try:
            for block in read_file(path):
                frames += block.samples.size
                assert block.samples.nbytes <= 1024 * MIB
                if frames > 50_000_000:
                    break  # a header that claims hours: read as it comes, block by block
        except SourceError as exc:
            refused.append(str(exc))
    assert refused
    assert not any("\n" in line for line in refused)


def test_a_header_that_claims_a_thousand_channels_is_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "x.wav", np.zeros((10, 1000), np.float32), 16_000)
    with pytest.raises(SourceError, match="claims 1000 channels"):
        list(read_file(tmp_path / "x.wav"))


# -- secrets

PASSWORD = "geheim-7f3a"


def test_the_password_is_in_no_message_and_no_state(tmp_path: Path) -> None:
    """A daemon with a password: not in its log, its status, its command line, its environment or its files."""
    (tmp_path / "password").write_text(PASSWORD)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    text = (
        f"agent: {{id: a, state_dir: {tmp_path / 'state'}, log_level: debug}}\n"
        f"mqtt: {{url: 'mqtt://127.0.0.1:{port}', username: u, password_file: {tmp_path / 'password'}}}\n"
        f"{MACHINE}, window_s: 1, hop_s: 0.5}}]\n"
    )
    (tmp_path / "agent.yaml").write_text(text)
    command = [sys.executable, "-m", "asd_agent", "run", "-c", str(tmp_path / "agent.yaml")]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        settings = config.load(tmp_path / "agent.yaml")
        deadline = time.monotonic() + 60
        status: Any = None
        while status is None or not status["machines"][0]["health"]["windows_scored"]:
            assert time.monotonic() < deadline
            try:
                status = ask(settings, "status")
            except AsdError:
                time.sleep(0.1)
        said = [msgspec.json.encode(status), (tmp_path / "log").read_bytes()]
        said += [Path(f"/proc/{process.pid}/{name}").read_bytes() for name in ("cmdline", "environ")]
        said += [path.read_bytes() for path in (tmp_path / "state").rglob("*") if path.is_file()]
        assert not any(PASSWORD.encode() in text for text in said)
        for path in (tmp_path / "state").rglob("*"):
            if path.is_file():
                assert stat.S_IMODE(path.stat().st_mode) & 0o027 == 0, path
    finally:
        process.kill()
        process.wait()
