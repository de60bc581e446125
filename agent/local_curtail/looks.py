"""When a miner that is being stopped is looked at next. Pure.

    sent -- 0.5 s -- look: on its way? -- 0.5 s -- look: its pace is known -- when it will be down -- look: idle

Invariant: a miner on its way down is looked at twice there where its fall lasts a second or more, so that its pace, and
with it the beginning and the end of its fall, is known (``claims``).
"""

from typing import Final

from agent.local_curtail.member import Member

LOOKS_PER_S: Final = 1000.0
"""A site's miners are looked at no more often than this, all together: more would come late, and make orders late."""
_FIRST_LOOK_S: Final = 0.5
LOOK_S: Final = 1.0
_SOON_S: Final = 0.5
_SOONEST_S: Final = 0.25
_LATEST_S: Final = 2.5
_BRISK_S: Final = 8.0
"""For so long after its order a miner that has not begun to fall is looked at more often: it may fall at one blow."""
_FALLS_SHARE: Final = 0.05
_REST_SHARE: Final = 0.05
"""A miner that counts as idle, draws more than this and has just fallen is still on its way."""
_IDLE_LOOK_S: Final = 5.0
"""How often a miner is looked at that reads idle and waits for its feeder's word."""


def first_pause_s(least_s: float) -> float:
    """Return the seconds from an order to the first look at what came of it, ``least_s`` at the least."""
    return max(least_s, _FIRST_LOOK_S)


def pause_s(member: Member, least_s: float, awaited: bool) -> float:
    """Return the seconds until ``member`` is to be looked at again, from the end of its last look on.

    ``least_s`` is how long it is left alone at the least; ``awaited`` is whether others of its feeder wait for how long
    it has run on: such are few, and looked at as if there were no others.
    """
    return max(min(least_s, _SOON_S) if awaited else least_s, _pause_s(member, awaited))


def _pause_s(member: Member, awaited: bool) -> float:
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
        soon_s = _SOONEST_S if awaited else _SOON_S
        return soon_s if last.at_s - first.at_s < _BRISK_S else LOOK_S
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
