"""The shop's users, who look at the lists that they are served and react by their planted taste.

They look at places from the top, each with less patience than at the one before, and view what they like: so a better
recommender gets more views, and a log holds what was shown. Belongs here: reactions, a wish, a planted bad day, as raw
files. Does not: the shop and what its users do by themselves (``shop``).
"""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np

from demo.shop import HABITS, TASTE, THEME_OF, Habits
from pipelines.lake.schemas import EVERYONE
from pipelines.lake.storage import Lake

VISITS = 0.7  # chance that a user comes on a day
PATIENCE = 0.9  # chance to look at the next place, too
LIKES, ANYTHING = 0.35, 0.02  # chance to view an item of a theme that is all of one's taste, and of any other
BUYS = 0.15  # of what is viewed
HEADER = "uid,item_id,event,amount,ts,recommendation_id"
BAD_EVENTS = 3_800  # of one item, on a planted bad day


def _epoch(moment: datetime) -> int:
    return int(moment.timestamp())


def react(raw: Path, lake: Lake, night: date, habits: Habits = HABITS["ecommerce"]) -> int:
    """Write what users do on the day after a night with its lists; the number of views.

    The same lists have the same reactions, in the events of the kind of house. Reactions are a file of their own.
    """
    theme, taste = np.load(raw / THEME_OF), np.load(raw / TASTE)
    rows = lake.read("recommendations", night, ["user_id", "rank", "item_id", "recommendation_id"]).to_pylist()
    lists: dict[str, list[tuple[str, str]]] = {}
    for r in sorted(rows, key=lambda r: (r["user_id"], r["rank"])):
        lists.setdefault(r["user_id"], []).append((r["item_id"], r["recommendation_id"]))
    day, lines, views = night + timedelta(days=1), [HEADER], 0
    for n in range(len(taste)):
        user, rng = f"U{n:04d}", np.random.default_rng([day.toordinal(), n])
        if rng.random() > VISITS:
            continue
        moment = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(seconds=int(rng.integers(8, 22) * 3600))
        for item, recommendation in lists.get(user, lists.get(EVERYONE, [])):
            moment += timedelta(seconds=int(rng.integers(2, 20)))
            lines.append(f"{user},{item},impression,,{_epoch(moment)},{recommendation}")
            known = item.startswith("I")  # a few items of the demo are of no theme
            chance = ANYTHING + (LIKES * taste[n, theme[int(item[1:])]] if known else 0.0)
            if rng.random() < chance:
                views += 1
                lines.append(f"{user},{item},{habits.event},,{_epoch(moment) + 1},{recommendation}")
                if rng.random() < BUYS:
                    lines.append(
                        f"{user},{item},{habits.strong},{rng.uniform(5, 80):.2f},{_epoch(moment) + 2},{recommendation}"
                    )
            if rng.random() > PATIENCE:
                break
    (raw / "interactions" / f"{day}-reactions.csv").write_text("\n".join(lines) + "\n")
    return views


def hide(raw: Path, user: str, item: str, day: date) -> None:
    """Write that a user never wants to see an item again, said on a day at noon."""
    text = f"user_id,wish,item_id,created_at\n{user},hide,{item},{day}T12:00:00+00:00\n"
    (raw / "controls" / f"hidden-{day}.csv").write_text(text)


def bad_day(raw: Path, day: date) -> Path:
    """Write a log of a day in which one item is bought over and over; the file, to be taken away again."""
    start = datetime(day.year, day.month, day.day, 3, tzinfo=UTC)
    lines = [f"U{n % 7:04d},I0000,purchase,1.00,{_epoch(start) + n}," for n in range(BAD_EVENTS)]
    path = raw / "interactions" / f"{day}-bots.csv"
    path.write_text("\n".join([HEADER, *lines]) + "\n")
    return path
