"""Downloads, against a server on this machine; and the 2023 release of Amazon, from tables in memory."""

import hashlib
import io
import logging
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from test_publishers_formats import official_100k

from lora_rec.data.publishers import PUBLISHERS, load_amazon_2023, load_published, read_amazon_2023
from lora_rec.data.publishers import load as registry
from lora_rec.errors import DataError


def zipped(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            archive.writestr(f"ml-100k/{name}", text)
    return buffer.getvalue()


class Server:
    """Gives one body, and counts how often it was asked."""

    def __init__(self):
        self.body, self.promised, self.status, self.asked = b"", None, 200, 0
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):  # noqa: N802
                owner.asked += 1
                self.send_response(owner.status)
                length = len(owner.body) if owner.promised is None else owner.promised
                self.send_header("Content-Length", str(length))
                self.end_headers()
                self.wfile.write(owner.body)

            def log_message(self, *arguments):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/set.zip"


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.http.shutdown()
    server.http.server_close()
    thread.join()


@pytest.fixture
def archive():
    return zipped(official_100k())


def left_in(cache_folder):
    return sorted(p.name for p in (cache_folder / "datasets" / "movielens").iterdir())


@pytest.mark.parametrize("kind", ["md5", "sha256"])
def test_a_download_is_checked_unpacked_and_kept(server, archive, cache_folder, kind):
    server.body = archive
    digest = hashlib.new(kind, archive).hexdigest()
    for _ in range(2):
        published = load_published("movielens", url=server.url, digest=digest)
        assert published.dataset.n_interactions == 4
    assert server.asked == 1
    assert left_in(cache_folder) == ["100k"]
    assert (cache_folder / "datasets" / "movielens" / "100k" / "ml-100k" / "u.data").is_file()


def test_without_a_digest_the_first_download_is_pinned(server, archive, cache_folder, caplog):
    import shutil

    server.body = archive
    load_published("movielens", variant="latest", url=server.url)
    assert "no checksum is known; its SHA-256 is now pinned in" in caplog.text
    pin = cache_folder / "datasets" / "movielens" / "latest.sha256"
    assert pin.read_text().strip() == hashlib.sha256(archive).hexdigest()
    shutil.rmtree(pin.with_suffix(""))
    server.body = zipped(official_100k() | {"more": "x"})
    with pytest.raises(
        DataError, match=r"the sha256 is \w+, not \w+: .* \(or delete .*latest\.sha256 to take"
    ):
        load_published("movielens", variant="latest", url=server.url)
    assert left_in(cache_folder) == ["latest.sha256"]


def test_a_damaged_download_leaves_nothing(server, archive, cache_folder):
    server.body = archive[:-1] + b"x"
    # The registry's digest is that of the true archive, so it refuses this one.
    with pytest.raises(
        DataError, match=r"the md5 is \w+, not 0e33842e24a9c977be4e0107933c0723: the file is damaged"
    ):
        load_published("movielens", url=server.url)
    assert left_in(cache_folder) == []


def test_a_download_that_breaks_off_leaves_nothing(server, archive, cache_folder):
    server.body, server.promised = archive, len(archive) + 10
    with pytest.raises(DataError, match="broke off after|the download failed"):
        load_published("movielens", variant="latest", url=server.url)
    assert left_in(cache_folder) == []


def test_a_page_in_place_of_an_archive(server, cache_folder):
    server.body = b"<html>log in first</html>"
    with pytest.raises(
        DataError, match="gave no zip archive; download it by hand from https://grouplens.org"
    ):
        load_published("movielens", variant="latest", url=server.url)
    assert left_in(cache_folder) == []


@pytest.mark.parametrize("how", ["refused", "gone"])
def test_without_a_network_one_error_says_what_to_do(server, cache_folder, how):
    url = server.url
    server.status = 404
    if how == "refused":
        url = "http://127.0.0.1:1/set.zip"  # nobody listens on port 1
    with pytest.raises(DataError) as caught:
        load_published("lastfm", url=url)
    message = str(caught.value)
    assert message.startswith(f"{url}: the download failed (")
    assert message.endswith(
        "; download it by hand from https://grouplens.org/datasets/hetrec-2011/ and pass the folder with "
        "artists.dat, user_artists.dat, user_taggedartists.dat, tags.dat and user_friends.dat"
    )


def test_a_killed_download_is_not_read(server, archive, cache_folder):
    """What a killed process leaves: its scratch folder. The next run downloads anew."""
    scratch = cache_folder / "datasets" / "movielens" / ".100k.abc"
    scratch.mkdir(parents=True)
    (scratch / "archive").write_bytes(archive[:100])
    server.body = archive
    digest = hashlib.md5(archive).hexdigest()
    assert load_published("movielens", url=server.url, digest=digest).dataset.n_users == 2
    assert server.asked == 1


def test_the_terms_are_logged_once(tmp_path, caplog):
    registry._log_terms.cache_clear()
    (tmp_path / "user_sequence.txt").write_text("UA B1\n")
    (tmp_path / "item_text.txt").write_text("B1 one\n")
    with caplog.at_level(logging.WARNING):
        load_published("amazon", tmp_path)
        load_published("amazon", tmp_path)
    assert caplog.text.count("research only; cite McAuley") == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: load_published("movilens"), r"publisher: no 'movilens'; did you mean 'movielens'\?"),
        (
            lambda: load_published("movielens", variant="1k"),
            r"movielens\.variant: no '1k'; did you mean '100k'",
        ),
        (lambda: load_published("movielens", variant="x"), r"no 'x'; known: 100k, 1m, 20m, 25m, latest"),
        (
            lambda: load_published("amazon"),
            r"amazon: there is no archive to download; download it by hand from",
        ),
        (lambda: load_published("mind", "x", url="http://y"), r"variant, url and digest are for downloads"),
        (
            lambda: load_amazon_2023("All_Beauty", core=3),
            r"amazon\.core: 3; give 5 for the publisher's 5-core",
        ),
    ],
)
def test_errors(call, message):
    with pytest.raises(DataError, match=message):
        call()


def test_the_registry_is_complete():
    assert list(PUBLISHERS) == ["movielens", "lastfm", "amazon", "online-retail", "mind"]
    for name, publisher in PUBLISHERS.items():
        assert publisher.name == name
        assert publisher.home.startswith("https://")
        for download in publisher.downloads.values():
            assert download.url.startswith("https://")
            assert download.digest is None or len(download.digest) in (32, 64)


@pytest.fixture
def tables_2023():
    datasets = pytest.importorskip("datasets")
    reviews = {
        "user_id": ["AB", "A", "AB", "AB"],
        "parent_asin": ["B2", "B1", "B3", "B2"],
        "rating": [5.0, 4.0, 1.0, 5.0],
        "title": ["good"] * 4,
        "timestamp": [1_600_000_002_500, 1_600_000_001_000, 1_600_000_000_000, 1_600_000_002_500],
    }
    meta = {
        "parent_asin": ["B9", "B2", "B1"],
        "title": ["Not reviewed", "Rose Water", "手霜"],
        "store": ["S", None, "店"],
        "categories": [[], ["Beauty", "Skin"], []],
        "price": ["1", "2", None],
    }
    return datasets.Dataset.from_dict(reviews), datasets.Dataset.from_dict(meta)


def check_2023(published):
    dataset = published.dataset
    assert dataset.user_ids.tolist() == ["A", "AB"]
    assert dataset.item_ids.tolist() == ["B1", "B2", "B3"]
    assert dataset.item_fields == {
        "title": ("手霜", "Rose Water", ""),
        "store": ("店", "", ""),
        "categories": ("", "Beauty, Skin", ""),
    }
    assert (dataset.users.tolist(), dataset.items.tolist()) == ([0, 1, 1], [0, 2, 1])
    assert dataset.times.tolist() == [1_600_000_001, 1_600_000_000, 1_600_000_002]
    assert dataset.ratings.tolist() == [4, 1, 5]
    assert published.notes == (
        "1 reviews repeat a user, an item and a time; each is kept once",
        "1 items are not in the meta table; their texts are empty",
    )


def test_amazon_2023_from_tables(tables_2023):
    check_2023(read_amazon_2023(*tables_2023))
    with pytest.raises(
        DataError, match=r"amazon\.meta: no column parent_asin, title \(columns: a\); give the"
    ):
        read_amazon_2023(tables_2023[0], type(tables_2023[0]).from_dict({"a": [1]}))


@pytest.mark.parametrize("core", [0, 5])
def test_amazon_2023_from_the_hub(tables_2023, monkeypatch, core):
    import datasets

    asked = []

    def load_dataset(kind, *, data_files, split):
        asked.append((kind, data_files, split))
        return tables_2023[kind == "parquet"]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    published = load_amazon_2023("All_Beauty", core=core, revision="abc")
    check_2023(published)
    assert published.name == "amazon (2023, All_Beauty)"
    root = "hf://datasets/McAuley-Lab/Amazon-Reviews-2023@abc"
    first = ("csv", f"{root}/benchmark/5core/rating_only/All_Beauty.csv", "train")
    if core == 0:
        first = ("json", f"{root}/raw/review_categories/All_Beauty.jsonl", "train")
    assert asked == [first, ("parquet", f"{root}/raw_meta_All_Beauty/*.parquet", "train")]
    assert load_published("amazon", variant="All_Beauty").dataset.n_items == 3


def test_amazon_2023_without_a_network(monkeypatch):
    datasets = pytest.importorskip("datasets")

    def load_dataset(*arguments, **named):
        raise ConnectionError("offline\nmore")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(
        DataError, match=r"the Hub gave no 'Baby' of McAuley-Lab/\S+ \(offline\); check the category"
    ):
        load_amazon_2023("Baby")
