"""The broker's address, our credentials and TLS: read anew for each connection, so they may be renewed."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from asd_agent import config
from asd_agent.errors import PublishError

CREDENTIAL = "mqtt-password"  # the name for systemd's LoadCredential=


@dataclass(frozen=True, slots=True)
class Address:
    host: str
    port: int
    tls: bool


def address(settings: config.Mqtt) -> Address:
    """Raises PublishError for a URL that names no host or a bad port."""
    try:
        url = urlsplit(settings.url)
        port = url.port
    except ValueError as exc:
        raise PublishError(f"mqtt.url {settings.url!r}: {exc}") from exc
    if not url.hostname:
        raise PublishError(f"mqtt.url {settings.url!r}: names no host, e.g. mqtts://broker:8883")
    tls = url.scheme == "mqtts"
    return Address(url.hostname, port or (8883 if tls else 1883), tls)


def password(settings: config.Mqtt) -> str | None:
    """From mqtt.password_file, else systemd's credential; None when there is neither. Raises PublishError."""
    if settings.username is None:
        return None
    if settings.password_file is not None:
        path, key = Path(settings.password_file), "mqtt.password_file"
    elif folder := os.environ.get("CREDENTIALS_DIRECTORY"):
        path, key = Path(folder) / CREDENTIAL, "the systemd credential"
        if not path.exists():
            return None
    else:
        return None
    try:
        return path.read_bytes().decode().rstrip("\r\n")
    except OSError as exc:
        raise PublishError(f"{key} {path}: cannot be read ({exc.strerror})") from exc
    except UnicodeDecodeError:
        raise PublishError(f"{key} {path}: is not UTF-8 text") from None  # the cause would quote it


def tls_context(settings: config.Mqtt) -> ssl.SSLContext:
    """Verifies the broker against mqtt.ca_file, or the system's CAs without one. Raises PublishError."""
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
    except OSError as exc:  # ssl.SSLError is one
        raise PublishError(f"mqtt.ca_file {settings.ca_file}: {_file_trouble(exc)}") from exc
    if settings.cert_file is not None:
        try:
            # The empty password: an encrypted key is an error, not a question on the terminal.
            context.load_cert_chain(settings.cert_file, settings.key_file, password="")
        except OSError as exc:
            files = f"mqtt.cert_file {settings.cert_file}, mqtt.key_file {settings.key_file}"
            raise PublishError(f"{files}: {_file_trouble(exc)}") from exc
    return context


def explain(exc: OSError, where: str) -> str:
    """One line for a connection that could not be opened: what is wrong and where to look."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"{where}: the broker's certificate is not accepted ({exc.verify_message}): check mqtt.ca_file"
    if isinstance(exc, ssl.SSLError):
        reason = (exc.reason or str(exc)).lower().replace("_", " ")
        return f"{where}: TLS failed ({reason}): is this the TLS port, and is a mqtt.cert_file needed?"
    if isinstance(exc, ConnectionResetError) and where.startswith("mqtts"):
        return f"{where}: the other side hangs up: is this the TLS port of a broker?"
    if isinstance(exc, TimeoutError):
        return f"{where}: no answer: check address, network and firewall"
    if isinstance(exc, ConnectionRefusedError):
        return f"{where}: connection refused: is the broker running?"
    return f"{where}: {exc.strerror or exc}: check mqtt.url and the network"


def _file_trouble(exc: OSError) -> str:
    if isinstance(exc, ssl.SSLError):
        reason = (exc.reason or str(exc)).lower().replace("_", " ")
        return f"not usable ({reason}): PEM files without a passphrase are needed"
    return f"cannot be read ({exc.strerror})"
