"""Every table of a night: columns with units, key, stage, group, parents.

Writer, checks, docs, assets and UI metadata derive from here. Does not belong here: the rules that a table must keep
(``schemas``), where it lives (``storage``), what must hold between tables (``promises``), what came back of lists
(``judged``).
"""

from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from encoders.modalities import FILES, KINDS, MODALITIES
from pipelines.lake.judged import JUDGED
from pipelines.lake.schemas import (
    STRINGS,
    TIMESTAMP,
    VECTOR,
    Column,
    Table,
)


def _c(name: str, kind: Any, description: str, nullable: bool = False) -> Column:
    return Column(name, kind, description, nullable)


def _per_modality(columns: Iterable[str]) -> tuple[Column, ...]:
    kinds: dict[str, tuple[Any, str, bool]] = {
        "vector": (VECTOR, "aligned {m} vector, null where the item has none", True)
    }
    kinds |= {"has": (pa.bool_(), "whether the item has {m}", False)}
    kinds |= {"attention": (pa.float32(), "share of the fused vector that came from {m}, 0..1", False)}
    return tuple(_c(f"{c}_{m}", kinds[c][0], kinds[c][1].format(m=m), kinds[c][2]) for c in columns for m in MODALITIES)


HEALTH = (
    _c("day", pa.date32(), "day whose number it is: the night's, or an earlier one that was stopped"),
    _c("number", pa.string(), "its name; the check is usual_<number>"),
    _c("value", pa.float64(), "what it is: a count, or a share of 0 to 1"),
    _c("usual_low", pa.float64(), "least that is usual; null where nothing is too little or known", True),
    _c("usual_high", pa.float64(), "most that is usual; null where nothing is too much or known", True),
    _c("history", pa.int64(), "days or nights before that it is compared with"),
    _c("stops", pa.bool_(), "whether a night stops where it is out of range"),
    _c("passed", pa.bool_(), "whether it is in range"),
    _c("accepted", pa.bool_(), "whether it is out of range and somebody has accepted it"),
)  # fmt: skip
TABLES: dict[str, Table] = {
    t.name: t
    for t in (
        Table(
            "std_interactions", "Typed, deduplicated events of the day.", ("user_id", "item_id", "event", "event_at"),
            (
                _c("user_id", pa.string(), "user"),
                _c("item_id", pa.string(), "item; may be unknown to the catalogue yet"),
                _c("event", pa.string(), "view, click, favorite, cart, purchase, play, skip, share, rating, ..."),
                _c("value", pa.float64(), "rating, seconds played, amount; in the source's unit", True),
                _c("event_at", TIMESTAMP, "when it happened, UTC"),
                _c("session_id", pa.string(), "session", True),
                _c("recommendation_id", pa.string(), "recommendation that led to it", True),
                _c("source", pa.string(), "raw file, relative to the raw folder"),
            ),
            stage="standardize", group="data", parents=("raw_interactions",),
            plain=("user_id", "item_id", "value", "event_at"),
        ),
        Table(
            "std_items", "The catalogue as known at the end of the day.", ("item_id",),
            (
                _c("item_id", pa.string(), "item"),
                _c("title", pa.string(), "title, NFC", True),
                _c("description", pa.string(), "description, NFC", True),
                _c("categories", STRINGS, "categories"),
                _c("tags", STRINGS, "tags"),
                _c("domain", pa.string(), "kind of item or shop section", True),
                _c("price", pa.float64(), "price in the source's currency", True),
                _c("created_at", TIMESTAMP, "when the item appeared, UTC", True),
                _c("updated_at", TIMESTAMP, "when this version of it appeared, UTC", True),
                _c("available_from", TIMESTAMP, "first moment at which it may be recommended, UTC", True),
                _c("available_to", TIMESTAMP, "moment from which it may not, UTC", True),
                _c("status", pa.string(), "lower case; what `night.rules` knows as gone is not recommended", True),
                _c("text", pa.string(), "the text that is embedded: title, description, categories, tags", True),
                _c("text_sha256", pa.string(), "sha256 of text", True),
                *(_c(k.sha_column, STRINGS, f"sha256 of each usable {k.noun}") for k in FILES),
                _c("source", pa.string(), "raw file of this version"),
            ),
            stage="standardize", group="data", parents=("raw_items", "raw_media"),
        ),
        Table(
            "std_user_content", "What users uploaded up to the day, one row a piece.",
            ("user_id", "content_sha256", "created_at"),
            (
                _c("user_id", pa.string(), "user"),
                _c("content_sha256", pa.string(), "sha256 of the text or file"),
                _c("modality", pa.string(), "text, image, audio or video"),
                _c("item_id", pa.string(), "item it is about", True),
                _c("text", pa.string(), "the text, NFC", True),
                _c("uri", pa.string(), "the file", True),
                _c("created_at", TIMESTAMP, "when it was uploaded, UTC"),
                _c("source", pa.string(), "raw file"),
            ),
            stage="standardize", group="data", parents=("raw_user_content", "raw_media"),
        ),
        Table(
            "std_users", "Who users are, as known at the end of the day.", ("user_id",),
            (
                _c("user_id", pa.string(), "user"),
                _c("segment", pa.string(), "group that lists are judged by apart", True),
                _c("attributes", STRINGS, "every other column as name=value"),
                _c("created_at", TIMESTAMP, "when the user came, UTC", True),
                _c("updated_at", TIMESTAMP, "when this version appeared, UTC", True),
                _c("source", pa.string(), "raw file of this version"),
            ),
            stage="standardize", group="data", parents=("raw_users",),
        ),
        Table(
            "std_controls", "What users wish at the end of the day: the latest of each target.",
            ("user_id", "target", "value"),
            (
                _c("user_id", pa.string(), "user"),
                _c("target", pa.string(), "item, category, tag or everything"),
                _c("value", pa.string(), "item_id, or category or tag as the catalogue writes it"),
                _c("wish", pa.string(), "hide, less or more; reset of everything: forget what was before"),
                _c("created_at", TIMESTAMP, "when it was said, UTC"),
                _c("source", pa.string(), "raw file"),
            ),
            stage="standardize", group="data", parents=("raw_controls",),
        ),
        Table(
            "std_media", "One row a distinct media file that decodes.", ("sha256",),
            (
                _c("sha256", pa.string(), "sha256 of the file's bytes"),
                _c("kind", pa.string(), "image, audio or video"),
                _c("format", pa.string(), "jpeg, png, flac, ..."),
                _c("size_bytes", pa.int64(), "file size in bytes"),
                _c("width_px", pa.int32(), "width after EXIF rotation", True),
                _c("height_px", pa.int32(), "height after EXIF rotation", True),
                _c("sample_rate_hz", pa.int32(), "sample rate", True),
                _c("channels", pa.int32(), "channels", True),
                _c("duration_s", pa.float64(), "duration in seconds; at most 180 of a sound and 600 of a video", True),
                _c("uri", pa.string(), "first reference to it, in order of name"),
            ),
            stage="standardize", group="data", parents=("raw_media",),
        ),
        Table(
            "quarantine", "Every rejected row or file.", ("stage", "source", "position", "reason", "detail"),
            (
                _c("stage", pa.string(), "stage that rejected it"),
                _c("source", pa.string(), "raw or media file"),
                _c("position", pa.int64(), "line, row of Parquet, or value of other JSON; 0 is the whole file"),
                _c("reason", pa.string(), "reason code"),
                _c("detail", pa.string(), "what was expected and what was found"),
            ),
            stage="standardize", group="quality", parents=("std_*",), by_step=True,
        ),
        Table(
            "ingest_files", "Row account of each raw file, for the rows of this day.", ("kind", "source"),
            (
                _c("source", pa.string(), "raw file"),
                _c("kind", pa.string(), "interactions, items, user_content, users or controls"),
                _c("rows_in", pa.int64(), "rows that belong to this day (items: known by its end)"),
                _c("rows_out", pa.int64(), "rows in the std table"),
                _c("rows_superseded", pa.int64(), "older versions of an item or upload that a newer row replaced"),
                _c("rows_quarantined", pa.int64(), "rejected rows"),
                _c("rows_lost", pa.int64(), "lines of a file that is refused whole, in none of the other counts"),
                _c("columns", pa.list_(pa.string()), "names in the file, of JSON those seen in its first objects"),
            ),
            stage="standardize", group="quality", parents=("quarantine",), by_step=True,
        ),
        Table(
            "night_health", "Numbers of the night's data against the range of the last nights.", ("day", "number"),
            HEALTH, stage="monitor", group="quality", parents=("std_interactions", "std_items", "ingest_files"),
        ),
        Table(
            "list_health", "How much of the lists was in those of the night before, against the last nights.",
            ("day", "number"), HEALTH, stage="score", group="quality", parents=("group:models",),
        ),
        Table(
            "floor_prices", "Shares of places and means of lists that are promised, and their prices.", ("target",),
            (
                _c("target", pa.string(), "domain:, category:, tag: or item: and a name; or diversity, novelty"),
                _c("floor", pa.float64(), "share of all places that it is promised; of lists the least mean"),
                _c("before", pa.float64(), "its share or the mean without any price, of some users"),
                _c("share", pa.float64(), "its share of all places of the night's lists, or their mean"),
                _c("price", pa.float64(), "added to the relevance of its items, which is 0 to 1; of lists to the dial"),
            ),
            stage="score", group="quality", parents=("group:models", "std_items"),
        ),
        Table(
            "item_labels", "Labels told from content, of items without any of the kind.", ("kind", "item_id", "label"),
            (
                _c("kind", pa.string(), "categories or tags"),
                _c("item_id", pa.string(), "item"),
                _c("label", pa.string(), "one that other items have"),
                _c("confidence", pa.float32(), "share of such labels that are right, 0 to 1"),
            ),
            stage="label", group="embedded", parents=("emb_*", "std_items"),
        ),
        Table(
            "item_graphs", "Items alike by what is known of them.", ("graph", "item_id", "other_item_id"),
            (
                _c("graph", pa.string(), "name in the configuration"),
                _c("item_id", pa.string(), "item"),
                _c("other_item_id", pa.string(), "item that shares something with it"),
                _c("similarity", pa.float32(), "cosine of what they share, rare things counting more; 0 to 1"),
                _c("why", pa.string(), "the rarest thing that they share: relation and entity"),
            ),
            stage="knowledge", group="embedded", parents=("std_items", "night_health"),
        ),
        Table(
            "fed_stats", "Sums over the users of several sites: who is in those of the night.", ("round", "site"),
            (
                _c("round", pa.date32(), "night whose offers of items the sum is of"),
                _c("site", pa.string(), "name of a site"),
                _c("state", pa.string(), "summed, missing (the sum goes without it), shared or waited_for"),
                _c("items", pa.int64(), "items of all sites"),
                _c("known_until", pa.date32(), "night that the site's share knows", True),
                _c("used", pa.bool_(), "whether it is the sum that the night's recommenders are made of"),
            ),
            stage="federate", group="quality", parents=("model_pooled",),
        ),
        Table(
            "privacy_ledger", "What sums that left a site tell of any one user, share by share.", ("round", "share"),
            (
                _c("round", pa.date32(), "night whose offers of items the share is of"),
                _c("share", pa.int64(), "number of the share from 1; 0 where nothing left"),
                _c("known_until", pa.date32(), "night that the share knows", True),
                _c("users", pa.int64(), "users whose feedback is in it"),
                _c("multiplier", pa.float64(), "standard deviation of its noise by what one user can change", True),
                _c("epsilon", pa.float64(), "what all shares up to it have spent, at delta"),
                _c("delta", pa.float64(), "chance that more was told than epsilon says"),
                _c("decision", pa.string(), "shared, or refused: nothing left the site"),
                _c("reason", pa.string(), "why, and what is used instead"),
            ),
            stage="federate", group="quality", parents=("model_pooled",),
        ),
        Table(
            "external_lists", "Lists that somebody else has made, as delivered last.", ("model", "user_id", "rank"),
            (
                _c("model", pa.string(), "external_ and the name in the configuration"),
                _c("user_id", pa.string(), "user"),
                _c("rank", pa.int32(), "place from 1, by their score or rank"),
                _c("item_id", pa.string(), "item"),
                _c("score", pa.float64(), "theirs, on their own scale", True),
                _c("delivered", pa.date32(), "date of the lists"),
            ),
            stage="external", group="models", parents=("night_health",),
        ),
        *(
            Table(
                f"emb_{m}", f"Vectors of {m} that the day needed and no earlier day had.",
                ("content_sha256", "encoder_digest"),
                (
                    _c("content_sha256", pa.string(), "sha256 of the content"),
                    _c("encoder_digest", pa.string(), "identity of weights and preprocessing"),
                    _c("vector", VECTOR, "unit vector"),
                ),
                stage="embed", group="embedded",
                parents=(
                    "std_items", "night_health",
                    *(("std_media",) if k.is_file else ("std_user_content", "model_finetuned")),
                ),
            )
            for m, k in KINDS.items()
        ),
        Table(
            "aug_views", "Vectors of augmented views of the day's content; training reads them, scoring never does.",
            ("content_sha256", "view_digest"),
            (
                _c("content_sha256", pa.string(), "sha256 of the content"),
                _c("view_digest", pa.string(), "identity of encoder, ops and epoch"),
                _c("modality", pa.string(), "text, image or audio"),
                _c("view", pa.int32(), "epoch that seeds the ops"),
                Column("vector", VECTOR, "unit vector, as long as the encoder's", lengths_differ=True),
            ),
            stage="augment", group="embedded", parents=("emb_*",),
        ),
        Table(
            "feat_items", "Items in the unified space.", ("item_id",),
            (
                _c("item_id", pa.string(), "item"),
                _c("vector", VECTOR, "fused vector"),
                *_per_modality(("vector", "has", "attention")),
                _c("frame", pa.string(), "identity of the axes: vectors of nights that share it can be compared"),
                _c("aligner_digest", pa.string(), "identity of the aligner"),
            ),
            stage="fuse", group="features", parents=("model_aligner",),
        ),
        Table(
            "item_codes", "Items as three small numbers, which they keep from night to night.", ("item_id",),
            (
                _c("item_id", pa.string(), "item"),
                _c("codes", pa.list_(pa.int16()), "three residual k-means codes of the vector, see code_centres"),
                _c("frame", pa.string(), "identity of the axes of what the codes stand for"),
            ),
            stage="fuse", group="features", parents=("model_aligner",),
        ),
        Table(
            "code_centres", "What the codes of items stand for.", ("level", "code"),
            (
                _c("level", pa.int16(), "place in item_codes.codes, from 0"),
                _c("code", pa.int16(), "0 to 255"),
                _c("items", pa.int64(), "items that have it"),
                _c("centre", pa.list_(pa.float64()), "an item's vector is near the sum of its codes' centres"),
            ),
            stage="fuse", group="features", parents=("model_aligner",),
        ),
        Table(
            "feat_users", "Users in the same space, from history and uploads up to the day.", ("user_id",),
            (
                _c("user_id", pa.string(), "user"),
                _c("vector", VECTOR, "unit vector; compare it with feat_items.vector by dot product"),
                _c("n_events", pa.int64(), "events with catalogue items"),
                _c("n_items", pa.int64(), "distinct items"),
                _c("n_uploads", pa.int64(), "uploaded pieces"),
                _c("last_event_at", TIMESTAMP, "latest event, UTC", True),
                _c("recency_days", pa.float64(), "days from the latest event to the end of the day", True),
                _c("frame", pa.string(), "identity of the axes: vectors of nights that share it can be compared"),
                _c("aligner_digest", pa.string(), "identity of the aligner"),
            ),
            stage="fuse", group="features", parents=("model_aligner",),
        ),
        Table(
            "reco_candidates", "Top K of every recommender for the next day.", ("model", "user_id", "rank"),
            (
                _c("model", pa.string(), "recommender"),
                _c("user_id", pa.string(), "user; * is the list for anyone else"),
                _c("rank", pa.int32(), "1 is best"),
                _c("item_id", pa.string(), "item"),
                _c("score", pa.float32(), "higher is better; comparable within one model"),
            ),
            stage="score", group="recommendations", parents=("group:models",),
        ),
        Table(
            "recommendations", "What to show tomorrow: top K a user, with the reason.", ("user_id", "rank"),
            (
                _c("user_id", pa.string(), "user; * is the list for anyone else"),
                _c("rank", pa.int32(), "1 is best"),
                _c("item_id", pa.string(), "item"),
                _c("score", pa.float32(), "higher is better"),
                _c("model", pa.string(), "recommender that served it"),
                _c("arm", pa.string(), "experiment arm"),
                _c("propensity", pa.float32(), "probability with which it was drawn; null: it was not", True),
                _c("recommendation_id", pa.string(), "night and hash; log it with what the user is shown and does"),
                _c("reason_code", pa.string(), "similar_to_history or _uploads, wished, popular, new, pinned"),
                _c("reason_value", pa.string(), "the segment, the wanted category, or what both share", True),
                _c("reason_item_ids", STRINGS, "items of the user's history that speak for it"),
                _c("reason_modality", pa.string(), "modality that makes them alike, by attention times cosine", True),
                _c("reason_attention", pa.float32(), "attention of that modality in the item's vector, 0 to 1", True),
                _c("reason_effect", pa.float32(), "share of the history's say that these items have, 0 to 1", True),
                _c("carried_from", pa.date32(), "earlier night whose list it is, where this one was stopped", True),
                _c("carried_why", pa.string(), "what stopped it", True),
            ),
            stage="score", group="recommendations",
            parents=("reco_candidates", "list_health", "std_controls", "feedback", "eval_experiments"),
        ),
        Table(
            "similar_items", "Items like an item that may be listed.", ("item_id", "basis", "rank"),
            (
                _c("item_id", pa.string(), "item"),
                _c("basis", pa.string(), "content, behaviour (liked by the same users), or both"),
                _c("rank", pa.int32(), "1 is the most similar"),
                _c("similar_item_id", pa.string(), "item like it"),
                _c("score", pa.float32(), "cosine; comparable within a basis"),
                _c("modality", pa.string(), "in which they are most alike; null by behaviour", True),
            ),
            stage="similar", group="recommendations",
            parents=("feat_items", "std_items", "std_interactions", "night_health"),
        ),
        *JUDGED,
    )
}  # fmt: skip
