"""The local page (`asd-agent web`): where it listens and who may look."""

from __future__ import annotations

import ipaddress
from typing import Annotated

import msgspec
from msgspec import Meta

LOCAL_NAMES = ("localhost",)


class Web(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    listen: Annotated[str, Meta(pattern=r"^(\[[0-9a-fA-F:.]+\]|[^:\[\]\s/]+):\d{1,5}$")] = "127.0.0.1:8070"
    hosts: list[Annotated[str, Meta(pattern=r"^[A-Za-z0-9.-]+$")]] = []  # further names it is reached by
    prefix: Annotated[str, Meta(pattern=r"^(/[A-Za-z0-9._~-]+)*$")] = ""  # the path, behind a reverse proxy
    cert_file: str | None = None  # TLS with the site's own certificate (PEM)
    key_file: str | None = None
    users_file: str | None = None  # default: $STATE_DIRECTORY/users.json, else <state_dir>/web/users.json
    live_sound: bool = False  # whether people may listen to the microphone: a matter of privacy, so off

    def __post_init__(self) -> None:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file belong together")
        if self.port > 65535:
            raise ValueError(f"listen: {self.port} is not a port")

    @property
    def host(self) -> str:
        """Name or address to bind, without brackets."""
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.listen.rpartition(":")[2])

    @property
    def local(self) -> bool:
        """Only people on this machine can reach it: no password is needed."""
        return self.loopback and not self.hosts and not self.prefix

    @property
    def loopback(self) -> bool:
        if self.host in LOCAL_NAMES:
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False
