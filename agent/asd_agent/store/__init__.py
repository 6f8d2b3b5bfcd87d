"""What must survive: scores, alarms and the outbox in one SQLite file."""

from asd_agent.store.history import History
from asd_agent.store.outbox import HOOK_TOPIC, Outbox
from asd_agent.store.reader import Reader
from asd_agent.store.records import Message, OutboxItem, ScoreRow, StoreHealth
from asd_agent.store.store import Store

__all__ = [
    "HOOK_TOPIC",
    "History",
    "Message",
    "Outbox",
    "OutboxItem",
    "Reader",
    "ScoreRow",
    "Store",
    "StoreHealth",
]
