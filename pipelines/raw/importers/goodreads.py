"""Goodreads (https://cseweb.ucsd.edu/~jmcauley/datasets/goodreads.html): books, interactions, reviews of a genre or all."""

from pipelines.raw.importers.base import Importer, Source, Target

WHEN = "try_strptime(date_added, '%a %b %d %H:%M:%S %z %Y')"


def run(source: Source, target: Target) -> None:
    """Ratings above 0 as ratings, books put on a shelf as favorites, review texts as uploads, books."""
    columns = "{user_id: 'VARCHAR', book_id: 'VARCHAR', rating: 'INT', review_text: 'VARCHAR', review_text_incomplete: 'VARCHAR', date_added: 'VARCHAR'}"
    read = f"read_json('$file', format='newline_delimited', columns={columns})"
    interactions = source.find("goodreads_interactions*.json*")
    reviews = source.find("goodreads_reviews*.json*")
    log = interactions or reviews or source.need("goodreads_interactions*.json*", "goodreads_reviews*.json*")
    target.sql(
        "interactions",
        f"""SELECT user_id, book_id AS item_id, CASE WHEN rating > 0 THEN 'rating' ELSE 'favorite' END AS event,
                   nullif(rating, 0)::DOUBLE AS value, {WHEN} AS event_at FROM {read} WHERE {WHEN} IS NOT NULL""",
        file=log,
    )
    if reviews:
        target.sql(
            "user_content",
            f"SELECT user_id, book_id AS item_id, review_text AS text, {WHEN} AS created_at FROM {read} WHERE review_text <> '' AND {WHEN} IS NOT NULL",
            file=reviews,
        )
    columns = "{book_id: 'VARCHAR', title: 'VARCHAR', description: 'VARCHAR', popular_shelves: 'JSON', image_url: 'VARCHAR', publisher: 'VARCHAR'}"
    target.sql(
        "items",
        f"""SELECT book_id AS item_id, title, nullif(description, '') AS description, publisher AS domain,
                   list_transform(json_extract(popular_shelves, '$[*].name'), lambda s: s->>'$')[:10] AS tags,
                   [image_url] AS image_urls
            FROM read_json('$file', format='newline_delimited', columns={columns})""",
        file=source.need("goodreads_books*.json*"),
    )


IMPORTER = Importer("goodreads", "Goodreads", "goodreads_interactions*.json.gz or goodreads_reviews*.json.gz, goodreads_books*.json.gz", run)  # fmt: skip
