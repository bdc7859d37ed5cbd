"""Amazon Reviews 2023 (https://amazon-reviews-2023.github.io/): reviews and metadata of a category."""

from pipelines.raw.importers.base import Importer, Source, Target


def run(source: Source, target: Target) -> None:
    """Ratings as events, review texts as uploads, products with their images listed as URLs."""
    meta = source.need("meta_*.jsonl*")
    reviews = source.need(meta.name.removeprefix("meta_"), "[!m]*.jsonl*")
    columns = "{user_id: 'VARCHAR', parent_asin: 'VARCHAR', rating: 'DOUBLE', timestamp: 'BIGINT', title: 'VARCHAR', text: 'VARCHAR'}"
    read = f"read_json('$file', format='newline_delimited', columns={columns})"
    when = "to_timestamp(timestamp / 1000.0)"
    good = "timestamp BETWEEN 315532800000 AND 7258118400000"
    target.sql(
        "interactions",
        f"SELECT user_id, parent_asin AS item_id, 'rating' AS event, rating AS value, {when} AS event_at FROM {read} WHERE {good}",
        file=reviews,
    )
    target.sql(
        "user_content",
        f"SELECT user_id, parent_asin AS item_id, concat_ws('. ', nullif(title, ''), nullif(text, '')) AS text, {when} AS created_at FROM {read} WHERE {good}",
        file=reviews,
    )
    columns = "{parent_asin: 'VARCHAR', title: 'VARCHAR', description: 'VARCHAR[]', features: 'VARCHAR[]', categories: 'VARCHAR[]', main_category: 'VARCHAR', store: 'VARCHAR', price: 'VARCHAR', images: 'JSON'}"
    target.sql(
        "items",
        f"""SELECT parent_asin AS item_id, title, array_to_string(description, chr(10)) AS description, features AS tags,
                   coalesce(nullif(categories, []), [main_category]) AS categories, store AS domain,
                   TRY_CAST(regexp_replace(price, '[^0-9.]', '', 'g') AS DOUBLE) AS price,
                   list_distinct(list_transform(json_extract(images, '$[*].large'), lambda u: u->>'$')) AS image_urls
            FROM read_json('$file', format='newline_delimited', columns={columns})""",
        file=meta,
    )
    target.lines += [
        "# Pictures are fetched from the URLs when both lines below are set:",
        '# allowed_uris = ["https://m.media-amazon.com/images/"]',
        "",
        "[items.columns]",
        '# images = "image_urls"',
    ]


IMPORTER = Importer("amazon2023", "a category of Amazon Reviews 2023", "<Category>.jsonl(.gz), meta_<Category>.jsonl(.gz)", run)  # fmt: skip
