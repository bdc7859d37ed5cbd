"""MIND (https://msnews.github.io/): impressions of news, without headers and quotes."""

from pipelines.raw.importers.base import Importer, Source, Target

READ = "read_csv('$file', delim='\\t', header=false, quote='', escape='', all_varchar=true, names=[{names}])"


def run(source: Source, target: Target) -> None:
    """Clicks of every impression, the click history before a user's first impression, news with title and abstract."""
    for n, behaviors in enumerate(source.every("behaviors.tsv") or [source.need("behaviors.tsv")]):
        read = READ.format(names="'impression', 'user_id', 'time', 'history', 'shown'")
        rows = f"SELECT impression, user_id, strptime(time, '%m/%d/%Y %I:%M:%S %p') AS event_at, history, shown FROM {read}"
        shown = f"SELECT impression, user_id, event_at, unnest(string_split(shown, ' ')) AS item FROM ({rows})"
        clicks = f"""SELECT user_id, regexp_replace(item, '-[01]$', '') AS item_id, 'click' AS event, event_at,
                            impression AS session_id FROM ({shown}) WHERE item LIKE '%-1'"""
        first = f"SELECT user_id, arg_min(history, event_at) AS history, min(event_at) AS event_at FROM ({rows}) GROUP BY user_id"
        before = f"SELECT user_id, unnest(string_split(history, ' ')) AS item_id, 'click' AS event, event_at - INTERVAL 1 DAY AS event_at, 'history' AS session_id FROM ({first}) WHERE history <> ''"
        target.sql("interactions", f"{clicks} UNION ALL {before}", f"behaviors-{n}", file=behaviors)
    names = "'item_id', 'category', 'subcategory', 'title', 'abstract', 'url', 'title_entities', 'abstract_entities'"
    for n, news in enumerate(source.every("news.tsv") or [source.need("news.tsv")]):
        target.sql(
            "items",
            f"SELECT item_id, title, abstract AS description, [category, subcategory] AS categories FROM {READ.format(names=names)}",
            f"news-{n}",
            file=news,
        )


IMPORTER = Importer("mind", "MIND", "behaviors.tsv and news.tsv, of one part or of several below one folder", run)
