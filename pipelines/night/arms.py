"""Which arm of which experiment each user is in, and what is served to it.

Belongs here: assignment by hash, what has been decided so far. Does not: deciding (``experiment``), lists (``score``).
"""

import hashlib
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import numpy as np

from pipelines.config import Config
from pipelines.lake.schemas import EVERYONE
from pipelines.lake.storage import Lake
from pipelines.sections import Dials

DEFAULT = "default"  # arm of who is in no experiment
FINAL = ("promote", "roll_back", "keep", "invalid")  # decisions after which an experiment is over


@dataclass(frozen=True)
class Plan:
    """What some users are served.

    Attributes:
        arm: ``experiment=arm`` of each experiment that they are in, joined by ``;``, else ``default``.
        serve: recommender whose lists are theirs.
        new_items: last places of the lists that are kept for items that nobody has liked.
        dials: what counts beside relevance.
    """

    arm: str
    serve: str
    new_items: int
    dials: Dials = field(default_factory=Dials)


@dataclass(frozen=True)
class Decision:
    """What was decided of an experiment, and on which night.

    Attributes:
        decision: ``continue`` or one of ``FINAL``.
        arm: that is served from then on.
        reason: why.
        on: night.
    """

    decision: str
    arm: str
    reason: str
    on: date


def uniform(text: str) -> float:
    """A number in [0, 1) that is the same for the same text, and as good as drawn."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48


def arm_of(user_id: str, salt: str, shares: dict[str, float]) -> str | None:
    """Arm of a user, the same for the same salt and shares; None for who is in none.

    >>> [arm_of(user, "s", {"a": 0.5, "b": 0.5}) for user in ("ann", "bob", "cy", "di")]
    ['b', 'a', 'a', 'b']
    """
    at = uniform(f"{salt}|{user_id}")
    for arm, share in shares.items():
        if at < share:
            return arm
        at -= share
    return None


def units_of(lake: Lake, day: date, users: list[str]) -> list[str]:
    """What each user falls into an arm with where that is not the user alone: ``segment NAME``, else the user id."""
    if lake.manifest("std_users", day) is None:
        return users
    rows = lake.read("std_users", day, ["user_id", "segment"])
    segment = dict(zip(rows["user_id"].to_pylist(), rows["segment"].to_pylist(), strict=True))
    return [f"segment {segment[u]}" if segment.get(u) else u for u in users]


def decisions_of(lake: Lake, day: date) -> dict[str, Decision]:
    """Experiment -> what the night has decided, those that are over included."""
    if lake.manifest("eval_experiments", day) is None:
        return {}
    rows = lake.read("eval_experiments", day).to_pylist()
    return {r["experiment"]: Decision(r["decision"], r["served_arm"], r["reason"], r["decided_on"]) for r in rows}


def plans_of(config: Config, lake: Lake, day: date, users: list[str]) -> list[Plan]:
    """What each user is served for the day after a night.

    Who stands for users without history is in no experiment. An experiment that is over serves its arm to all.
    """
    decided = decisions_of(lake, day)
    made: dict[tuple[str | None, ...], Plan] = {}
    by_segment = any(e.unit == "segment" for e in config.experiments.values())
    plans = []
    for user, unit in zip(users, units_of(lake, day, users) if by_segment else users, strict=True):
        key = tuple(
            None if user.startswith(EVERYONE) or not runs(config, name, day, decided)
            else arm_of(unit if e.unit == "segment" else user, e.salt or name, e.share_of)
            for name, e in config.experiments.items()
        )  # fmt: skip
        if key not in made:
            made[key] = _plan(config, decided, key)
        plans.append(made[key])
    return plans


def runs(config: Config, name: str, day: date, decided: dict[str, Decision]) -> bool:
    """Whether an experiment splits the lists of a night."""
    return config.experiments[name].start <= day and not is_over(config, name, decided)


def is_over(config: Config, name: str, decided: dict[str, Decision]) -> bool:
    """Whether an experiment has ended; one of before its start, or for an arm that it lacks, is of another one."""
    known = decided.get(name)
    e = config.experiments[name]
    return known is not None and known.decision in FINAL and known.on >= e.start and known.arm in e.arms


def _plan(config: Config, decided: dict[str, Decision], arms: tuple[str | None, ...]) -> Plan:
    r = config.recommend
    served: dict[str, Any] = {"serve": r.serve, "new_items": r.new_items, "dials": r.dials or Dials()}
    labels = []
    for (name, experiment), arm in zip(config.experiments.items(), arms, strict=True):
        chosen = decided[name].arm if is_over(config, name, decided) else arm
        if arm is not None:
            labels.append(f"{name}={arm}")
        if chosen in experiment.arms:
            served |= {k: v for k, v in experiment.arms[chosen] if v is not None}
    return Plan(arm=";".join(labels) or DEFAULT, **served)


def groups_of(plans: list[Plan]) -> list[tuple[Plan, np.ndarray]]:
    """Distinct plans, each with the places of its users in order."""
    places: dict[Plan, list[int]] = {}
    for n, plan in enumerate(plans):
        places.setdefault(plan, []).append(n)
    return [(plan, np.array(at)) for plan, at in places.items()]
