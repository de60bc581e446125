"""Log lines: one line an event, ``key=value``, on stderr.

    ts=2026-11-24T12:00:00.000Z level=warning site_id=pecos-1 module=forwarder msg="link: ..." miner_id=...

Invariant: a line stays a line; line breaks inside a message or a traceback are escaped. No secret is ever passed in.
"""

import json
import logging
import re
from datetime import UTC, datetime
from typing import Any, Final

_PLAIN: Final = re.compile(r"[\w.:/+-]+")
_FIELDS: Final = ("miner_id", "command_id", "order_id", "plan_revision", "meter_id")


class LineFormatter(logging.Formatter):
    """Formats a record as one line of ``key=value``."""

    def __init__(self, site_id: str) -> None:
        super().__init__()
        self._site_id = site_id

    def format(self, record: logging.LogRecord) -> str:
        """Return ``record`` as one line."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        fields: dict[str, Any] = {
            "ts": at,
            "level": record.levelname.lower(),
            "site_id": self._site_id,
            "module": record.name.removeprefix("agent."),
            "msg": record.getMessage(),
        }
        fields |= {name: getattr(record, name) for name in _FIELDS if hasattr(record, name)}
        if record.exc_info:
            fields["trace"] = self.formatException(record.exc_info)
        return " ".join(f"{name}={_value(str(value))}" for name, value in fields.items())


def log_to_stderr(site_id: str, level: int = logging.INFO) -> None:
    """Send every log line of this process to stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter(site_id))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)


def _value(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)
