"""The publishers' formats, in tiny files that are made up."""

import numpy as np
import pandas as pd
import pytest

from lora_rec.data.publishers import (
    PUBLISHERS,
    Published,
    load_published,
    read_amazon,
    read_lastfm,
    read_mind,
    read_movielens,
    read_online_retail,
)
from lora_rec.errors import DataError, LoraRecError

FLAGS = "0|" * 18
RATINGS = [(10, 2, 4, 300), (2, 1, 5, 200), (10, 1, 3, 100), (2, 3, 1, 100)]


def write(folder, files):
    for name, text in files.items():
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def lines(separator, rows, header=None):
    return "".join(
        separator.join(map(str, row)) + "\n" for row in ([header.split(",")] if header else []) + rows
    )


def official_100k():
    films = [
        "1|Rêve, Le (1996)|01-Jan-1996||http://x|" + "0|0|0|1|0|1|" + "0|" * 12 + "0",
        "2|Storm of Steel (1977)|01-Jan-1977||http://x|0|1|" + "0|" * 16 + "0",
        "3|unknown||||1|" + "0|" * 17 + "0",
    ]
    return {
        "u.data": lines("\t", RATINGS),
        "u.item": ("\n".join(films) + "\n").encode("latin-1"),
        "u.user": "2|24|M|technician|85711\n10|53|F|other|94043\n",
    }


def official_1m():
    films = "1::Rêve, Le (1996)::Animation|Comedy\n2::Storm of Steel (1977)::Action\n3::unknown::unknown\n"
    return {"ratings.dat": lines("::", RATINGS), "movies.dat": films.encode("latin-1")}


def official_csv():
    films = (
        '1,"Rêve, Le (1996)",Animation|Comedy\n2,Storm of Steel (1977),Action\n3,unknown,(no genres listed)\n'
    )
    return {
        "ratings.csv": lines(",", RATINGS, "userId,movieId,rating,timestamp"),
        "movies.csv": "movieId,title,genres\n" + films,
    }


def recbole():
    films = (
        "1\tRêve, Le\t1996\tAnimation Comedy\n2\tStorm of Steel\t1977\tAction\n3\tunknown\tunkonwn\tunknown\n"
    )
    return {
        "tiny.inter": lines("\t", RATINGS, "user_id:token,item_id:token,rating:float,timestamp:float"),
        "tiny.item": "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n" + films,
        "tiny.user": "user_id:token\tage:token\n2\t24\n10\t53\n",
    }


@pytest.mark.parametrize("files", [official_100k, official_1m, official_csv, recbole])
@pytest.mark.parametrize("inner", ["", "ml-tiny"])
def test_movielens_is_the_same_in_every_format(tmp_path, files, inner):
    folder = tmp_path / inner
    folder.mkdir(exist_ok=True)
    write(folder, files())
    dataset = read_movielens(tmp_path).dataset
    assert dataset.user_ids.tolist() == ["2", "10"]
    assert dataset.item_ids.tolist() == ["1", "2", "3"]
    assert dataset.item_fields == {
        "title": ("Rêve, Le", "Storm of Steel", "unknown"),
        "year": ("1996", "1977", ""),
        "genres": ("Animation, Comedy", "Action", ""),
    }
    assert dataset.users.tolist() == [0, 0, 1, 1]
    assert dataset.items.tolist() == [2, 0, 0, 1]
    assert dataset.times.tolist() == [100, 200, 100, 300]
    assert dataset.ratings.tolist() == [1, 5, 3, 4]


def test_movielens_years_that_are_no_single_year_stay_in_the_title(tmp_path):
    films = 'movieId,title,genres\n1,Fury (2007-),Drama\n2,"Say ""Hi"" (a.k.a. Hi) (2001) ",War\n3,1984,War\n'
    write(tmp_path, official_csv() | {"movies.csv": films})
    fields = read_movielens(tmp_path).dataset.item_fields
    assert fields["title"] == ("Fury (2007-)", 'Say "Hi" (a.k.a. Hi)', "1984")
    assert fields["year"] == ("", "2001", "")


LASTFM = {
    "artists.dat": 'id\tname\turl\tpictureURL\n1\tLes Nuages\thttp://x\thttp://y\n5\t"Quiet" Band\thttp://x\t\n',
    "user_artists.dat": "userID\tartistID\tweight\r\n2\t1\t50\r\n2\t5\t7\r\n30\t5\t9\r\n",
    "user_taggedartists.dat": "userID\tartistID\ttagID\tday\tmonth\tyear\n"
    + "".join(f"30\t1\t{tag}\t1\t4\t2009\n" for tag in (1, 2, 3, 4, 5, 6, 2, 6))
    + "2\t1\t5\t1\t4\t2009\n" * 9,  # of one who plays the artist
    "tags.dat": "tagID\ttagValue\r\n1\tpop\r\n2\trock français\r\n3\tc\r\n4\td\r\n5\te\r\n6\tf\r\n".encode(
        "latin-1"
    ),
    "user_friends.dat": "userID\tfriendID\r\n2\t30\r\n30\t2\r\n",
}


def test_lastfm(tmp_path):
    published = read_lastfm(write(tmp_path, LASTFM))
    dataset = published.dataset
    assert dataset.user_ids.tolist() == ["2", "30"]
    assert dataset.item_fields == {
        "title": ("Les Nuages", '"Quiet" Band'),
        "tags": ("rock français, f, pop, c, d", ""),  # by count, then by id; five at most
    }
    assert dataset.times is None
    assert (dataset.users.tolist(), dataset.items.tolist()) == ([0, 0, 1], [1, 0, 1])  # least played first
    assert dataset.ratings.tolist() == [7, 50, 9]
    assert published.friends.tolist() == [[0, 1]]


def test_lastfm_friends_without_plays_are_left_out_and_counted(tmp_path):
    write(tmp_path, LASTFM | {"user_friends.dat": "userID\tfriendID\n2\t30\n2\t99\n99\t2\n"})
    published = read_lastfm(tmp_path)
    assert published.friends.tolist() == [[0, 1]]
    assert published.notes == ("2 friend rows of users without plays left out",)


AMAZON = {
    "user_sequence.txt": "UB B3 B1 B3\nUA B1 B2\n",
    "item_text.txt": "B1 rose water\nB2\nB3 hand cream 50ml\n",
}


def test_amazon_sequences(tmp_path):
    dataset = read_amazon(write(tmp_path, AMAZON)).dataset
    assert dataset.user_ids.tolist() == ["UA", "UB"]
    assert dataset.item_fields == {"title": ("rose water", "", "hand cream 50ml")}
    assert (dataset.users.tolist(), dataset.items.tolist()) == ([0, 0, 1, 1, 1], [0, 1, 2, 0, 2])
    assert dataset.times is None


def retail(dates):
    return pd.DataFrame(
        {
            "InvoiceNo": ["1", "1", "1", "C2", "3", "4", "5"],
            "Description": [" RED MUG", "BLUE MUG", "RED MUG ", "RED MUG", None, "BLUE MUG", "RED MUG"],
            "Quantity": [1, 2, 1, -1, 5, 6, 7],
            "InvoiceDate": dates,
            "UnitPrice": 1.5,
            "CustomerID": [17850.0, 17850.0, 17850.0, 17850.0, 17850.0, np.nan, 9.0],
            "Country": "France",
        }
    )


DATES = pd.to_datetime(["2010-12-01 08:26:00"] * 4 + ["2010-12-02 08:26:00"] * 3)


@pytest.mark.parametrize("kind", ["parquet", "xlsx", "csv", "csv as in America"])
def test_online_retail(tmp_path, kind):
    if kind == "parquet":
        retail(DATES).to_parquet(tmp_path / "online_retail.parquet")
    elif kind == "xlsx":
        retail(DATES).to_excel(tmp_path / "Online Retail.xlsx", index=False)
    else:
        dates = DATES if kind == "csv" else ["12/1/2010 8:26"] * 4 + ["12/2/2010 8:26"] * 3
        retail(dates).to_csv(tmp_path / "retail.csv", index=False)
    published = read_online_retail(tmp_path)
    dataset = published.dataset
    assert dataset.user_ids.tolist() == ["9", "17850"]
    assert dataset.item_ids.tolist() == ["BLUE MUG", "RED MUG"]
    assert dataset.item_fields == {"title": ("BLUE MUG", "RED MUG")}
    assert (dataset.users.tolist(), dataset.items.tolist()) == ([0, 1, 1], [1, 1, 0])
    assert dataset.times.tolist() == [1291278360, 1291191960, 1291191960]
    assert published.notes == (
        "1 rows without a customer left out",
        "1 rows without a description left out",
        "1 rows with a quantity that is not positive left out",
        "1 rows repeat an item of their basket; each is kept once",
    )


def test_online_retail_as_xlsx_needs_openpyxl(tmp_path, monkeypatch):
    write(tmp_path, {"Online Retail.xlsx": "zip"})

    def read_excel(path):
        raise ImportError("Missing optional dependency 'openpyxl'")

    monkeypatch.setattr(pd, "read_excel", read_excel)
    with pytest.raises(LoraRecError, match="openpyxl: not installed; run: pip install"):
        read_online_retail(tmp_path)


BEHAVIORS = [
    "7\tU2\t11/12/2019 2:14:46 PM\tN1 N2 N1\tN3-1 N2-0",
    "8\tU10\t11/14/2019 12:00:00 AM\t\tN1-0 N-3-1 N2-1",
]
NEWS_3 = 'N1\tnews\tRain is coming\nN2\tsports\tTeam "wins"\nN3\tnews\tA third\nN-3\tfood\tSoup\n'
NEWS_8 = "".join(
    f"{n}\t{c}\tsub{i}\t{t}\tabstract {i}\thttp://x\t[]\t[]\n"
    for i, (n, c, t) in enumerate(line.split("\t") for line in NEWS_3.splitlines())
)


@pytest.mark.parametrize("news", [NEWS_3, NEWS_8])
def test_mind(tmp_path, news):
    write(tmp_path, {"behaviors.tsv": "\n".join(BEHAVIORS) + "\n", "news.tsv": news})
    published = read_mind(tmp_path)
    dataset, shown = published.dataset, published.impressions
    assert dataset.user_ids.tolist() == ["U2", "U10"]
    assert dataset.item_ids.tolist() == ["N1", "N2", "N3", "N-3"]
    assert dataset.item_fields["title"] == ("Rain is coming", 'Team "wins"', "A third", "Soup")
    assert dataset.item_fields["category"] == ("news", "sports", "news", "food")
    assert ("abstract" in dataset.item_fields) == ("subcategory" in dataset.item_fields) == (news == NEWS_8)
    assert (dataset.users.tolist(), dataset.items.tolist()) == ([0, 1, 1], [2, 3, 1])
    times = [1573568086, 1573689600]
    assert dataset.times.tolist() == [times[0], times[1], times[1]]
    assert (shown.users.tolist(), shown.times.tolist()) == ([0, 1], times)
    assert [a.tolist() for a in shown.histories] == [[0, 1, 0], []]
    assert [a.tolist() for a in shown.candidates] == [[2, 1], [0, 3, 1]]
    assert shown.clicks.tolist() == [True, False, False, True, True]
    assert published.notes == ("1 of 2 impressions have no history",)


def broken(files, name, text):
    return files() | {name: text} if callable(files) else files | {name: text}


def test_users_that_are_numbers_with_a_point_are_found(tmp_path):
    lines = [f"{n}\t{n}.0\t11/12/2019 2:14:46 PM\tN1\tN1-1 N2-0" for n in (1, 2)]
    write(tmp_path, {"behaviors.tsv": "\n".join(lines) + "\n", "news.tsv": NEWS_3})
    published = load_published("mind", tmp_path)
    assert published.dataset.user_ids.tolist() == ["1", "2"]
    assert published.impressions.users.tolist() == [0, 1]


MIND = {"behaviors.tsv": "\n".join(BEHAVIORS) + "\n", "news.tsv": NEWS_3}
ERRORS = {
    "a cell too few": (
        "movielens",
        broken(official_100k, "u.data", "1\t2\t3\t4\n1\t2\t3\n"),
        r"u\.data, line 2: 3 columns where 4 \(user, item, rating, time\) are needed: '1\\t2\\t3'; put",
    ),
    "a cell too many": (
        "movielens",
        broken(official_csv, "ratings.csv", "userId,movieId,rating,timestamp\n1,2,3,4,5\n"),
        r"ratings\.csv, line 2: 5 columns where 4",
    ),
    "no number": (
        "movielens",
        broken(official_1m, "ratings.dat", "1::2::5::3\n1::2::many::3\n"),
        r"ratings\.dat, line 2: rating 'many' is no number",
    ),
    "a blank line": (
        "movielens",
        broken(official_1m, "ratings.dat", "1::2::5::3\n\n1::2::5::3\n"),
        r"ratings\.dat, line 2: 1 columns where 4",
    ),
    "an unknown film": (
        "movielens",
        broken(official_csv, "ratings.csv", "userId,movieId,rating,timestamp\n1,2,3,4\n1,77,3,4\n"),
        r"ratings\.csv, line 3: 77 is a movie that movies\.csv lacks \(the line has one\); use files",
    ),
    "no header": (
        "movielens",
        broken(recbole, "tiny.inter", "196\t242\t3\t881250949\n"),
        r"tiny\.inter, line 1: .* have no type; give RecBole's header, name:type",
    ),
    "a missing column": (
        "movielens",
        broken(recbole, "tiny.inter", "user_id:token\titem_id:token\n1\t2\n"),
        r"tiny\.inter, line 1: no column for rating, time",
    ),
    "a missing file": (
        "lastfm",
        {name: text for name, text in LASTFM.items() if name != "tags.dat"},
        r"tags\.dat: no such file; did you mean 'artists\.dat'\?|tags\.dat: no such file; unpack",
    ),
    "another set": (
        "lastfm",
        MIND,
        r"holds behaviors\.tsv, news\.tsv; give the folder with artists\.dat, user_artists",
    ),
    "an empty file": (
        "lastfm",
        broken(LASTFM, "tags.dat", ""),
        r"tags\.dat: the file is empty; download it again",
    ),
    "latin-1 in artists": (
        "lastfm",
        broken(LASTFM, "artists.dat", "id\tname\turl\tp\n1\tÉcole\t\t\n".encode("latin-1")),
        r"artists\.dat: not utf-8-sig at byte \d+; download the file again",
    ),
    "one's own friend": (
        "lastfm",
        broken(LASTFM, "user_friends.dat", "userID\tfriendID\n2\t30\n2\t2\n"),
        r"user_friends\.dat, line 3: a user who is their own friend",
    ),
    "a user without items": (
        "amazon",
        broken(AMAZON, "user_sequence.txt", "UA B1\nUB\n"),
        r"user_sequence\.txt, line 2: a user without items",
    ),
    "a user twice": (
        "amazon",
        broken(AMAZON, "user_sequence.txt", "UA B1\nUA B2\n"),
        r"user_sequence\.txt, line 2: UA has a line before this one",
    ),
    "an item without text": (
        "amazon",
        broken(AMAZON, "user_sequence.txt", "UA B1\nUB B1 B9\n"),
        r"user_sequence\.txt, line 2: B9 is an item that item_text\.txt lacks; use both files",
    ),
    "no quantity": (
        "online-retail",
        {"a.csv": "Description,Quantity,InvoiceDate,CustomerID\nMUG,2,2011-01-01,1\nMUG,x,2011-01-01,1\n"},
        r"a\.csv, line 3: Quantity 'x' is no whole number",
    ),
    "no date": (
        "online-retail",
        {"a.csv": "Description,Quantity,InvoiceDate,CustomerID\nMUG,2,2011-01-01,1\nMUG,2,soon,1\n"},
        r"a\.csv, line 3: InvoiceDate 'soon' is no date",
    ),
    "another table": (
        "online-retail",
        {"a.csv": "Descripton,Quantity,InvoiceDate,CustomerID\nMUG,2,2011-01-01,1\n"},
        r"a\.csv: no column Description; did you mean 'Descripton'",
    ),
    "another time": (
        "mind",
        broken(MIND, "behaviors.tsv", BEHAVIORS[0] + "\n8\tU1\t2019-11-14 10:00\t\tN1-1\n"),
        r"behaviors\.tsv, line 2: time '2019-11-14 10:00' does not read as 11/12/2019 2:14:46 PM",
    ),
    "unknown news in a history": (
        "mind",
        broken(MIND, "behaviors.tsv", BEHAVIORS[1] + "\n8\tU1\t11/12/2019 2:14:46 PM\tN1 N77\tN1-1\n"),
        r"behaviors\.tsv, line 2: 'N77' is not in news\.tsv; use both files of one release",
    ),
    "candidates without a mark": (
        "mind",
        broken(MIND, "behaviors.tsv", BEHAVIORS[0] + "\n8\tU1\t11/12/2019 2:14:46 PM\tN1\tN1-1 N2\n"),
        r"behaviors\.tsv, line 2: 'N2' is no id followed by -0 or -1",
    ),
    "a user who clicked nothing": (
        "mind",
        broken(MIND, "behaviors.tsv", BEHAVIORS[0] + "\n8\tU1\t11/12/2019 2:14:46 PM\tN1\tN1-0\n"),
        r"behaviors\.tsv, line 2: a user without any click",
    ),
    "other news columns": (
        "mind",
        broken(MIND, "news.tsv", "N1\tnews\n"),
        r"news\.tsv, line 1: 2 columns; give the official eight",
    ),
    "news twice": (
        "mind",
        broken(MIND, "news.tsv", NEWS_3 + "N1\tnews\tAgain\n"),
        r"news\.tsv, line 5: N1 has a line",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_name_the_file_and_the_line(tmp_path, case):
    name, files, message = ERRORS[case]
    with pytest.raises(DataError, match=message):
        load_published(name, write(tmp_path, files))


@pytest.mark.parametrize("name", PUBLISHERS)
def test_a_missing_folder_is_named(tmp_path, name):
    with pytest.raises(DataError, match="nowhere: no such folder; check the path"):
        load_published(name, tmp_path / "nowhere")


def test_ids_outside_the_data_set_are_refused(tmp_path):
    published = read_lastfm(write(tmp_path, LASTFM))
    with pytest.raises(DataError, match=r"published\.friends: an id is outside 0\.\.1; use internal ids"):
        Published("x", published.dataset, friends=np.array([[0, 2]]))
