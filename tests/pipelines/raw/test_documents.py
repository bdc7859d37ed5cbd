"""JSON: odd lines alone, values over lines, lists as rows."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from pipelines.raw import documents
from tests.raw import piece, read

GOOD = {"user_id": "u", "item_id": "i", "event": "view", "event_at": 1772323200}


def test_one_odd_line_in_a_big_block_costs_itself_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "BATCH", 10)
    rows = [json.dumps(GOOD | {"user_id": f"u{n}"}) for n in range(100)]
    rows[30], rows[60] = '{"user_id": "torn', json.dumps(GOOD) + json.dumps(GOOD | {"item_id": "j"})
    found, rejects = read(tmp_path, "a.jsonl", "\n".join(rows) + "\n", columns={})
    assert [(r["position"], r["reason"]) for r in rejects] == [(31, "bad_json")]
    assert len(found) == 100
    assert sorted((r["_position"], r["item_id"]) for r in found if r["_position"] == 61) == [(61, "i"), (61, "j")]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (7.0, "7"), (7.5, "7.5"), (12345678901234567890123, "12345678901234567890123"), (True, "true"),
        ("v7.0", "v7.0"),
        ("[not a list]", "[not a list]"), ('{"x"}', '{"x"}'), ("a\\u0000b", "a\\u0000b"), (" x ", "x"), (None, None),
    ],
)  # fmt: skip
def test_values_of_ids(tmp_path: Path, value: object, text: str | None) -> None:
    rows, rejects = read(tmp_path, "a.jsonl", json.dumps(GOOD | {"item_id": value}) + "\n", columns={})
    if text is None:
        assert [r["reason"] for r in rejects] == ["missing_item_id"]
    else:
        assert [r["item_id"] for r in rows] == [text]


@pytest.mark.parametrize("value", [["i"], {"a": 1}, []])
def test_structures_are_no_ids(tmp_path: Path, value: object) -> None:
    rows, rejects = read(tmp_path, "a.jsonl", json.dumps(GOOD | {"item_id": value}) + "\n", columns={})
    assert (rows, [r["reason"] for r in rejects]) == ([], ["bad_type"])


def test_keys_with_points_and_quotes(tmp_path: Path) -> None:
    row = {'user.id"': "u", "a b": {"c.d": ["x", "i"]}, "event": "view", "event_at": 1772323200}
    columns = {"user_id": 'user.id"', "item_id": "a b.c.d[1]"}
    rows, rejects = read(tmp_path, "a.jsonl", json.dumps(row) + "\n", columns=columns)
    assert rejects or [(r["user_id"], r["item_id"]) for r in rows] == [("u", "i")]


def test_an_array_that_is_torn_gives_what_came_before(tmp_path: Path) -> None:
    text = json.dumps([GOOD, GOOD | {"user_id": "v"}], indent=1)[:-40]
    rows, rejects, account = piece(tmp_path, "a.json", text, "interactions", columns={})
    assert [r["user_id"] for r in rows] == ["u"]
    assert (account.refused[0], rejects) == ("broken_json", [])
    assert "the rest is not read" in account.refused[1]
    assert account.lost == 2  # at least as many again, and the one that is broken


@pytest.mark.parametrize("style", [{"indent": 2}, {}, {"between": ",\n"}, {"separators": (",", ":")}])
def test_a_broken_element_costs_itself_alone(tmp_path: Path, style: dict[str, Any]) -> None:
    rows = [GOOD | {"user_id": f"u{n}", "more": [{"user_id": 1}, {"user_id": 2}]} for n in range(50)]
    between = style.pop("between", None)
    lines = f"[{between.join(json.dumps(r) for r in rows)}]" if between else json.dumps(rows, **style)
    text = lines.replace("u10", 'a "b" c').replace("u30", '{"')
    found, rejects, account = piece(tmp_path, "a.json", text, "interactions", columns={})
    assert [r["user_id"] for r in found] == [f"u{n}" for n in range(50) if n not in (10, 30)]
    assert [(r["position"], r["reason"]) for r in rejects] == [(11, "bad_json"), (31, "bad_json")]
    assert (account.refused, account.lost) == ([], 0)


def test_an_array_that_is_cut_between_elements_says_so(tmp_path: Path) -> None:
    text = json.dumps([GOOD | {"user_id": f"u{n}"} for n in range(20)], indent=1)
    text = text[: text.index(' {\n  "user_id": "u12"')]
    rows, rejects, account = piece(tmp_path, "a.json", text, "interactions", columns={})
    assert len(rows) == 12
    assert (account.refused[0], rejects) == ("broken_json", [])
    assert "not closed behind value 12" in account.refused[1]
    assert account.lost == 13


def test_a_list_in_an_object_that_is_longer_than_a_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [GOOD | {"user_id": f"u{n}"} for n in range(2_000)]
    whole = {"took": 3, "note": 'a "[" here', "data": {"pages": [1, 2], "hits": rows}, "more": [{"user_id": "no"}]}
    for head, cut in ((1 << 20, 0), (4_000, 0), (4_000, 300)):
        monkeypatch.setattr("pipelines.raw.shape.HEAD_BYTES", head)
        monkeypatch.setattr("pipelines.raw.reading.HEAD_BYTES", head)
        monkeypatch.setattr("pipelines.raw.values.CHUNK_BYTES", 1_000)
        monkeypatch.setattr(documents, "BATCH", 300)
        text = json.dumps(whole, indent=None if cut else 1)
        found, rejects, account = piece(
            tmp_path, "a.json", text[: len(text) - cut], "interactions", columns={}, records="" if cut else "data.hits"
        )
        assert [(r["_position"], r["user_id"]) for r in found][:1995] == [(n + 1, f"u{n}") for n in range(1995)]
        assert (account.shape or {})["records"] == "data.hits"
        assert (account.refused[:1], rejects) == (["broken_json"] if cut else [], [])
        assert len(found) >= (1_995 if cut else 2_000)


def test_a_value_longer_than_any_line_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.raw.lines.MAX_LINE_BYTES", 100)
    rows, rejects = read(tmp_path, "a.json", json.dumps([GOOD | {"user_id": f"u{n}"} for n in range(9)]), columns={})
    assert ([r["user_id"] for r in rows], rejects) == ([f"u{n}" for n in range(9)], [])


def test_a_big_array_is_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.raw.values.CHUNK_BYTES", 50)
    monkeypatch.setattr("pipelines.raw.lines.BLOCK_BYTES", 64)
    monkeypatch.setattr(documents, "BATCH", 7)
    text = json.dumps([GOOD | {"user_id": f"ü{n}"} for n in range(50)], indent=2, ensure_ascii=False)
    rows, rejects = read(tmp_path, "a.json", text, columns={})
    assert [(r["_position"], r["user_id"]) for r in rows] == [(n + 1, f"ü{n}") for n in range(50)]
    assert rejects == []


def test_elements_become_rows_beside_what_they_share(tmp_path: Path) -> None:
    order = {
        "user_id": "u",
        "event": "purchase",
        "event_at": 1772323200,
        "lines": [{"sku": "a", "paid": 2}, {"sku": "b"}],
    }
    columns = {"item_id": "lines[].sku", "value": "lines.paid"}
    lines = [order, order | {"lines": []}, order | {"lines": None}]
    text = "".join(json.dumps(o) + "\n" for o in lines)
    rows, rejects = read(tmp_path, "a.jsonl", text, columns=columns)
    assert [(r["_position"], r["item_id"], r["value"], r["user_id"]) for r in rows] == [
        (1, "a", 2, "u"),
        (1, "b", None, "u"),
    ]
    assert [(r["position"], r["reason"]) for r in rejects] == [(2, "empty_list"), (3, "empty_list")]


def test_two_lists_cannot_both_make_rows(tmp_path: Path) -> None:
    row = GOOD | {"a": [{"x": 1}], "b": [{"y": 1}]}
    _, rejects = read(tmp_path, "a.jsonl", json.dumps(row) + "\n", columns={"item_id": "a[].x", "value": "b[].y"})
    assert [(r["position"], r["reason"]) for r in rejects] == [(0, "two_lists")]


def test_lists_below_paths_are_collected(tmp_path: Path) -> None:
    row = {"item_id": "1", "title": ["Two", "parts"], "images": [{"large": "a.jpg"}, {"small": "x"}, {"large": "b.jpg"}], "tags": [["a"], "b"]}  # noqa: E501 # fmt: skip
    rows, rejects, account = piece(
        tmp_path, "a.jsonl", json.dumps(row) + "\n", "items", columns={"images": "images[].large"}
    )
    assert (rows[0]["title"], rows[0]["images"], rows[0]["tags"]) == ("Two\nparts", ["a.jpg", "b.jpg"], ["a", "b"])
    assert (rejects, account.notes) == ([], [])


def test_elements_behind_a_broken_one_need_not_be_like_those_before(tmp_path: Path) -> None:
    rows = ['{"item_id": "1", "a": 1, "b": 2, "c": 3}', '{"item_id": "2", "a": 1, "b": 2}', '{"item_id": nope}']
    rows += [f'{{"item_id": "n{n}"}}' for n in range(20)]
    found, rejects, account = piece(tmp_path, "a.json", "[" + ",\n".join(rows) + "]", "items", columns={})
    assert [r["item_id"] for r in found] == ["1", "2", *(f"n{n}" for n in range(20))]
    assert ([(r["position"], r["reason"]) for r in rejects], account.refused) == ([(3, "bad_json")], [])
    text = '[{"item_id":"1"},{"item_id":"2"},{"item_id":"3","x":nope},{"title":"t4","item_id":"4"},{"item_id":"5"}]'
    found, _, account = piece(tmp_path, "b.json", text, "items", columns={})
    assert ([r["item_id"] for r in found], account.refused) == (["1", "2", "4", "5"], [])


def test_a_broken_last_element_costs_itself(tmp_path: Path) -> None:
    found, rejects, account = piece(tmp_path, "a.json", '[{"item_id":"1"},{"item_id":"2"},{"item_id":no}]\n', "items", columns={})  # noqa: E501 # fmt: skip
    assert ([r["item_id"] for r in found], [r["position"] for r in rejects]) == (["1", "2"], [3])
    assert account.refused == []


def test_many_broken_elements_behind_a_long_one_are_found_in_time(tmp_path: Path) -> None:
    """Each error counts the lines of the text that is held, so what is behind has to go."""
    long = '{"item_id": "0", "title": "' + "a" * 6_000_000 + '"}'
    rows = ['{"item_id": "1"}', long, *('{"item_id": "x", "title": nope}' for _ in range(3_000)), '{"item_id": "2"}']
    started = time.process_time()
    found, rejects, _ = piece(tmp_path, "a.json", "[" + ",\n".join(rows) + "]", "items", columns={})
    assert ([r["item_id"] for r in found], len(rejects)) == (["1", "0", "2"], 3_000)
    assert time.process_time() - started < 5, "it took a quarter of a minute"


def test_a_list_that_begins_on_the_first_line(tmp_path: Path) -> None:
    text = '{"items":[{"item_id":"1"},\n{"item_id":"2"},\n{"item_id":"3"}]}'
    found, rejects = read(tmp_path, "a.json", text, "items", columns={})
    assert ([r["item_id"] for r in found], rejects) == (["1", "2", "3"], [])


@pytest.mark.parametrize("more", ["", '{"torn": \n'])
def test_of_equal_keys_the_first_counts(tmp_path: Path, more: str) -> None:
    text = '{"user_id": "u", "item_id": "x", "item_id": "y", "event": "view", "event_at": 1772323200}\n' + more
    rows, _ = read(tmp_path, "a.jsonl", text, columns={})
    assert [r["item_id"] for r in rows] == ["x"]


def test_odd_lines_stay_in_their_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "BATCH", 10)
    rows = [json.dumps(GOOD | {"user_id": f"u{n}"}) for n in range(100)]
    rows[30] = json.dumps(GOOD) + json.dumps(GOOD)
    found, _ = read(tmp_path, "a.jsonl", "\n".join(rows) + "\n", columns={})
    assert [r["_position"] for r in found] == sorted([*range(1, 101), 31])


def test_further_names_make_no_rows(tmp_path: Path) -> None:
    flat = json.dumps({**GOOD, "product_id": "p"})
    columns = {"item_id": ["product_id", "items[].product_id"]}
    rows, rejects = read(tmp_path, "a.jsonl", flat + "\n", columns=columns)
    assert ([r["item_id"] for r in rows], rejects) == (["p"], [])
    order = json.dumps({k: v for k, v in GOOD.items() if k != "item_id"} | {"items": [{"id": "p"}, {"id": "q"}]})
    columns = {"item_id": ["items[].id", "lines[].id"]}
    rows, rejects = read(tmp_path, "b.jsonl", order + "\n", columns=columns)
    assert ([r["item_id"] for r in rows], rejects) == (["p", "q"], [])


def test_a_title_that_is_nested_too_deeply_costs_itself(tmp_path: Path) -> None:
    text = '{"item_id":"1"}\n{"item_id":"2","title":' + "[" * 600 + '"a"' + "]" * 600 + "}\n"
    rows, _, account = piece(tmp_path, "a.jsonl", text, "items", columns={})
    assert [(r["item_id"], r["title"]) for r in rows] == [("1", None), ("2", None)]
    assert account.notes[0][:2] == ["title", "bad_type"]
