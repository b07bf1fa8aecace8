"""How fast arms answered lately, seen by this process alone: moving averages that fade."""

from dataclasses import dataclass

from pilotage.gateway.routing.residency import Allowed

WEIGHT = 0.2  # of the newest observation
HALF_LIFE_S = 60.0  # an arm that is not asked seems twice as fast after so long, and is tried again
MOST_ARMS = 4096


@dataclass(slots=True)
class _Speed:
    mean_s: float
    is_known: bool
    touched_s: float  # when it was last chosen or heard of


class Speeds:
    """Times to the first content; streamed and plain answers are told apart."""

    def __init__(self) -> None:
        self._speeds: dict[tuple[str, bool], _Speed] = {}

    def note(self, arm_id: str, took_s: float, now_s: float, *, is_stream: bool) -> None:
        """Take in how long an arm took to its first content (a plain answer: to its end)."""
        speed = self._find(arm_id, now_s, is_stream=is_stream)
        speed.mean_s += (took_s - speed.mean_s) * (WEIGHT if speed.is_known else 1.0)
        speed.is_known = True
        speed.touched_s = now_s

    def pick(self, arms: Allowed, now_s: float, *, is_stream: bool, explores: bool) -> str:
        """Return the id of the arm that seems fastest, or (exploring) was left alone longest.

        An arm that nothing is known of is tried first, by one call at a time.
        """
        known = self._speeds

        def rank(arm_id: str) -> tuple[float, float]:
            speed = known.get((arm_id, is_stream))
            if speed is None:
                return (0.0, -1.0)
            if explores:
                return (0.0, speed.touched_s)
            if not speed.is_known:
                return (float("inf"), speed.touched_s)
            return (speed.mean_s * 0.5 ** ((now_s - speed.touched_s) / HALF_LIFE_S), 0.0)

        chosen = min((arm.id for arm in arms), key=rank)
        self._find(chosen, now_s, is_stream=is_stream).touched_s = now_s
        return chosen

    def _find(self, arm_id: str, now_s: float, *, is_stream: bool) -> _Speed:
        key = (arm_id, is_stream)
        speed = self._speeds.get(key)
        if speed is None:
            if len(self._speeds) >= MOST_ARMS:
                del self._speeds[min(self._speeds, key=lambda each: self._speeds[each].touched_s)]
            speed = self._speeds[key] = _Speed(0.0, is_known=False, touched_s=now_s)
        return speed
