"""RetailRocket (https://www.kaggle.com/datasets/retailrocket/ecommerce-dataset): events and a log of properties."""

from pipelines.raw.importers.base import Importer, Source, Target

MOST_TAGS = 30  # of an item: its properties, whose names and values are hashed


def run(source: Source, target: Target) -> None:
    """Views, carts and purchases; the log of properties as a version of the item each time one changes."""
    read = "read_csv('$file', all_varchar=true, header=true)"
    when = "to_timestamp(timestamp::BIGINT / 1000.0)"
    target.sql(
        "interactions",
        f"SELECT visitorid AS user_id, itemid AS item_id, event, transactionid AS session_id, {when} AS event_at FROM {read}",
        file=source.need("events.csv*"),
    )
    properties = source.every("item_properties*.csv*") or [source.need("item_properties*.csv")]
    files = ", ".join("'" + str(p).replace("'", "''") + "'" for p in properties)
    log = f"SELECT itemid, timestamp::BIGINT AS stamp, property, value FROM read_csv([{files}], all_varchar=true, header=true)"
    latest = f"SELECT itemid, property, arg_max(value, stamp) AS value, max(stamp) AS stamp FROM ({log}) GROUP BY ALL"
    target.sql(
        "items",
        f"""SELECT itemid AS item_id,
                   list_filter([max(value) FILTER (property = 'categoryid')], lambda c: c IS NOT NULL) AS categories,
                   CASE max(value) FILTER (property = 'available') WHEN '0' THEN 'unavailable' ELSE 'active' END AS status,
                   list(property || ' ' || value ORDER BY property)
                     FILTER (property NOT IN ('categoryid', 'available'))[:{MOST_TAGS}] AS tags
            FROM ({latest}) GROUP BY itemid ORDER BY itemid""",
    )


IMPORTER = Importer("retailrocket", "RetailRocket", "events.csv, item_properties_part1.csv, ..._part2.csv", run)
