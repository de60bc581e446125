"""When a miner that is being stopped is looked at next. Pure.

    sent -- 0.5 s -- look: on its way? -- 0.5 s -- look: its pace is known -- when it will be down -- look: idle

Invariant: a miner on its way down is looked at twice there where its fall lasts a second or more, so that its pace, and
with it the beginning and the end of its fall, is known (``claims``).
"""

from typing import Final

from agent.local_curtail.member import Member

FIRST_LOOK_S: Final = 0.5
LOOK_S: Final = 1.0
_SOON_S: Final = 0.5
_SOONEST_S: Final = 0.25
_LATEST_S: Final = 2.5
_BRISK_S: Final = 3.0
"""For so long after its order a miner that has not begun to fall is looked at more often: it may fall at one blow."""
_FALLS_SHARE: Final = 0.05
_REST_SHARE: Final = 0.05
"""A miner that counts as idle, draws more than this and has just fallen is still on its way."""
_IDLE_LOOK_S: Final = 5.0
"""How often a miner is looked at that reads idle and waits for its feeder's word."""


def pause_s(member: Member) -> float:
    """Return the seconds until ``member`` is to be looked at again, from the end of its last look on."""
    if member.resumed or member.seen is None or not member.knots:
        return LOOK_S
    first, last = member.knots[0], member.knots[-1]
    if member.idle_s is not None:
        return (
            _SOON_S
            if _REST_SHARE * member.drawn_w < member.drawn_w - last.fallen_w and _moves(member)
            else _IDLE_LOOK_S
        )
    if last.fallen_w < _FALLS_SHARE * member.drawn_w:
        return _SOON_S if last.at_s - first.at_s < _BRISK_S else LOOK_S
    before = member.knots[-2] if len(member.knots) > 1 else last
    if before.fallen_w < _FALLS_SHARE * member.drawn_w:
        return _SOON_S
    pace_w_per_s = (last.fallen_w - before.fallen_w) / (last.at_s - before.at_s)
    if pace_w_per_s <= 0.0:
        return LOOK_S
    return min(_LATEST_S, max(_SOONEST_S, (member.drawn_w - last.fallen_w) / pace_w_per_s))


def _moves(member: Member) -> bool:
    """Return whether the last look showed less power than the one before."""
    return len(member.knots) > 1 and member.knots[-1].fallen_w - member.knots[-2].fallen_w > (
        _FALLS_SHARE * member.drawn_w
    )
