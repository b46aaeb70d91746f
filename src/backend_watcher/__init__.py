"""Backend Watcher keeps caches, replicas, figures and services in step with PostgreSQL, and proves it."""

from backend_watcher.errors import Retry, Skip
from backend_watcher.events.change import Change, Operation
from backend_watcher.events.message import Message
from backend_watcher.events.position import Position
from backend_watcher.events.row import ABSENT, UNCHANGED, Row
from backend_watcher.events.schema_change import SchemaChange
from backend_watcher.service.watcher import Watcher
from backend_watcher.version import __version__

__all__ = [
    "ABSENT",
    "UNCHANGED",
    "Change",
    "Message",
    "Operation",
    "Position",
    "Retry",
    "Row",
    "SchemaChange",
    "Skip",
    "Watcher",
    "__version__",
]
