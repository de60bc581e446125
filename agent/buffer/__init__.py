"""Telemetry and control data, kept until the cloud says they are stored. Everything is imported from here.

schema    the tables           store      append, take, settle         thinning    room in a full buffer
rows      a batch as a row     levels     how thin it may become       figures     what a reader may know of them
salvage   what waited in a file that broke
"""

from agent.buffer.figures import BatchKey, BufferStatus, LeftOut, is_unused, left_out, numbering, waiting
from agent.buffer.schema import schema
from agent.buffer.store import Buffer

__all__ = [
    "BatchKey",
    "Buffer",
    "BufferStatus",
    "LeftOut",
    "is_unused",
    "left_out",
    "numbering",
    "schema",
    "waiting",
]
