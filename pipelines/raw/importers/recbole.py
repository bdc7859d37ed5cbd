"""RecBole atomic files (https://recbole.io/atomic_files.html) and MMRec's .inter with *_feat.npy."""

from pathlib import Path

from pipelines.raw.importers.base import Importer, Source, Target

FEATURES = {"image": ("image_feat.npy", "visual_feat.npy"), "text": ("text_feat.npy",), "audio": ("audio_feat.npy",)}


def run(source: Source, target: Target) -> None:
    """Interactions, items and users with their typed headers; features by row of the item's number."""
    inter = source.need("*.inter")
    header = _header(inter)
    user, item = _one_of(header, "user_id", "userID", "uid"), _one_of(header, "item_id", "itemID", "iid")
    stamp, rating = _one_of(header, "timestamp", "time"), _one_of(header, "rating", "label")
    when = f'to_timestamp("{stamp}"::DOUBLE)' if stamp else "TIMESTAMPTZ '2000-01-01 00:00:00+00'"
    value = f'"{rating}"::DOUBLE' if rating else "NULL::DOUBLE"
    event = "'rating'" if rating else "'view'"
    target.sql(
        "interactions",
        f'SELECT "{user}" AS user_id, "{item}" AS item_id, {event} AS event, {value} AS value, {when} AS event_at FROM {_read()}',
        file=inter,
    )
    items = source.find("*.item")
    if items:
        target.sql("items", f"SELECT {_selected(items)} FROM {_read()}", file=items)
    else:
        target.sql("items", f'SELECT DISTINCT "{item}" AS item_id FROM {_read()} ORDER BY 1', file=inter)
    if users := source.find("*.user"):
        target.sql("users", f"SELECT {_selected(users)} FROM {_read()}", file=users)
    for modality, names in FEATURES.items():
        features = source.find(*names)
        if features:
            target.link([(features, f"features/{features.name}")])
            target.lines += ["", f"[encoders.{modality}]", f'model = "features/{features.name}"']


def _read() -> str:
    return "read_csv('$file', delim='\\t', header=true, quote='', escape='', all_varchar=true)"


def _header(path: Path) -> list[str]:
    with path.open(encoding="utf-8") as f:
        return f.readline().rstrip("\r\n").split("\t")


def _one_of(header: list[str], *names: str) -> str | None:
    """The column of a header that is one of some names, whatever its type."""
    return next((h for n in names for h in header if h.split(":")[0] == n), None)


def _selected(path: Path) -> str:
    """Columns under our names; sequences of tokens become lists."""
    ours = {
        "item_id": ("item_id", "itemID"), "user_id": ("user_id", "userID"), "title": ("title", "movie_title", "name", "item_name"),
        "categories": ("categories", "class", "genre", "genres", "category"), "description": ("description", "overview"),
    }  # fmt: skip
    meant = {h: o for o, names in ours.items() for n in names for h in _header(path) if h.split(":")[0] == n}
    parts = []
    for h in _header(path):
        name = meant.get(h, h.split(":")[0])
        is_list = h.endswith(":token_seq") and name not in ("title", "description")
        theirs, name = (part.replace('"', '""') for part in (h, name))
        parts.append(f'string_split("{theirs}", \' \') AS "{name}"' if is_list else f'"{theirs}" AS "{name}"')
    return ", ".join(parts)


IMPORTER = Importer("recbole", "RecBole atomic files, MMRec data sets", "*.inter, with *.item, *.user or *_feat.npy beside it", run)  # fmt: skip
