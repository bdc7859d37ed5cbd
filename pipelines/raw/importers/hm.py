"""H&M Personalized Fashion Recommendations (https://www.kaggle.com/c/h-and-m-personalized-fashion-recommendations)."""

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.raw.importers.base import Importer, Source, Target


def run(source: Source, target: Target) -> None:
    """Pieces bought as purchases, articles with their pictures, customers with their age group as segment."""
    read = "read_csv('$file', all_varchar=true, header=true)"
    target.sql(
        "interactions",
        f"""SELECT customer_id AS user_id, article_id AS item_id, 'purchase' AS event, price::DOUBLE AS value,
                   t_dat::DATE AS event_at FROM {read}""",
        file=source.need("transactions_train.csv*", "transactions*.csv*"),
    )
    pictures = {p.stem: p for p in source.every("*.jpg")}
    target.link((p, f"images/{stem[:3]}/{stem}.jpg") for stem, p in pictures.items())
    listed = target.raw / ".pictures.parquet"
    pq.write_table(pa.table({"stem": pa.array(sorted(pictures), pa.string())}), listed)
    target.sql(
        "items",
        f"""SELECT article_id AS item_id, prod_name AS title, detail_desc AS description, index_name AS domain,
                   [product_type_name] AS categories,
                   CASE WHEN stem IS NOT NULL THEN ['images/' || left(stem, 3) || '/' || stem || '.jpg'] END AS images
            FROM {read} LEFT JOIN read_parquet('$pictures') ON stem = article_id ORDER BY article_id""",
        file=source.need("articles.csv*"),
        pictures=listed,
    )
    listed.unlink()
    if customers := source.find("customers.csv*"):
        segment = "CASE WHEN age IS NULL THEN NULL ELSE (floor(age::DOUBLE / 10) * 10)::INT || 's' END AS segment"
        target.sql(
            "users", f"SELECT customer_id AS user_id, {segment}, * EXCLUDE (customer_id) FROM {read}", file=customers
        )


IMPORTER = Importer("hm", "H&M fashion", "transactions_train.csv, articles.csv, customers.csv, images/", run)
