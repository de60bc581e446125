"""Telemetry and control data, kept until the cloud says they are stored. Everything is imported from here.

schema    the tables        store    append, take, settle        figures    what a reader may know of them
"""

from agent.buffer.figures import BatchKey, BufferStatus, is_unused, numbering, waiting
from agent.buffer.schema import schema
from agent.buffer.store import Buffer

__all__ = ["BatchKey", "Buffer", "BufferStatus", "is_unused", "numbering", "schema", "waiting"]
