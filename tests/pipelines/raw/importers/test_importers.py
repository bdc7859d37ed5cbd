"""Each data set in its own format, a few rows, to std tables through the configuration that the importer wrote."""

import gzip
import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from assets.cli import main
from encoders.settings import ModelChoice
from pipelines.config import Config, load_config
from pipelines.lake.storage import Lake
from pipelines.raw.importers.base import DataSetError
from pipelines.raw.importers.registry import IMPORTERS, import_set
from pipelines.standardize import standardize
from tests.payloads import picture

Tables = dict[str, list[dict[str, Any]]]


def imported(tmp_path: Path, name: str, files: dict[str, str | bytes]) -> tuple[Config, Tables]:
    """The configuration, and events, items, uploads, users as the last night knows them."""
    source = tmp_path / "published"
    for path, content in files.items():
        place = source / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content if isinstance(content, bytes) else content.encode())
    written, _ = import_set(name, source, tmp_path / "raw")
    config = load_config(written)
    day = config.end_date
    assert day is not None
    plain = config.model_copy(update={"start_date": day.replace(day=1)} if (day - config.start_date).days > 400 else {})
    lake = Lake(tmp_path / "lake")
    list(standardize(plain, lake, day))
    events = [r for d in lake.days("std_interactions") for r in lake.read("std_interactions", d).to_pylist()]
    rejects = [r for d in lake.days("quarantine") for r in lake.read("quarantine", d).to_pylist()]
    assert {r["reason"] for r in rejects if r["position"] and "fields" not in r["stage"]} <= {"before_start_date"}
    tables = {t: lake.read(t, day).to_pylist() for t in ("std_items", "std_user_content", "std_users")}
    return config, {"events": events, "items": tables["std_items"], "uploads": tables["std_user_content"], "users": tables["std_users"]}  # noqa: E501 # fmt: skip


def said(events: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(r["user_id"], r["item_id"], r["event"], r["value"], r["event_at"].isoformat()[:19]) for r in events]


def lines(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(r) + "\n" for r in rows)


def test_movielens_100k(tmp_path: Path) -> None:
    genres = "|".join("1" if n in (1, 16) else "0" for n in range(19))
    config, t = imported(tmp_path, "movielens", {
        "ml-100k/u.data": "196\t242\t3\t881250949\n186\t302\t1\t881250950\n",
        "ml-100k/u.item": f"242|Café Kolya (1996)|24-Jan-1997||http://x|{genres}\n302|L.A. Confidential|||http://y|{genres}\n".encode("latin-1"),
        "ml-100k/u.user": "196|49|M|writer|55105\n186|39|F|executive|00000\n",
    })  # fmt: skip
    assert said(t["events"]) == [
        ("186", "302", "rating", 1.0, "1997-12-04T15:55:50"), ("196", "242", "rating", 3.0, "1997-12-04T15:55:49"),
    ]  # fmt: skip
    assert (t["items"][0]["title"], t["items"][0]["categories"]) == ("Café Kolya (1996)", ["Action", "Thriller"])
    assert t["items"][0]["created_at"] == datetime(1997, 1, 24, tzinfo=UTC)
    assert {u["user_id"]: u["segment"] for u in t["users"]} == {"196": "writer", "186": "executive"}
    assert (config.start_date, config.end_date) == (date(1997, 12, 4), date(1997, 12, 4))


def test_movielens_1m(tmp_path: Path) -> None:
    _, t = imported(tmp_path, "movielens", {
        "ratings.dat": "1::1193::5::978300760\n2::661::3::978302109\n",
        "movies.dat": "1193::Misérables, Les (1995)::Drama|Musical\n661::James (1996)::Animation\n".encode("latin-1"),
        "users.dat": "1::F::1::10::48067\n2::M::56::16::70072\n",
    })  # fmt: skip
    assert said(t["events"])[0] == ("1", "1193", "rating", 5.0, "2000-12-31T22:12:40")
    assert (t["items"][0]["title"], t["items"][0]["categories"]) == ("Misérables, Les (1995)", ["Drama", "Musical"])
    assert [u["segment"] for u in t["users"]] == ["F", "M"]


def test_movielens_latest(tmp_path: Path) -> None:
    _, t = imported(tmp_path, "movielens", {
        "ml-latest/ratings.csv": "userId,movieId,rating,timestamp\n1,296,5.0,1147880044\n1,306,3.5,1147868817\n",
        "ml-latest/movies.csv": 'movieId,title,genres\n296,"Fiction, ""The"" (1994)",Comedy|Crime\n306,Red,(no genres listed)\n',
        "ml-latest/tags.csv": "userId,movieId,tag,timestamp\n3,296,Classic,1439472355\n4,296,classic,1\n5,296,dark,1\n",
    })  # fmt: skip
    assert [e[3] for e in said(t["events"])] == [5.0, 3.5]
    items = {i["item_id"]: i for i in t["items"]}
    assert items["296"]["title"] == 'Fiction, "The" (1994)'
    assert (items["296"]["tags"], items["306"]["categories"]) == (["classic", "dark"], [])


def test_amazon2023(tmp_path: Path) -> None:
    review = {"rating": 5.0, "title": "Nice", "text": "Works", "images": [], "asin": "B1x", "parent_asin": "B1", "user_id": "U", "timestamp": 1677628800123, "helpful_vote": 0, "verified_purchase": True}  # noqa: E501 # fmt: skip
    meta = {"main_category": "All Beauty", "title": "Soap", "features": ["mild"], "description": ["One.", "Two."], "price": "$1,299.00", "images": [{"thumb": "t", "large": "https://m/l.jpg", "hi_res": None}], "store": "S", "categories": [], "parent_asin": "B1"}  # noqa: E501 # fmt: skip
    _, t = imported(tmp_path, "amazon2023", {
        "All_Beauty.jsonl.gz": gzip.compress(lines(review, review | {"timestamp": -62135596800000}).encode()),
        "meta_All_Beauty.jsonl.gz": gzip.compress(lines(meta).encode()),
    })  # fmt: skip
    assert said(t["events"]) == [("U", "B1", "rating", 5.0, "2023-03-01T00:00:00")]
    (item,) = t["items"]
    assert (item["description"], item["tags"], item["categories"]) == ("One.\nTwo.", ["mild"], ["All Beauty"])
    assert (item["price"], item["domain"], item["image_sha256s"]) == (1299.0, "S", [])
    assert [u["text"] for u in t["uploads"]] == ["Nice. Works"]
    assert pq.read_table(tmp_path / "raw/items/data.parquet")["image_urls"].to_pylist() == [["https://m/l.jpg"]]


def test_microlens(tmp_path: Path) -> None:
    _, t = imported(tmp_path, "microlens", {
        "MicroLens-50k_pairs.csv": "user,item,timestamp\n36121,9580,1583378629552\n",
        "MicroLens-50k_titles.csv": "item,title\n9580,A short 🎬\n",
        "MicroLens-50k_covers/9580.jpg": picture(fmt="JPEG"),
    })  # fmt: skip
    assert said(t["events"]) == [("36121", "9580", "play", None, "2020-03-05T03:23:49")]
    assert (t["items"][0]["title"], len(t["items"][0]["image_sha256s"])) == ("A short 🎬", 1)


def test_hm(tmp_path: Path) -> None:
    _, t = imported(tmp_path, "hm", {
        "transactions_train.csv": "t_dat,customer_id,article_id,price,sales_channel_id\n" + "2018-09-20,c1,0663713001,0.05,2\n" * 2,
        "articles.csv": "article_id,product_code,prod_name,product_type_name,index_name,detail_desc\n0663713001,0663713,Strap top,Vest top,Ladieswear,A top\n0541518023,0541518,Rae,Bra,Lingeries,\n",
        "customers.csv": "customer_id,FN,Active,club_member_status,fashion_news_frequency,age,postal_code\nc1,,,ACTIVE,NONE,49.0,x\n",
        "images/066/0663713001.jpg": picture(fmt="JPEG"),
    })  # fmt: skip
    assert [e[:4] for e in said(t["events"])] == [("c1", "0663713001", "purchase", 0.05)] * 2, "two pieces"
    assert {i["item_id"]: len(i["image_sha256s"]) for i in t["items"]} == {"0663713001": 1, "0541518023": 0}
    (user,) = t["users"]
    assert user["segment"] == "40s"
    assert "club_member_status=ACTIVE" in user["attributes"]


def test_retailrocket(tmp_path: Path) -> None:
    head = "timestamp,itemid,property,value\n"
    _, t = imported(tmp_path, "retailrocket", {
        "events.csv": "timestamp,visitorid,event,itemid,transactionid\n1433221332117,257597,view,355908,\n1433221332118,257597,addtocart,355908,\n1433221332119,1,transaction,9,7\n",
        "item_properties_part1.csv": head + "1435460400000,355908,categoryid,1338\n1435460400000,355908,790,n15360.000\n1435460400000,355908,available,1\n",
        "item_properties_part2.csv": head + "1436065200000,355908,available,0\n1436065200000,355908,categoryid,1400\n1436065200000,9,888,1116713\n",
    })  # fmt: skip
    assert [e[2] for e in said(t["events"])] == ["purchase", "cart", "view"]
    items = {i["item_id"]: i for i in t["items"]}
    assert (items["355908"]["categories"], items["355908"]["status"]) == (["1400"], "unavailable"), "the latest of each"
    assert (items["355908"]["tags"], items["9"]["tags"]) == (["790 n15360.000"], ["888 1116713"])
    assert items["9"]["text"]


def test_mind(tmp_path: Path) -> None:
    _, t = imported(tmp_path, "mind", {
        "MINDsmall_train/behaviors.tsv": "1\tU1\t11/11/2019 9:05:58 AM\tN5 N6\tN1-1 N2-0\n2\tU2\t11/12/2019 6:11:30 PM\t\tN2-1\n",
        "MINDsmall_train/news.tsv": "".join(f'N{n}\tnews\tworld\t"Unpaired {n}\tAbstract {n}\thttps://x\t[]\t[]\n' for n in (1, 2, 5, 6)),
    })  # fmt: skip
    assert [e[:3] + (e[4],) for e in said(t["events"])] == [
        ("U1", "N5", "click", "2019-11-10T09:05:58"), ("U1", "N6", "click", "2019-11-10T09:05:58"),
        ("U1", "N1", "click", "2019-11-11T09:05:58"), ("U2", "N2", "click", "2019-11-12T18:11:30"),
    ]  # fmt: skip
    assert t["items"][0]["title"] == '"Unpaired 1'


def test_yelp(tmp_path: Path) -> None:
    _, t = imported(tmp_path, "yelp", {
        "yelp_academic_dataset_review.json": lines({"review_id": "r", "user_id": "u", "business_id": "b", "stars": 4.0, "text": "Good", "date": "2018-07-07 22:09:11"}),
        "yelp_academic_dataset_business.json": lines({"business_id": "b", "name": "Cafe", "address": "1 St", "city": "X", "state": "PA", "is_open": 0, "categories": "Pizza, Bars"}),
        "yelp_academic_dataset_user.json": lines({"user_id": "u", "name": "W", "review_count": 5, "yelping_since": "2007-01-25 16:47:26", "fans": 2}),
    })  # fmt: skip
    assert said(t["events"]) == [("u", "b", "rating", 4.0, "2018-07-07T22:09:11")]
    assert (t["items"][0]["categories"], t["items"][0]["status"]) == (["Pizza", "Bars"], "inactive")
    assert [u["text"] for u in t["uploads"]] == ["Good"]
    assert sorted(t["users"][0]["attributes"]) == ["fans=2", "review_count=5"]


def test_lastfm_1k(tmp_path: Path) -> None:
    _, t = imported(tmp_path, "lastfm", {
        "userid-timestamp-artid-artname-traid-traname.tsv": 'user_1\t2009-05-04T23:08:57Z\ta1\tDeep "Dish\tt1\tFuck Me\nuser_1\t2009-05-04T13:54:10Z\t\tNo Id\t\tSong\n',
        "userid-profile.tsv": "#id\tgender\tage\tcountry\tregistered\nuser_1\tm\t\tJapan\tAug 13, 2006\n",
    })  # fmt: skip
    assert [e[:3] for e in said(t["events"])] == [("user_1", "No Id - Song", "play"), ("user_1", "t1", "play")]
    assert {i["item_id"]: i["description"] for i in t["items"]} == {"t1": 'Deep "Dish', "No Id - Song": "No Id"}
    assert t["users"][0]["segment"] == "Japan"


def test_lastfm_hetrec(tmp_path: Path) -> None:
    _, t = imported(tmp_path, "lastfm", {
        "user_artists.dat": "userID\tartistID\tweight\n2\t51\t13883\n",
        "artists.dat": "id\tname\turl\tpictureURL\n51\tDuran Duran\thttp://x\thttp://y\n",
        "tags.dat": "tagID\ttagValue\n1\tmetal\n2\t80s\n",
        "user_taggedartists.dat": "userID\tartistID\ttagID\tday\tmonth\tyear\n2\t51\t2\t1\t4\t2009\n3\t51\t2\t1\t4\t2009\n3\t51\t1\t1\t4\t2009\n",
    })  # fmt: skip
    assert said(t["events"]) == [("2", "51", "play", 13883.0, "2011-05-01T00:00:00")]
    assert (t["items"][0]["title"], t["items"][0]["tags"]) == ("Duran Duran", ["80s", "metal"])


def test_goodreads(tmp_path: Path) -> None:
    when = "Fri Aug 25 13:55:02 -0700 2017"
    _, t = imported(tmp_path, "goodreads", {
        "goodreads_interactions_poetry.json.gz": gzip.compress(lines({"user_id": "u", "book_id": "1", "rating": 5, "date_added": when}, {"user_id": "u", "book_id": "2", "rating": 0, "date_added": when}).encode()),
        "goodreads_reviews_poetry.json.gz": gzip.compress(lines({"user_id": "u", "book_id": "1", "rating": 5, "review_text": "Fine", "date_added": when}).encode()),
        "goodreads_books_poetry.json.gz": gzip.compress(lines({"book_id": "1", "title": "Odes", "description": "", "popular_shelves": [{"count": "9", "name": "to-read"}], "image_url": "https://x"}).encode()),
    })  # fmt: skip
    assert said(t["events"]) == [
        ("u", "1", "rating", 5.0, "2017-08-25T20:55:02"), ("u", "2", "favorite", None, "2017-08-25T20:55:02"),
    ]  # fmt: skip
    assert (t["items"][0]["title"], t["items"][0]["tags"]) == ("Odes", ["to-read"])
    assert [u["text"] for u in t["uploads"]] == ["Fine"]


def test_steam(tmp_path: Path) -> None:
    review = {"username": "Chaos", "hours": 0.1, "products": 41, "product_id": "725280", "date": "2017-12-17", "text": "Not much", "user_id": "765"}  # noqa: E501 # fmt: skip
    game = {"app_name": "Lost", "title": "Lost Summoner", "genres": ["Action"], "tags": ["Indie"], "price": 4.99, "release_date": "2017-12-01", "id": "725280", "developer": "K"}  # noqa: E501 # fmt: skip
    _, t = imported(tmp_path, "steam", {
        "steam_reviews.json.gz": gzip.compress((repr(review) + "\nbroken\n" + repr(review | {"user_id": None, "date": "2017-12-18"})).encode()),
        "steam_games.json.gz": gzip.compress(f"{game!r}\n{game | {'id': '2', 'price': 'Free', 'release_date': 'soon'}!r}\n".encode()),
    })  # fmt: skip
    assert [e[:4] for e in said(t["events"])] == [("765", "725280", "play", 0.1), ("Chaos", "725280", "play", 0.1)]
    assert {i["item_id"]: (i["price"], i["tags"]) for i in t["items"]} == {
        "725280": (4.99, ["Indie"]),
        "2": (None, ["Indie"]),
    }


def test_recbole_and_mmrec(tmp_path: Path) -> None:
    _, t = imported(tmp_path / "a", "recbole", {
        "x.inter": "user_id:token\titem_id:token\trating:float\ttimestamp:float\n196\t242\t3\t881250949\n",
        "x.item": "item_id:token\tmovie_title:token_seq\tclass:token_seq\n242\tKolya Two\tComedy Drama\n",
        "x.user": "user_id:token\tage:float\n196\t49\n",
    })  # fmt: skip
    assert said(t["events"]) == [("196", "242", "rating", 3.0, "1997-12-04T15:55:49")]
    assert (t["items"][0]["title"], t["items"][0]["categories"]) == ("Kolya Two", ["Comedy", "Drama"])
    assert t["users"][0]["attributes"] == ["age=49"]
    features = tmp_path / "f.npy"
    np.save(features, np.eye(3, dtype=np.float32))
    config, t = imported(tmp_path / "b", "recbole", {
        "baby.inter": "userID\titemID\trating\ttimestamp\tx_label\n0\t2\t5.0\t1356998400\t0\n0\t1\t5.0\t1356998401\t1\n",
        "image_feat.npy": features.read_bytes(),
    })  # fmt: skip
    assert [i["item_id"] for i in t["items"]] == ["1", "2"]
    assert config.encoders == {"image": ModelChoice(str(tmp_path / "b" / "raw" / "features" / "image_feat.npy"))}


def test_ducho(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.ones((1, 4), np.float32))
    vector = (tmp_path / "v.npy").read_bytes()
    config, t = imported(tmp_path, "ducho", {
        "reviews.tsv": "user\titem\trating\ttime\nu1\ti1\t5\t1400000000\nu2\ti2\t3\t1400000001\n",
        **{f"visual_embeddings/torch/ResNet50/avgpool/{i}.npy": vector for i in ("i1", "i2")},
    })  # fmt: skip
    assert [e[:2] for e in said(t["events"])] == [("u1", "i1"), ("u2", "i2")]
    assert [i["item_id"] for i in t["items"]] == ["i1", "i2"]
    assert config.encoders["image"].is_vectors
    assert pq.read_table(config.encoders["image"].model).to_pylist()[0] == {"item_id": "i1", "vector": [1.0] * 4}


def test_a_folder_that_is_something_else_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.txt").write_text("?")
    for name in IMPORTERS:
        with pytest.raises(DataSetError, match="no "):
            import_set(name, tmp_path, tmp_path / "raw")
    assert main(["import", "netflix", str(tmp_path), str(tmp_path / "raw")]) == 2
    assert "movielens" in capsys.readouterr().err


def test_the_command_says_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ratings.dat").write_text("1::1193::5::978300760\n")
    (tmp_path / "movies.dat").write_text("1193::A::Drama\n")
    assert main(["import", "movielens", str(tmp_path), str(tmp_path / "raw")]) == 0
    shown = capsys.readouterr().out
    assert "interactions: 1 rows" in shown
    assert str(tmp_path / "raw" / "nightloom.toml") in shown
    assert main(["check", "--config", str(tmp_path / "raw" / "nightloom.toml")]) == 0
