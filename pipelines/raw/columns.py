"""Columns of raw data by the names that are ours, and those that it cannot do without.

Does not belong here: what files call them (``sections.Source.columns``), how cells become values (``typed``).
"""

from typing import Any

import pyarrow as pa

from encoders.modalities import FILES, MODALITIES
from pipelines.lake.schemas import STRINGS, TIMESTAMP

RAW_COLUMNS: dict[str, dict[str, Any]] = {
    "interactions": {
        "user_id": pa.string(), "item_id": pa.string(), "event": pa.string(), "value": pa.float64(),
        "event_at": TIMESTAMP, "session_id": pa.string(), "recommendation_id": pa.string(),
    },
    "items": {
        "item_id": pa.string(), "title": pa.string(), "description": pa.string(),
        "categories": STRINGS, "tags": STRINGS,
        "domain": pa.string(), "price": pa.float64(), "created_at": TIMESTAMP, "updated_at": TIMESTAMP,
        "available_from": TIMESTAMP, "available_to": TIMESTAMP, "status": pa.string(),
        **{k.raw_column: STRINGS for k in FILES},
    },
    "user_content": {
        "user_id": pa.string(), "item_id": pa.string(), **dict.fromkeys(MODALITIES, pa.string()),
        "created_at": TIMESTAMP,
    },
    "users": {
        "user_id": pa.string(), "segment": pa.string(), "attributes": STRINGS, "created_at": TIMESTAMP,
        "updated_at": TIMESTAMP,
    },
    "controls": {
        "user_id": pa.string(), "item_id": pa.string(), "category": pa.string(), "tag": pa.string(),
        "wish": pa.string(), "created_at": TIMESTAMP,
    },
}  # fmt: skip


REQUIRED: dict[str, tuple[str, ...]] = {
    "interactions": ("user_id", "item_id", "event", "event_at"),
    "items": ("item_id",),
    "user_content": ("user_id", "created_at"),
    "users": ("user_id",),
    "controls": ("user_id", "wish", "created_at"),
}
