"""Signed artefacts, how an agent takes them, and what a roll-out looks at."""

from __future__ import annotations

import base64
import io
import ssl
import zipfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asd_agent import config
from asd_agent.artefact import signed
from asd_agent.baseline import BaselineStore
from asd_agent.baseline.bundles import bundle_of
from asd_agent.baseline.packed import pack
from asd_agent.encode import packed as bundles
from asd_agent.encode.bundle import Bundle
from asd_agent.errors import ArtefactError, BaselineError, BundleError
from asd_agent.fleet.health import findings, worse
from asd_agent.fleet.rollout import Artefact, stages, targets
from asd_agent.publish.messages import Messages
from asd_agent.service import install
from asd_agent.service.install import CHUNK, Installer, InstallProgress, InstallRequest
from asd_agent.service.status import AgentStatus, MachineStatus, SinkStatus
from asd_agent.types import AlarmState, ChainStatus, Level, State, rfc3339

MESSAGES = Messages("hall-1", "asd", lambda: True)
PAYLOAD = bytes(range(256)) * 400  # four chunks


@pytest.fixture(scope="module")
def key(tmp_path_factory):
    path = tmp_path_factory.mktemp("key") / "fleet.key"
    signed.new_key(path)
    assert path.stat().st_mode & 0o077 == 0
    return signed.load_key(path)


def settings(key, tmp_path: Path, **more: object) -> config.Config:
    machine = {"id": "m", "source": {"kind": "stdin", "rate_hz": 16_000}}
    artefacts = {"public_key": signed.public_key(key), **more}
    data = {"agent": {"id": "hall-1", "state_dir": str(tmp_path)}, "machines": [machine], "artefacts": artefacts}
    return msgspec.convert(data, config.Config)


def read(tmp_path: Path, data: bytes) -> tuple[signed.Header, signed.Signed, bytes]:
    path = tmp_path / "some.asd"
    path.write_bytes(data)
    return signed.read(path)


def sent(installer: Installer, own: config.Config, head: signed.Signed, payload: bytes) -> InstallProgress:
    """As `fleet promote` does it: each answer says what is wanted next."""
    progress = InstallProgress(received=0, size=len(payload))
    while not progress.installed:
        data = payload[progress.received : progress.received + CHUNK]
        request = InstallRequest(header=head.header, signature=head.signature, offset=progress.received, data=data)
        progress = installer.take(request, own)
    return progress


# -- signatures


def test_what_was_signed_is_read_back(key, tmp_path):
    header, head, payload = read(tmp_path, signed.sign(key, PAYLOAD, kind="baseline", version="v", machine="m"))
    assert payload == PAYLOAD
    assert signed.verified(head, signed.public_key(key)) == header


def test_another_key_and_every_changed_byte_are_refused(key, tmp_path):
    other = tmp_path / "other.key"
    public = signed.new_key(other)
    _, head, _ = read(tmp_path, signed.sign(key, PAYLOAD, kind="bundle", version="v"))
    with pytest.raises(ArtefactError, match="refused"):
        signed.verified(head, public)
    for i in range(0, len(head.header), 7):
        changed = head.header[:i] + chr(ord(head.header[i]) ^ 1) + head.header[i + 1 :]
        with pytest.raises(ArtefactError):
            signed.verified(signed.Signed(changed, head.signature), signed.public_key(key))


def test_a_damaged_file_and_a_key_that_is_there_already_are_one_line(key, tmp_path):
    whole = signed.sign(key, PAYLOAD, kind="bundle", version="v")
    for data in (b"", b"no", whole[:-1], whole + b"x", whole.replace(b"asd-artefact 1", b"asd-artefact 2")):
        with pytest.raises(ArtefactError):
            read(tmp_path, data)
    (tmp_path / "k").write_text("mine")
    with pytest.raises(ArtefactError, match="is there already"):
        signed.new_key(tmp_path / "k")
    assert (tmp_path / "k").read_text() == "mine"


# -- the agent


def test_an_agent_without_a_key_takes_nothing(key, tmp_path):
    own = msgspec.structs.replace(settings(key, tmp_path), artefacts=None)
    _, head, payload = read(tmp_path, signed.sign(key, PAYLOAD, kind="bundle", version="v"))
    with pytest.raises(ArtefactError, match=r"set artefacts\.public_key"):
        sent(Installer(tmp_path), own, head, payload)


@pytest.mark.parametrize(
    ("words", "more"),
    [
        ("this is 'hall-1'", {"agent": "hall-2*"}),
        ("'x', which is not configured", {"machine": "x"}),
        ("which is not configured", {"machine": "../../m"}),
    ],
)
def test_what_is_for_somebody_else_is_refused_before_a_byte_is_stored(key, tmp_path, words, more):
    artefact = signed.sign(key, PAYLOAD, **{"kind": "baseline", "version": "v", "machine": "m", **more})
    _, head, payload = read(tmp_path, artefact)
    with pytest.raises(ArtefactError, match=words):
        sent(Installer(tmp_path / "state"), settings(key, tmp_path), head, payload)
    assert not (tmp_path / "state").exists()


def test_without_a_valid_signature_nothing_is_stored(key, tmp_path):
    _, head, payload = read(tmp_path, signed.sign(key, PAYLOAD, kind="bundle", version="v"))
    forged = signed.Signed(head.header.replace('"*"', '"h*"'), head.signature)
    with pytest.raises(ArtefactError):
        sent(Installer(tmp_path / "state"), settings(key, tmp_path), forged, payload)
    assert not (tmp_path / "state").exists()


def test_chunks_that_come_twice_or_out_of_turn_change_nothing(key, tmp_path):
    _, head, payload = read(tmp_path, signed.sign(key, PAYLOAD, kind="bundle", version="v"))
    installer, own = Installer(tmp_path / "state"), settings(key, tmp_path)

    def take(offset: int, data: bytes) -> int:
        request = InstallRequest(header=head.header, signature=head.signature, offset=offset, data=data)
        return installer.take(request, own).received

    assert take(0, payload[:CHUNK]) == CHUNK
    assert take(0, payload[:CHUNK]) == CHUNK
    assert take(3 * CHUNK, payload[3 * CHUNK :]) == CHUNK
    assert take(0, b"") == CHUNK
    with pytest.raises(ArtefactError, match="longer"):
        take(CHUNK, bytes(CHUNK + 1))
    take(CHUNK, payload[CHUNK : 2 * CHUNK])
    take(2 * CHUNK, payload[2 * CHUNK : 3 * CHUNK])
    with pytest.raises(ArtefactError, match="not the one that was signed"):
        take(3 * CHUNK, bytes(len(payload) - 3 * CHUNK))
    assert take(0, b"") == 0, "what was wrong is thrown away"
    assert list((tmp_path / "state" / "incoming").iterdir()) == []


def test_one_artefact_at_a_time_is_kept(key, tmp_path):
    installer, own = Installer(tmp_path / "state"), settings(key, tmp_path)
    for number in range(3):
        _, head, payload = read(tmp_path, signed.sign(key, PAYLOAD + bytes([number]), kind="bundle", version="v"))
        request = InstallRequest(header=head.header, signature=head.signature, data=payload[:CHUNK])
        assert installer.take(request, own).received == CHUNK
    assert len(list((tmp_path / "state" / "incoming").iterdir())) == 1


def test_one_that_is_too_long_is_refused(key, tmp_path):
    _, head, payload = read(tmp_path, signed.sign(key, PAYLOAD, kind="bundle", version="v"))
    with pytest.raises(ArtefactError, match="most_mb"):
        sent(Installer(tmp_path), settings(key, tmp_path, most_mb=0.1), head, payload)


# -- what is in it


@pytest.fixture(scope="module")
def baseline(tmp_path_factory):
    """The state directory of another host, with a baseline of the machine m."""
    import soundfile
    import yaml
    from test_archive import machine_sound

    from asd_agent.cli import main

    folder = tmp_path_factory.mktemp("source")
    machine = {
        "id": "m",
        "source": {"kind": "stdin", "rate_hz": 16_000},
        "window_s": 2,
        "hop_s": 1,
        "bundle": "spectral",
    }
    (folder / "agent.yaml").write_text(
        yaml.safe_dump({"agent": {"id": "t", "state_dir": str(folder / "state")}, "machines": [machine]})
    )
    soundfile.write(folder / "normal.wav", machine_sound(30), 16_000)
    assert main(["calibrate", "-c", str(folder / "agent.yaml"), "m", "--from", str(folder / "normal.wav")]) == 0
    return BaselineStore(folder / "state", "m")


def test_a_baseline_becomes_the_candidate_and_is_the_same(key, tmp_path, baseline):
    version = baseline.pointers().candidate
    artefact = signed.sign(key, pack(baseline, version), kind="baseline", version=version, machine="m", agent="hall-*")
    _, head, payload = read(tmp_path, artefact)
    installer, own = Installer(tmp_path / "state"), settings(key, tmp_path)
    for _ in range(2):  # again changes nothing
        assert sent(installer, own, head, payload).installed == version
        store = BaselineStore(tmp_path / "state", "m")
        assert store.pointers().candidate == version
        assert store.files(version) == baseline.files(version)


def test_a_baseline_of_another_machine_or_damaged_is_refused(key, tmp_path, baseline):
    version = baseline.pointers().candidate
    whole = pack(baseline, version)
    other = msgspec.convert(
        {**msgspec.to_builtins(settings(key, tmp_path)), "machines": [
            {"id": "other", "source": {"kind": "stdin", "rate_hz": 16_000}}]}, config.Config)  # fmt: skip
    for payload, words in ((whole, "of 'm'"), (whole[:-100], "not a packed baseline")):
        artefact = signed.sign(key, payload, kind="baseline", version=version, machine="other")
        with pytest.raises(BaselineError, match=words):
            sent(Installer(tmp_path / "state"), other, *read(tmp_path, artefact)[1:])
    assert BaselineStore(tmp_path / "state", "other").versions() == []


def test_a_bundle_is_found_by_the_baseline_that_was_made_with_it(key, tmp_path, baseline):
    shipped = Bundle.load("default")
    artefact = signed.sign(key, bundles.pack(shipped), kind="bundle", version=shipped.sha256)
    _, head, payload = read(tmp_path, artefact)
    assert sent(Installer(tmp_path), settings(key, tmp_path), head, payload).installed == shipped.sha256
    one = baseline.load(baseline.pointers().candidate)
    made_with = msgspec.structs.replace(one.manifest, bundles={"spectral": shipped.sha256})
    with_it = msgspec.structs.replace(one, manifest=made_with, bundles=tmp_path / "bundles")
    assert bundle_of("spectral", with_it).folder == tmp_path / "bundles" / shipped.sha256
    assert bundle_of("spectral", with_it).sha256 == shipped.sha256
    assert bundle_of("spectral", one).sha256 == Bundle.load("spectral").sha256
    assert bundle_of("spectral", None).sha256 == Bundle.load("spectral").sha256


def test_a_bundle_takes_no_file_that_its_description_does_not_name(tmp_path):
    data = io.BytesIO(bundles.pack(Bundle.load("spectral")))
    with zipfile.ZipFile(data, "a") as archive:
        archive.writestr("../../escaped", "x")
    unpacked = bundles.unpack(data.getvalue(), tmp_path / "a" / "b")
    assert unpacked.sha256 == Bundle.load("spectral").sha256
    assert sorted(path.name for path in unpacked.folder.iterdir()) == sorted(["bundle.json", *unpacked.meta.files])
    assert not (tmp_path / "escaped").exists()
    assert not (tmp_path / "a" / "escaped").exists()
    with pytest.raises(BundleError, match="not a packed bundle"):
        bundles.unpack(b"PK no", tmp_path / "c")


# -- over HTTPS


@pytest.mark.parametrize(
    "url",
    [
        "http://deploy/x.asd",
        "https://elsewhere/x.asd",
        "https://deploy/asd/../secret",
        "file:///etc/passwd",
        "https://deploy",
    ],
)
def test_only_below_the_configured_address_is_anything_fetched(key, tmp_path, url):
    _, head, _ = read(tmp_path, signed.sign(key, PAYLOAD, kind="bundle", version="v"))
    request = InstallRequest(header=head.header, signature=head.signature, url=url)
    for more in ({}, {"url": "https://deploy/asd/"}):
        with pytest.raises(ArtefactError, match="is not fetched"):
            Installer(tmp_path / "state").take(request, settings(key, tmp_path, **more))


def test_it_is_fetched_over_https(key, tmp_path, monkeypatch):
    import http.server
    import threading
    import urllib.request

    shipped = Bundle.load("spectral")
    whole = signed.sign(key, bundles.pack(shipped), kind="bundle", version=shipped.sha256)
    _, head, _ = read(tmp_path, whole)
    context, trusting = certificate(tmp_path)
    contents = {"/asd/good.asd": whole, "/asd/other.asd": signed.sign(key, PAYLOAD, kind="bundle", version="v"),
                "/asd/short.asd": whole[:-5]}  # fmt: skip

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/asd/moved.asd":
                self.send_response(302)
                self.send_header("Location", "/asd/good.asd")
                self.end_headers()
                return
            self.send_response(200)
            self.end_headers()
            self.wfile.write(contents[self.path])

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(install, "_opener", urllib.request.build_opener(
        install._NoRedirect, urllib.request.HTTPSHandler(context=trusting)))  # fmt: skip
    folder = f"https://localhost:{server.server_port}/asd/"
    own = settings(key, tmp_path, url=folder)

    def take(name: str) -> str:
        request = InstallRequest(header=head.header, signature=head.signature, url=folder + name)
        return Installer(tmp_path / "state").take(request, own).installed

    try:
        for name, words in (("other.asd", "not the artefact"), ("short.asd", "size differs"), ("moved.asd", "Found")):
            with pytest.raises(ArtefactError, match=words):
                take(name)
        assert take("good.asd") == shipped.sha256
    finally:
        server.shutdown()
        server.server_close()


def certificate(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """For localhost: a server's context, and one that trusts it."""
    import datetime as dt

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder(name, name, private.public_key(), 1, now - dt.timedelta(1), now + dt.timedelta(1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(private, hashes.SHA256())
    )
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "key.pem").write_bytes(private.private_bytes(serialization.Encoding.PEM, *form))
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context, ssl.create_default_context(cafile=folder / "cert.pem")


# -- the roll-out


@given(st.lists(st.text(min_size=1), unique=True, max_size=40), st.floats(0.1, 100))
def test_stages_hold_every_agent_once_and_begin_with_few(agents, percent):
    found = stages(agents, percent)
    assert [agent for stage in found for agent in stage] == agents
    assert all(found)
    if len(agents) > 1 and percent <= 50:
        assert 1 <= len(found[0]) <= len(agents) * percent / 100 + 1


def machine(name: str = "m", level: Level = Level.NORMAL, **health: object) -> MachineStatus:
    alarm = AlarmState(condition=State.NORMAL, mode=State.NORMAL, level=level, reason="louder")
    fields = {"status": ChainStatus.GOOD, "reasons": (), "source_available": True, "baseline": "new"}
    return MachineStatus(
        machine=name, alarm=MESSAGES.alarm(name, alarm), health=MESSAGES.health(name, **(fields | health)), score=None,
        reported_operating="", reported_shaft_hz=None, transients_last_hour=0, shadow=None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("now", "words"),
    [
        ({}, ""),
        ({"baseline": "old"}, "not on new"),
        ({"source_available": False}, "delivers no more"),
        ({"status": ChainStatus.FAILURE, "reasons": ("no sound",)}, "signal chain failure: no sound"),
        ({"level": Level.ALERT}, "raised an alarm: louder"),
    ],
)
def test_a_machine_is_worse_off(now, words):
    found = worse(machine(baseline="old"), machine(**now), "new")
    assert words in found
    assert bool(words) == bool(found)


def test_what_was_there_before_is_no_reason_to_go_back():
    bad = {"level": Level.ALERT, "status": ChainStatus.OUT_OF_SPECIFICATION, "source_available": False}
    assert worse(machine(**bad), machine(**bad), "new") == ""


def agent(name: str, *machines: MachineStatus, **more: object) -> AgentStatus:
    sink = SinkStatus(mqtt=None, outbox=0, scores_dropped=0, findings=())
    fields = {
        "agent": name,
        "version": "1",
        "time": rfc3339(1000.0),
        "time_synced": True,
        "uptime_s": 1.0,
        "sink": sink,
    }
    return AgentStatus(**(fields | {"machines": machines} | more))


def test_doctor_finds_who_is_silent_old_late_or_deaf():
    deaf = machine(status=ChainStatus.FAILURE, reasons=("no sound",))
    known = {
        "a": agent("a", machine()),
        "b": agent("b", deaf),
        "c": agent("c", version="0", time=rfc3339(900.0)),
        "d": "offline",
    }
    found = list(findings(known, 1000.0))
    assert {(f.agent, f.serious) for f in found} == {("b", True), ("c", False), ("d", True)}
    assert {f.words for f in found if f.agent == "c"} == {
        "runs 0, most agents 1",
        "its clock is -100 s off this computer's",
    }


def test_an_artefact_goes_to_the_machine_that_it_is_for():
    def artefact(**more: str) -> Artefact:
        header = signed.Header(kind="baseline", version="v", size=1, sha256="0" * 64, **more)
        return Artefact(header, signed.Signed("", ""), b"x")

    known = {name: agent(name, machine("m"), machine("n")) for name in ("hall-1", "hall-2", "yard")}
    every = [
        (t.agent, t.machine, t.version)
        for t in targets(known, lambda m: True, [artefact(agent="hall-*", machine="m")], None)
    ]
    assert every == [("hall-1", "m", "v"), ("hall-2", "m", "v")]
    assert len(list(targets(known, lambda m: m == "n", [], "w"))) == 3


def test_a_chunk_fits_into_a_request(key):
    from asd_agent.publish.requests import MAX_BYTES

    encoded = msgspec.json.encode({"data": base64.b64encode(bytes(CHUNK)).decode(), "header": "x" * 1000})
    assert len(encoded) < MAX_BYTES
