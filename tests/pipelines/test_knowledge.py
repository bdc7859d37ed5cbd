"""Triples about items: which items share what, by hand; files as people have them; shuffled ones give nothing."""

import gzip
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import sparse

from pipelines.beyond import Graph
from pipelines.config import Config
from pipelines.knowledge import knowledge, shared, similar
from pipelines.lake import deliveries  # noqa: F401, its promises join the others
from pipelines.lake.promises import PROMISES, Remark
from pipelines.lake.storage import Lake
from pipelines.night.inputs import graphs_of
from tests.lakes import DAY, at, config_of, event, night_of, tiny_lake

TRIPLES = [
    ("a", "directed_by", "Lee"),
    ("b", "directed_by", "Lee"),
    ("a", "starring", "Kim"),
    ("b", "starring", "Kim"),
    ("c", "starring", "Kim"),
    ("c", "sequel_of", "d"),
    ("e", "starring", "nobody else"),
]


def triples_of(rows: list[tuple[str, str, str]]) -> pa.Table:
    return pa.table(dict(zip(("head", "relation", "tail"), map(list, zip(*rows, strict=True)), strict=True)))


def test_items_share_entities_and_rare_ones_count_more() -> None:
    """Of five known items two share Lee (log 5/2) and three Kim (log 5/3): cosine of a and b is 1, of a and c less."""
    features, names = shared(triples_of(TRIPLES), None, pa.array(list("abcdef")), ())
    assert names == ["directed_by Lee", "starring Kim"], "what one item alone has, it shares with nobody"
    graph = similar(features, 5).toarray()
    lee, kim = np.log(5 / 2), np.log(5 / 3)
    assert graph[0, 1] == pytest.approx(1)
    assert graph[0, 2] == graph[2, 0] == pytest.approx(kim / np.hypot(lee, kim))
    assert not graph[3:].any()
    assert not graph.diagonal().any()
    assert similar(features, 1)[0].indices.tolist() == [1]


def test_an_item_may_be_at_either_end_of_a_triple() -> None:
    rows = [("Lee", "directed", "a"), ("Lee", "directed", "b"), ("c", "sequel_of", "x"), ("d", "sequel_of", "x")]
    features, names = shared(triples_of(rows), None, pa.array(list("abcd")), ())
    assert names == ["directed of Lee", "sequel_of x"]
    assert similar(features, 5).toarray().round().tolist() == [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]]


def test_relations_and_links() -> None:
    links = pa.table({"item_id": ["7", "8", "gone"], "entity": ["m.a", "m.b", "m.c"]})
    rows = [
        ("m.a", "r", "x"),
        ("m.b", "r", "x"),
        ("m.c", "r", "x"),
        ("m.a", "s", "y"),
        ("m.b", "s", "y"),
        ("9", "t", "z"),
    ]
    ids = pa.array(["7", "8", "9"])
    assert shared(triples_of(rows), links, ids, ())[1] == [], "all that are known share them, which says nothing"
    rows += [("m.d", "u", "z")]
    more = pa.table({"item_id": ["7", "8", "9"], "entity": ["m.a", "m.b", "m.d"]})
    assert shared(triples_of(rows), more, ids, ())[1] == ["r x", "s y"]
    assert shared(triples_of(rows), more, ids, ("s",))[1] == []
    assert shared(triples_of([*rows, ("m.d", "s", "z")]), more, ids, ("s",))[1] == ["s y"]


def test_an_entity_may_be_several_items_and_old_ones_do_not_stand_in_the_way() -> None:
    links = pa.table({"item_id": ["old", "new", "twin"], "entity": ["e1", "e1", "e1"]})
    rows = [("e1", "r", "x"), ("z", "q", "y")]
    features, names = shared(triples_of(rows), links, pa.array(["new", "other", "twin"]), ())
    assert names == [], "both have it, nobody else is known"
    more = pa.table({"item_id": ["old", "new", "twin", "other"], "entity": ["e1", "e1", "e1", "z"]})
    features, names = shared(triples_of(rows), more, pa.array(["new", "other", "twin"]), ())
    assert names == ["r x"]
    assert features.toarray().tolist() == [[1], [0], [1]]


def test_files_of_people_who_do_not_quote(tmp_path: Path) -> None:
    """A lone quote takes no lines with it, a line with a cell too many is refused alone; packed and broken files."""
    graphs = {n: Graph(triples=f"kg/{n}") for n in ("t.tsv", "p.tsv.gz", "latin.tsv")}
    config, lake = house(tmp_path, **{n.split(".")[0]: g for n, g in graphs.items()}, again=graphs["t.tsv"])
    text = 'a\tr\t"x\nb\tr\t"x\nc\tr\ty\textra\nd\tr\tz\n'
    (tmp_path / "kg" / "t.tsv").write_text(text)
    with gzip.open(tmp_path / "kg" / "p.tsv.gz", "wt") as f:
        f.write("a\tr\tx\nb\tr\tx\nc\tr\ty\n")
    (tmp_path / "kg" / "latin.tsv").write_bytes("é\tr\tx\n".encode("latin-1"))
    list(knowledge(config, lake, DAY))
    found = {
        (r["graph"], r["item_id"], r["other_item_id"], r["why"]) for r in lake.read("item_graphs", DAY).to_pylist()
    }
    assert found == {
        (name, one, other, f"r {quote}x")
        for name, quote in (("t", '"'), ("again", '"'), ("p", ""))
        for one, other in ("ab", "ba")
    }
    rejects = {(r["detail"].split(":")[0], r["reason"]) for r in lake.read("quarantine", DAY).to_pylist()}
    assert rejects == {
        ("graphs.t", "wrong_number_of_cells"),
        ("graphs.again", "wrong_number_of_cells"),
        ("graphs.latin", "unreadable_file"),
    }


def house(root: Path, **graphs: Graph) -> tuple[Config, Lake]:
    lake = tiny_lake(root / "lake", [event("u", "a", at(10))], [{"item_id": i} for i in "abcdef"])
    (root / "kg").mkdir()
    return config_of(root, graphs=graphs), lake


@pytest.mark.parametrize(
    ("name", "text", "columns"),
    [
        ("t.tsv", "head\trelation\ttail\n{rows}", {}),
        ("t.csv", "when,h,r,t\n{rows}", {"head": "h", "relation": "r", "tail": "t"}),
        ("t.txt", "{rows}", {}),
        ("t.kg", "head_id:token\trelation_id:token\ttail_id:token\n{rows}",
         {"head": "head_id:token", "relation": "relation_id:token", "tail": "tail_id:token"}),
        ("t.parquet", "", {}),
    ],
)  # fmt: skip
def test_files_as_people_have_them(tmp_path: Path, name: str, text: str, columns: dict[str, str]) -> None:
    config, lake = house(tmp_path, films=Graph(triples=f"kg/{name}", columns=columns))
    if name == "t.parquet":
        pq.write_table(triples_of(TRIPLES), tmp_path / "kg" / name)
    else:
        delimiter = {"t.csv": ",", "t.txt": " "}.get(name, "\t")
        first = ["1"] if name == "t.csv" else []
        rows = [delimiter.join([*first, *(x.replace(" ", "_") for x in r)]) for r in TRIPLES]
        (tmp_path / "kg" / name).write_text(text.format(rows="\n".join(rows) + "\n"))
    (manifest,) = [m for m in knowledge(config, lake, DAY) if m.table == "item_graphs"]
    rows_made = lake.read("item_graphs", DAY).to_pylist()
    assert [(r["graph"], r["item_id"], r["other_item_id"], r["why"]) for r in rows_made] == [
        ("films", "a", "b", "directed_by Lee"),
        ("films", "a", "c", "starring Kim"),
        ("films", "b", "a", "directed_by Lee"),
        ("films", "b", "c", "starring Kim"),
        ("films", "c", "a", "starring Kim"),
        ("films", "c", "b", "starring Kim"),
    ]
    assert manifest.spec["films"] == {"triples": 7, "items": 3, "entities": 2, "pairs": 6}
    graph = graphs_of(night_of(lake).item_graphs(), np.array(list("abcdef"), object))["films"]
    assert graph[0, 1] == pytest.approx(1)
    assert graph.nnz == 6


@pytest.mark.parametrize(
    ("text", "reason", "detail"),
    [
        (None, "missing_file", "expected one file, found 0 at kg/t.tsv"),
        ("head\twhat\n", "missing_column", "expected tail, it has head, relation"),
        ("", "unreadable_file", "ArrowInvalid"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_and_the_night_goes_on(
    tmp_path: Path, text: str | None, reason: str, detail: str
) -> None:
    config, lake = house(tmp_path, films=Graph(triples="kg/t.tsv"))
    if text is not None:
        (tmp_path / "kg" / "t.tsv").write_text(text)
    list(knowledge(config, lake, DAY))
    assert lake.read("item_graphs", DAY).num_rows == 0
    (reject,) = lake.read("quarantine", DAY).to_pylist()
    assert (reject["stage"], reject["position"], reject["reason"]) == ("item_graphs", 0, reason)
    assert detail in reject["detail"]


def told(config: Config, lake: Lake) -> list[str]:
    (promise,) = (p for p in PROMISES["item_graphs"] if p.name == "graphs_are_read")
    return promise.broken(config, night_of(lake), "item_graphs", lake.read("item_graphs", DAY))


def test_a_graph_that_says_nothing_is_a_warning(tmp_path: Path) -> None:
    graphs = {n: Graph(triples=f"kg/{n}.tsv") for n in ("good", "gone", "other")}
    config, lake = house(tmp_path, **graphs)
    for name, ids in (("good", "ab"), ("other", "xy")):
        (tmp_path / "kg" / f"{name}.tsv").write_text("".join(f"{i}\tis\tred\n" for i in (*ids, *ids)) + "c\tis\tblue\n")
    list(knowledge(config, lake, DAY))
    good, gone, other = (r for r in told(config, lake) if isinstance(r, Remark))
    assert (good, good.warns, good.numbers) == ("", False, {"good": 2.0})
    assert gone == "graphs.gone: kg/gone.tsv could not be read, see table quarantine"
    assert "of its 5 triples none says what two items of the catalogue share" in other
    assert gone.warns
    assert other.warns


def test_empty_cells_are_refused_row_by_row(tmp_path: Path) -> None:
    config, lake = house(tmp_path, films=Graph(triples="kg/t.tsv"))
    (tmp_path / "kg" / "t.tsv").write_text("head\trelation\ttail\na\tr\tx\nb\tr\t \nb\tr\tx\nc\tr\ty\n\tr\tx\n")
    list(knowledge(config, lake, DAY))
    rejects = lake.read("quarantine", DAY).sort_by("position").to_pylist()
    assert [(r["position"], r["reason"]) for r in rejects] == [(2, "empty_cell"), (5, "empty_cell")]
    assert lake.read("item_graphs", DAY).num_rows == 2


def test_names_of_graphs_are_names_of_folders_and_no_modality(tmp_path: Path) -> None:
    for name in ("text", "Films", "a b"):
        with pytest.raises(ValueError, match="are no names"):
            config_of(tmp_path, graphs={name: Graph(triples="t")})


@pytest.mark.slow
def test_a_night_with_a_graph_lists_a_new_item_for_what_it_shares(tmp_path: Path) -> None:
    """Twenty users like films of one of two directors; i18 and i19 are new, of one director each."""
    from assets.cli import main

    raw = tmp_path / "raw"
    for name in ("interactions", "items", "kg"):
        (raw / name).mkdir(parents=True)
    rows = [f"u{u:02d},i{i:02d},view,2026-03-01T{u:02d}:{i:02d}:00Z" for u in range(20) for i in range(u % 2, 12 + u % 2, 2)]  # noqa: E501 # fmt: skip
    (raw / "interactions" / "2026-03-01.csv").write_text("user_id,item_id,event,event_at\n" + "\n".join(rows) + "\n")
    (raw / "items" / "items.csv").write_text("item_id,title\n" + "".join(f"i{n:02d},Film {n}\n" for n in range(20)))
    triples = [f"i{n:02d}\tdirected_by\t{('Lee', 'Kim')[n % 2]}" for n in range(20)]
    (raw / "kg" / "t.tsv").write_text("head\trelation\ttail\n" + "\n".join(triples) + "\n")
    config = tmp_path / "c.toml"
    config.write_text(
        "start_date = 2026-03-01\nencoders = {}\n[paths]\nraw = 'raw'\ndata = 'data'\n[graphs.films]\n"
        "triples = 'kg/t.tsv'\n[recommend]\nk = 8\nmodels = ['graph']\n"
    )
    assert main(["run", "--config", str(config), "--date", "2026-03-01"]) == 0
    lake = Lake(tmp_path / "data" / "lake")
    lists = lake.read("recommendations", DAY.replace(day=1)).to_pylist()
    of_one = {r["item_id"]: r for r in lists if r["user_id"] == "u00"}
    assert [r["item_id"] for r in lists if r["user_id"] == "u00"][:3] == ["i12", "i14", "i16"], "even films are Lee's"
    assert "i18" in of_one
    assert of_one["i18"]["reason_code"] == "similar_to_history"
    assert of_one["i18"]["reason_value"] == "directed_by Lee"
    assert lake.rows("item_graphs", DAY.replace(day=1)) == 20 * 9


@pytest.mark.slow
def test_what_is_known_of_new_items_helps_and_shuffled_it_does_not() -> None:
    """200 items of twenty hidden kinds that only triples tell; users like three kinds; a fifth of the items is new."""
    from encoders.device import single_threaded
    from pipelines.recommenders.base import Inputs
    from pipelines.recommenders.ranking import ndcg_of
    from pipelines.recommenders.registry import classes

    rng, items, users = np.random.default_rng(0), 200, 300
    kind = rng.integers(0, 20, items)
    likes = np.stack([np.isin(kind, rng.permutation(20)[:3]) for _ in range(users)]) & (
        rng.random((users, items)) < 0.5
    )
    new = np.arange(items) % 5 == 0
    past = sparse.csr_matrix((likes & ~new).astype(np.float32))
    wanted = sparse.csr_matrix((likes & new).astype(np.float32))
    judged = np.flatnonzero((np.diff(wanted.indptr) > 0) & (np.diff(past.indptr) > 0))
    ids = pa.array([f"i{n:03d}" for n in range(items)])
    found = {}
    for name, of in (("known", kind), ("shuffled", rng.permutation(kind))):
        rows = triples_of([(ids[n].as_py(), "is_a", f"kind {of[n]}") for n in range(items)])
        graph = similar(shared(rows, None, ids, ())[0], 20)
        with single_threaded():
            model = classes()["graph"]().fit(Inputs(past, graphs={"films": graph}))
            scores = model.score(Inputs(past, graphs={"films": graph}), judged)
        scores = np.where(new, scores, -np.inf).astype(np.float32)
        found[name] = ndcg_of(scores, wanted[judged], None, 10, "cpu").mean()
    chance = ndcg_of(np.where(new, rng.random((len(judged), items)), -np.inf).astype(np.float32), wanted[judged], None, 10, "cpu").mean()  # noqa: E501 # fmt: skip
    assert found["known"] > 0.7
    assert found["shuffled"] < chance + 0.05
