"""Last.fm 1K users (http://ocelma.net/MusicRecommendationDataset/) and HetRec 2011 (https://grouplens.org/datasets/hetrec-2011/)."""

from pipelines.raw.importers.base import Importer, Source, Target

READ = (
    "read_csv('$file', delim='\\t', header={header}, quote='', escape='', all_varchar=true, ignore_errors=true{names})"
)
HETREC_TIME = "TIMESTAMPTZ '2011-05-01 00:00:00+00'"  # when listening counts were published; they have no times


def run(source: Source, target: Target) -> None:
    """Plays of tracks with their times (1K), or listening counts of artists with the tags that users gave (HetRec)."""
    if plays := source.find("userid-timestamp-artid-artname-traid-traname.tsv*"):
        _thousand(source, target, str(plays))
    else:
        _hetrec(source, target)


def _thousand(source: Source, target: Target, plays: str) -> None:
    names = ", names=['user_id', 'stamp', 'artist_id', 'artist', 'track_id', 'track']"
    read = READ.format(header="false", names=names).replace("$file", plays.replace("'", "''"))
    item = "coalesce(nullif(track_id, ''), artist || ' - ' || track)"  # many tracks have no MusicBrainz id
    target.sql(
        "interactions",
        f"SELECT user_id, {item} AS item_id, 'play' AS event, stamp::TIMESTAMPTZ AS event_at FROM {read} WHERE {item} IS NOT NULL",
    )
    target.sql(
        "items",
        f"SELECT {item} AS item_id, any_value(track) AS title, any_value(artist) AS description, [any_value(artist)] AS tags FROM {read} WHERE {item} IS NOT NULL GROUP BY 1 ORDER BY 1",
    )
    if users := source.find("userid-profile.tsv*"):
        read = READ.format(header="true", names="")
        target.sql("users", f"SELECT #1 AS user_id, country AS segment, * FROM {read}", file=users)


def _hetrec(source: Source, target: Target) -> None:
    read = READ.format(header="true", names="")
    target.sql(
        "interactions",
        f"SELECT userID AS user_id, artistID AS item_id, 'play' AS event, weight::DOUBLE AS value, {HETREC_TIME} AS event_at FROM {read}",
        file=source.need("user_artists.dat"),
    )
    artists = f"SELECT id AS item_id, name AS title FROM {read}"
    tags, given = source.find("tags.dat"), source.find("user_taggedartists.dat")
    if not tags or not given:
        target.sql("items", artists, file=source.need("artists.dat"))
        return
    latin = READ.format(header="true", names=", encoding='latin-1'").replace("$file", "$tags")
    counted = f"""SELECT g.artistID, t.tagValue AS tag, count(*) AS n FROM {read.replace("$file", "$given")} g
                  JOIN {latin} t ON t.tagID = g.tagID GROUP BY ALL"""
    best = f"SELECT artistID, list(tag ORDER BY n DESC, tag)[:10] AS tags FROM ({counted}) GROUP BY artistID"
    query = f"SELECT a.*, b.tags FROM ({artists}) a LEFT JOIN ({best}) b ON b.artistID = a.item_id"
    target.sql("items", query, file=source.need("artists.dat"), tags=tags, given=given)


IMPORTER = Importer("lastfm", "Last.fm 1K users, HetRec 2011 Last.fm", "userid-timestamp-artid-...tsv, or user_artists.dat and artists.dat", run)  # fmt: skip
