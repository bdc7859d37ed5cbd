"""Yelp Open Dataset (https://www.yelp.com/dataset)."""

from pipelines.raw.importers.base import Importer, Source, Target


def run(source: Source, target: Target) -> None:
    """Stars as ratings, review texts as uploads, businesses, users."""
    reviews = source.need("*review.json*")
    columns = "{user_id: 'VARCHAR', business_id: 'VARCHAR', stars: 'DOUBLE', text: 'VARCHAR', date: 'VARCHAR'}"
    read = f"read_json('$file', format='newline_delimited', columns={columns})"
    target.sql(
        "interactions",
        f"SELECT user_id, business_id AS item_id, 'rating' AS event, stars AS value, date::TIMESTAMPTZ AS event_at FROM {read}",
        file=reviews,
    )
    target.sql(
        "user_content",
        f"SELECT user_id, business_id AS item_id, text, date::TIMESTAMPTZ AS created_at FROM {read} WHERE text <> ''",
        file=reviews,
    )
    columns = "{business_id: 'VARCHAR', name: 'VARCHAR', address: 'VARCHAR', city: 'VARCHAR', state: 'VARCHAR', categories: 'VARCHAR', is_open: 'INT'}"
    target.sql(
        "items",
        f"""SELECT business_id AS item_id, name AS title, concat_ws(', ', nullif(address, ''), city, state) AS description,
                   string_split(categories, ', ') AS categories, city AS domain,
                   CASE is_open WHEN 0 THEN 'inactive' ELSE 'active' END AS status
            FROM read_json('$file', format='newline_delimited', columns={columns})""",
        file=source.need("*business.json*"),
    )
    if users := source.find("*user.json*"):
        columns = "{user_id: 'VARCHAR', yelping_since: 'VARCHAR', review_count: 'INT', fans: 'INT'}"
        target.sql(
            "users",
            f"SELECT user_id, yelping_since::TIMESTAMPTZ AS created_at, review_count, fans FROM read_json('$file', format='newline_delimited', columns={columns})",
            file=users,
        )


IMPORTER = Importer(
    "yelp", "Yelp Open Dataset", "yelp_academic_dataset_review.json, ..._business.json, ..._user.json", run
)
