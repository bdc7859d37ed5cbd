"""What shops call events and wishes."""

import pyarrow as pa
import pytest

from pipelines.raw.event_names import SYNONYMS, canonical, meaning_of, wished
from pipelines.sections import Recommend


@pytest.mark.parametrize(
    ("written", "ours"),
    [
        ("View", "view"),
        ("PURCHASE ", "purchase"),
        ("addtocart", "cart"),
        ("Add To Cart", "cart"),
        ("add-to-cart", "cart"),
        ("transaction", "purchase"),
        ("like", "favorite"),
        ("dislike", "dislike"),
        ("pageview", "view"),
        ("book", "book"),
        ("Scroll Depth", "scroll_depth"),
    ],
)
def test_events(written: str, ours: str) -> None:
    assert meaning_of(written) == ours
    assert canonical(pa.array([written, None])).to_pylist() == [ours, None]


def test_what_nobody_likes_weighs_less_than_nothing_and_each_name_means_one_thing() -> None:
    assert Recommend().event_weights["dislike"] < 0
    every = [n for ours, names in SYNONYMS.items() for n in (ours, *names)]
    assert len(set(every)) == len(every)
    assert SYNONYMS.keys() - {"impression"} == Recommend().event_weights.keys(), "what is only shown weighs nothing"


def test_wishes() -> None:
    written = ["Hide", "not interested", "see-more", "less", "UNDO", "sing", None]
    assert wished(pa.array(written)).to_pylist() == ["hide", "hide", "more", "less", "undo", None, None]
