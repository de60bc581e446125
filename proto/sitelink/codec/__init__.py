"""Values to link messages and back: frames, and the body that a batch carries.

    frames    Hello, Heartbeat, Batch, Welcome, Receipt, Envelope <--> Up, Down
    body      BatchBody <--> compressed bytes                  columns    Reading <--> columns
    brokered  what passes through a broker

Invariants: what is packed and unpacked is what it was; missing is None, never zero; a code unknown to this side raises
``MalformedFrame`` rather than being guessed at. Everything is imported from here.
"""

from sitelink.codec.body import MAX_PAYLOAD_BYTES, pack, pack_rows, unpack, unpack_columns
from sitelink.codec.brokered import decode_brokered, decode_sealed, encode_brokered, encode_sealed
from sitelink.codec.columns import POWER_SOURCES, REASONS, STATES, ReadingColumns
from sitelink.codec.frames import decode_down, decode_up, encode_down, encode_up
from sitelink.codec.moments import MalformedFrame

__all__ = [
    "MAX_PAYLOAD_BYTES",
    "POWER_SOURCES",
    "REASONS",
    "STATES",
    "MalformedFrame",
    "ReadingColumns",
    "decode_brokered",
    "decode_down",
    "decode_sealed",
    "decode_up",
    "encode_brokered",
    "encode_down",
    "encode_sealed",
    "encode_up",
    "pack",
    "pack_rows",
    "unpack",
    "unpack_columns",
]
