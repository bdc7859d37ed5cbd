"""MovieLens 100K, 1M, 10M, latest, 25M, 32M (https://grouplens.org/datasets/movielens/)."""

from pipelines.raw.importers.base import Importer, Source, Target

GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
EVENTS = "'rating' AS event, rating::DOUBLE AS value, to_timestamp(stamp::BIGINT) AS event_at"


def run(source: Source, target: Target) -> None:
    """Ratings as events, movies with their genres, tags where there are any, users of 100K and 1M."""
    if source.find("u.data"):
        _hundred_thousand(source, target)
    elif source.find("ratings.dat"):
        _colons(source, target)
    else:
        _csv(source, target)


def _hundred_thousand(source: Source, target: Target) -> None:
    read = "read_csv('$file', delim='{d}', header=false, quote='', all_varchar=true, encoding='latin-1', names=[{n}])"
    ratings = read.format(d="\\t", n="'u', 'i', 'rating', 'stamp'").replace("latin-1", "utf-8")
    target.sql(
        "interactions", f"SELECT u AS user_id, i AS item_id, {EVENTS} FROM {ratings}", file=source.need("u.data")
    )
    names = ", ".join(f"'{n}'" for n in ("i", "title", "released", "video", "url", *(f"g{n}" for n in range(19))))
    genres = ", ".join(f"CASE g{n} WHEN '1' THEN '{name}' END" for n, name in enumerate(GENRES))
    items = f"""SELECT i AS item_id, title, list_filter([{genres}], lambda g: g IS NOT NULL) AS categories,
                try_strptime(released, '%d-%b-%Y') AS created_at FROM {read.format(d="|", n=names)}"""
    target.sql("items", items, file=source.need("u.item"))
    if users := source.find("u.user"):
        people = read.format(d="|", n="'user_id', 'age', 'gender', 'occupation', 'zip'")
        target.sql("users", f"SELECT *, occupation AS segment FROM {people}", file=users)


def _colons(source: Source, target: Target) -> None:
    lines = "(SELECT string_split(line, '::') AS f FROM read_csv('$file', delim='\\x01', header=false, quote='', all_varchar=true, encoding='{e}', names=['line']))"
    ratings = f"SELECT f[1] AS user_id, f[2] AS item_id, f[3] AS rating, f[4] AS stamp FROM {lines.format(e='utf-8')}"
    target.sql("interactions", f"SELECT user_id, item_id, {EVENTS} FROM ({ratings})", file=source.need("ratings.dat"))
    movies = (
        f"SELECT f[1] AS item_id, f[2] AS title, string_split(f[3], '|') AS categories FROM {lines.format(e='latin-1')}"
    )
    target.sql("items", movies, file=source.need("movies.dat"))
    if users := source.find("users.dat"):
        people = "f[1] AS user_id, f[2] AS gender, f[3] AS age, f[4] AS occupation, f[2] AS segment"
        target.sql("users", f"SELECT {people} FROM {lines.format(e='utf-8')}", file=users)


def _csv(source: Source, target: Target) -> None:
    read = "read_csv('$file', all_varchar=true, header=true)"
    ratings = f"SELECT userId AS user_id, movieId AS item_id, rating, timestamp AS stamp FROM {read}"
    target.sql("interactions", f"SELECT user_id, item_id, {EVENTS} FROM ({ratings})", file=source.need("ratings.csv*"))
    movies = f"SELECT movieId AS item_id, title, list_filter(string_split(genres, '|'), lambda g: g <> '(no genres listed)') AS categories FROM {read}"
    tags = source.find("tags.csv*")
    if tags:
        counted = f"SELECT movieId, lower(tag) AS tag, count(*) AS n FROM {read.replace('$file', '$tags')} GROUP BY ALL"
        best = f"SELECT movieId, list(tag ORDER BY n DESC, tag)[:10] AS tags FROM ({counted}) WHERE tag IS NOT NULL GROUP BY movieId"
        movies = f"SELECT m.*, t.tags FROM ({movies}) m LEFT JOIN ({best}) t ON t.movieId = m.item_id"
        target.sql("items", movies, file=source.need("movies.csv*"), tags=tags)
    else:
        target.sql("items", movies, file=source.need("movies.csv*"))


IMPORTER = Importer(
    "movielens", "MovieLens 100K, 1M, 10M, latest, 25M and 32M", "u.data and u.item, or ratings.dat and movies.dat, or ratings.csv and movies.csv", run,
)  # fmt: skip
