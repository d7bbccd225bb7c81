"""What goes to the Hub and what comes back, with the real client against the server of `hub_server`."""

import json
import shutil
from pathlib import Path

import pytest

import lora_rec
from lora_rec.bundle import file_digest, list_files
from lora_rec.cli import main

PUSH = "import lora_rec\nvalue = vars(lora_rec.load(bundle).push_to_hub(name, **options))"
LISTS = "value = [(i.item_id, i.score) for i in rec.recommend(['i3', 'i5'], k=5, diversity=0.3)]"
LOAD = "import lora_rec\nrec = lora_rec.load(name, **options)\n"


def push(client, bundle, name, **options):
    return client.value(PUSH, bundle=str(bundle), name=name, options=options)


def test_what_is_pulled_is_what_was_pushed(client, hub, bundle):
    pushed = push(client, bundle, "ann/films")
    assert pushed["commit"] == hub.store.resolve("ann/films", "main")
    assert len(hub.store.read("ann/films")["commits"]) == 2  # the one that made it, and ours
    folder = client.value(LOAD + "value = str(rec.folder)", name="ann/films", options={})
    assert str(client.cache) in folder
    pulled = Path(folder)
    assert list_files(pulled) == list_files(bundle)
    assert {n: file_digest(pulled / n) for n in list_files(pulled)} == {
        n: file_digest(bundle / n) for n in list_files(bundle)
    }
    near = client.value(LOAD + LISTS, name=str(bundle), options={})
    assert client.value(LOAD + LISTS, name="ann/films", options={}) == near


def test_a_second_push_sends_what_changed_alone(client, hub, bundle, tmp_path):
    copy = shutil.copytree(bundle, tmp_path / "copy")
    first = push(client, copy, "ann/again")
    assert set(first["sent"]) == {*list_files(bundle), "README.md"}
    hub.requests.clear()
    again = push(client, copy, "ann/again")
    assert (again["commit"], again["sent"]) == (first["commit"], [])
    assert again["n_unchanged"] == len(first["sent"])
    assert hub.sent() == []
    assert main(["tune-diversity", str(copy), "--keep", "0.5"]) == 0
    changed = push(client, copy, "ann/again", commit_message="more diverse")
    assert set(changed["sent"]) == {"bundle.json", "pictures/diversity.png", "README.md"}
    assert set(hub.sent()) == set(changed["sent"])
    commits = hub.store.read("ann/again")["commits"]
    assert commits[changed["commit"]]["message"] == "more diverse"
    assert commits[changed["commit"]]["parent"] == first["commit"]


def test_branches_tags_and_commits(client, hub, bundle, tmp_path):
    first = push(client, bundle, "ann/versions")
    hub.store.name_commit("ann/versions", "tags", "v1", "main")
    copy = shutil.copytree(bundle, tmp_path / "copy")
    assert main(["tune-diversity", str(copy), "--keep", "0.5"]) == 0
    second = push(client, copy, "ann/versions", revision="diverse")
    assert hub.store.resolve("ann/versions", "main") == first["commit"]
    assert hub.store.resolve("ann/versions", "diverse") == second["commit"]
    show = LOAD + "value = [rec.manifest.ranking.diversity, rec.folder.name]"

    def load(revision):
        return client.value(show, name="ann/versions", options={"revision": revision})

    assert load("main") == load("v1") == load(first["commit"]) == load(None) == [0, first["commit"]]
    assert load("diverse") == [lora_rec.load(copy).manifest.ranking.diversity, second["commit"]]
    assert load("diverse")[0] > 0
    card = client.value(
        "from huggingface_hub import hf_hub_download\n"
        "value = open(hf_hub_download(name, 'README.md', revision='diverse')).read()",
        name="ann/versions",
    )
    assert card.count("'ann/versions'") == card.count("'ann/versions', revision='diverse'") + card.count(
        "'projections.safetensors', revision='diverse'"
    )
    third = push(client, copy, "ann/versions")  # the branch has moved: main is asked for again
    assert load("main") == [load("diverse")[0], third["commit"]]


def test_the_command_line(client, hub, bundle):
    run = "from lora_rec.cli import main\nvalue = main(command)"
    pushed = client.run(run, command=["push", str(bundle), "ann/shell", "--private", "--message", "by hand"])
    assert pushed.value == 0, pushed.out
    commit = hub.store.resolve("ann/shell", "main")
    assert f"commit {commit}" in pushed.out
    assert "load it: lora_rec.load('ann/shell')" in pushed.out
    assert hub.store.read("ann/shell")["private"]
    command = ["recommend", "ann/shell", "--history", "i3,i5", "-k", "3", "--json", "--revision", commit]
    rows = [json.loads(line) for line in client.run(run, command=command).out.splitlines() if line[:1] == "{"]
    near = lora_rec.load(bundle).recommend(["i3", "i5"], k=3)
    assert [row["item_id"] for row in rows] == [item.item_id for item in near]
    assert "ann/shell: 40 items" in client.run(run, command=["info", "ann/shell"]).out
    again = client.run(run, command=["push", str(bundle), "ann/shell", "--revision", "v2"])
    assert "load it: lora_rec.load('ann/shell', revision='v2')" in again.out
    failed = client.run(run, command=["recommend", "ann/shall", "--history", "i3"])
    assert failed.value == 1
    assert "lora-rec: ann/shall: there is no such folder here, and the Hub has no such" in failed.out
    with pytest.raises(SystemExit):
        main(["push", "--help"])
