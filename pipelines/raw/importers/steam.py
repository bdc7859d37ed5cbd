"""Steam (https://cseweb.ucsd.edu/~jmcauley/datasets.html#steam_data): reviews and games, a Python literal a line."""

import ast
import gzip
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.lake.schemas import STRINGS, TIMESTAMP
from pipelines.raw.importers.base import Importer, Source, Target

EVENTS = pa.schema(
    [("user_id", pa.string()), ("item_id", pa.string()), ("event", pa.string()), ("value", pa.float64()), ("event_at", TIMESTAMP)]
)  # fmt: skip
TEXTS = pa.schema(
    [("user_id", pa.string()), ("item_id", pa.string()), ("text", pa.string()), ("created_at", TIMESTAMP)]
)
GAMES = pa.schema(
    [
        ("item_id", pa.string()), ("title", pa.string()), ("categories", STRINGS), ("tags", STRINGS),
        ("domain", pa.string()), ("price", pa.float64()), ("created_at", pa.string()),
    ]
)  # fmt: skip


def run(source: Source, target: Target) -> None:
    """Reviews as plays with the hours played, their texts as uploads, games with genres and tags."""
    reviews = source.need("steam_reviews*.json*")
    target.write("interactions", (_event(r) for r in _literals(reviews) if _day(r)), EVENTS)
    target.write("user_content", (_text(r) for r in _literals(reviews) if _day(r) and r.get("text")), TEXTS)
    target.write("items", (_game(r) for r in _literals(source.need("steam_games*.json*")) if r.get("id")), GAMES)


def _literals(path: Path) -> Iterator[dict[str, Any]]:
    """Objects of a file; lines that are none are left out, as the data set's own reader does."""
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as f:
        for line in f:
            try:
                value = ast.literal_eval(line)
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                continue
            if isinstance(value, dict):
                yield value


def _day(review: dict[str, Any]) -> datetime | None:
    found = re.fullmatch(r"(\d{4})-(\d\d)-(\d\d)", str(review.get("date", "")))
    return datetime(int(found[1]), int(found[2]), int(found[3]), tzinfo=UTC) if found else None


def _user(review: dict[str, Any]) -> str:
    return str(review.get("user_id") or review.get("username"))


def _event(review: dict[str, Any]) -> dict[str, Any]:
    ids = {"user_id": _user(review), "item_id": str(review["product_id"])}
    return ids | {"event": "play", "value": review.get("hours"), "event_at": _day(review)}


def _text(review: dict[str, Any]) -> dict[str, Any]:
    ids = {"user_id": _user(review), "item_id": str(review["product_id"])}
    return ids | {"text": review["text"], "created_at": _day(review)}


def _game(game: dict[str, Any]) -> dict[str, Any]:
    price = game.get("price")
    return {
        "item_id": str(game["id"]),
        "title": game.get("title") or game.get("app_name"),
        "categories": game.get("genres") or [],
        "tags": game.get("tags") or [],
        "domain": game.get("developer"),
        "price": price if isinstance(price, float | int) else None,
        "created_at": game.get("release_date"),
    }


IMPORTER = Importer("steam", "Steam reviews and games", "steam_reviews.json(.gz), steam_games.json(.gz)", run)
