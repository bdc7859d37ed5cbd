"""MicroLens (https://github.com/westlake-repl/MicroLens): pairs, titles, covers, videos named by item."""

from pipelines.raw.importers.base import Importer, Source, Target


def run(source: Source, target: Target) -> None:
    """Pairs as plays, titles, covers and clips by rule."""
    pairs = "read_csv('$file', all_varchar=true, header=true)"
    when = "to_timestamp(timestamp::BIGINT / 1000.0)"
    target.sql(
        "interactions",
        f"SELECT \"user\" AS user_id, item AS item_id, 'play' AS event, {when} AS event_at FROM {pairs}",
        file=source.need("*pairs.csv"),
    )
    titles = source.need("*titles.csv", "*title_en.csv", "*titles*.csv")
    first = titles.read_text("utf-8", errors="replace")[:200].split("\n")[0]
    header = "true" if "item" in first.lower() else "false"
    read = f"read_csv('$file', all_varchar=true, header={header}, names=['item', 'title'])"
    target.sql("items", f"SELECT item AS item_id, title FROM {read}", file=titles)
    target.lines += ["", "[items.columns]"]
    for column, folder, endings in (("images", "covers", ("jpg", "png")), ("videos", "videos", ("mp4",))):
        for ending in endings:
            files = [p for p in source.every(f"*.{ending}")]
            if files:
                target.link((p, f"{folder}/{p.name}") for p in files)
                target.lines.append(f'{column} = "{folder}/{{item_id}}.{ending}"')
                break


IMPORTER = Importer("microlens", "MicroLens", "*pairs.csv, *titles.csv, covers and videos named by item", run)
