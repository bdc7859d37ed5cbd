"""References stay below the root and the places that are allowed."""

from pathlib import Path

import pytest

from pipelines.raw.pieces import Part, Reader, write_piece
from pipelines.raw.places import RawError, RawPlace, RawStore, is_below
from pipelines.sections import Source


@pytest.mark.parametrize(
    "reference", ["../secret", "/etc/passwd", "a/../../b", "s3://bucket/x", "file:///etc/passwd", "c:\\x", "\0"]
)
def test_references_stay_below_the_root(tmp_path: Path, reference: str) -> None:
    with pytest.raises(RawError):
        RawStore(str(tmp_path)).locate(reference)


def test_links_out_of_the_root_are_refused(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "secret.jpg").write_text("x")
    (tmp_path / "raw" / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    with pytest.raises(RawError, match="path_escapes_root"):
        RawStore(str(tmp_path / "raw")).locate("link.jpg")


def test_buckets_are_read_like_folders(tmp_path: Path) -> None:
    import fsspec

    fs = fsspec.filesystem("memory")
    fs.pipe_file("/bucket/interactions/2026-01-01.csv", b"user_id,item_id,event,event_at\nu,i,view,1767225600\n")
    store = RawStore("memory://bucket")
    assert store.below("interactions") == ["interactions/2026-01-01.csv"]
    reader = Reader("interactions", RawPlace("memory://bucket"), Source(path="interactions"), "UTC")
    assert write_piece(reader, Part("interactions/2026-01-01.csv"), tmp_path).rows == 1


@pytest.mark.parametrize(
    ("uri", "allowed", "expected"),
    [
        ("file:///a/allowed/x.jpg", "file:///a/allowed/", True),
        ("file:///a/allowed/x.jpg", "file:///a/allowed", True),
        ("file:///a/allowed/../secret.txt", "file:///a/allowed", False),
        ("file:///a/allowed/%2e%2e/secret.txt", "file:///a/allowed", False),
        ("file:///a/allowed/%252e%252e/secret.txt", "file:///a/allowed", False),
        ("file:///a/allowed-not/x.jpg", "file:///a/allowed", False),
        ("file:///a/allowed/C#/../../secret.txt", "file:///a/allowed", False),
        ("file:///a/allowed/x?/../../secret.txt", "file:///a/allowed", False),
        ("s3://shop/photos/a#1.jpg", "s3://shop/photos", True),
        ("s3://shop/photos/a?/../../x", "s3://shop/photos", False),
        ("https://cdn.shop.com#/p/1.jpg", "https://cdn.shop.com", False),
        ("https://cdn.shop.com/p/1.jpg", "https://cdn.shop.com", True),
        ("https://CDN.shop.com/p/1.jpg", "https://cdn.shop.com/p", True),
        ("https://cdn.shop.com.evil.org/p/1.jpg", "https://cdn.shop.com", False),
        ("https://cdn.shop.com@evil.org/p/1.jpg", "https://cdn.shop.com", False),
        ("https://cdn.shop.com:8080/p/1.jpg", "https://cdn.shop.com", False),
        ("https://cdn.shop.com/q/1.jpg", "https://cdn.shop.com/p", False),
        ("http://cdn.shop.com/p/1.jpg", "https://cdn.shop.com", False),
        ("simplecache::https://cdn.shop.com/1.jpg", "https://cdn.shop.com", False),
        ("https://cdn.shop.com/1.zip::file:///etc/passwd", "https://cdn.shop.com", False),
        ("s3://bucket/photos/1.jpg", "s3://bucket/photos/", True),
        ("s3://bucket/photos-private/1.jpg", "s3://bucket/photos", False),
        ("s3://bucket/photos\\..\\x", "s3://bucket/photos", False),
        ("https://cdn.shop.com/a\nb", "https://cdn.shop.com", False),
        ("https://[broken/1.jpg", "https://[broken", False),
    ],
)
def test_a_uri_leads_only_below_what_is_allowed(uri: str, allowed: str, expected: bool) -> None:
    assert is_below(uri, allowed) == expected


def test_an_allowed_folder_is_read_and_its_neighbours_are_not(tmp_path: Path) -> None:
    for name in ("allowed/in.txt", "secret.txt", "raw/x"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    for name in ("link.txt", "l#1", "p%71"):
        (tmp_path / "allowed" / name).symlink_to(tmp_path / "secret.txt")
    store = RawStore(str(tmp_path / "raw"), [f"file://{tmp_path}/allowed"])
    fs, path = store.locate(f"file://{tmp_path}/allowed/in.txt")
    assert fs.cat_file(path) == b"allowed/in.txt"
    names = ("allowed/../secret.txt", "secret.txt", "allowed/link.txt", "allowed/l#1", "allowed/p%71")
    for wrong in (f"{tmp_path}/{name}" for name in names):
        with pytest.raises(RawError, match="uri_not_allowed"):
            store.locate(f"file://{wrong}")
    with pytest.raises(RawError, match="uri_not_allowed"):
        RawStore(str(tmp_path / "raw")).locate(f"file://{tmp_path}/allowed/in.txt")


@pytest.mark.parametrize(
    ("on_disk", "written"),
    [
        ("covers/a b.jpg", "covers/a%20b.jpg"),
        ("covers/a.jpg", "covers\\a.jpg"),
        ("covers/cafe\u0301.jpg", "covers/caf\u00e9.jpg"),
        ("covers/caf\u00e9.jpg", "covers/cafe\u0301.jpg"),
        ("covers/100%25.jpg", "covers/100%25.jpg"),
        ("covers/caf\u00e9 1.jpg", "covers\\cafe\u0301%201.jpg"),
    ],
)
def test_a_reference_is_found_however_its_name_is_written(tmp_path: Path, on_disk: str, written: str) -> None:
    path = tmp_path / on_disk
    path.parent.mkdir()
    path.write_text("x")
    fs, found = RawStore(str(tmp_path)).locate(written)
    assert fs.cat_file(found) == b"x"


def test_a_name_is_first_what_it_is_on_disk(tmp_path: Path) -> None:
    for name in ("a%20b.jpg", "a b.jpg"):
        (tmp_path / name).write_text(name)
    fs, found = RawStore(str(tmp_path)).locate("a%20b.jpg")
    assert fs.cat_file(found) == b"a%20b.jpg"


@pytest.mark.parametrize("reference", ["%2e%2e/secret", "..\\secret", "a\\..\\..\\secret", "%2Fetc/passwd"])
def test_another_spelling_leads_nowhere_else(tmp_path: Path, reference: str) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "secret").write_text("x")
    with pytest.raises(RawError, match="path_escapes_root"):
        RawStore(str(tmp_path / "raw")).locate(reference)
