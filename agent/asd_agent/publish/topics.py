"""Where things are published: the topics below `<base>/<agent>`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Topics:
    base: str
    agent: str

    @property
    def root(self) -> str:
        return f"{self.base}/{self.agent}"

    @property
    def availability(self) -> str:
        """Retained; also the will."""
        return f"{self.root}/availability"

    @property
    def requests(self) -> str:
        """The subscription for all verbs."""
        return f"{self.root}/request/+"

    def is_own(self, topic: str) -> bool:
        """Whether a message there would pass for one of the agent's own (responses aside)."""
        return topic.startswith(f"{self.root}/") and not topic.startswith(f"{self.root}/response/")

    def request(self, verb: str) -> str:
        return f"{self.root}/request/{verb}"

    def response(self, verb: str) -> str:
        return f"{self.root}/response/{verb}"

    def of_machine(self, machine: str, name: str) -> str:
        return f"{self.root}/{machine}/{name}"

    def machine_availability(self, machine: str) -> str:
        return self.of_machine(machine, "availability")

    def score(self, machine: str) -> str:
        return self.of_machine(machine, "score")

    def alarm(self, machine: str) -> str:
        return self.of_machine(machine, "alarm")

    def event(self, machine: str) -> str:
        return self.of_machine(machine, "event")

    def health(self, machine: str) -> str:
        return self.of_machine(machine, "health")

    def picture(self, machine: str) -> str:
        return self.of_machine(machine, "picture")
