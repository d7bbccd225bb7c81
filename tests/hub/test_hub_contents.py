"""What leaves this machine, what does not, and what of other makers is let in."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import yaml
from hub_server import WRITE_TOKEN
from test_hub_errors import fails
from test_hub_round_trip import LISTS, LOAD, PUSH, push
from tiny import rewrite

import lora_rec
from lora_rec.bundle import list_files
from lora_rec.errors import BundleError, DataError
from lora_rec.export.bundle_writer import portable_recipe
from lora_rec.hub.contents import gather
from lora_rec.pipeline.merge import merge_bundle
from lora_rec.recipe import Recipe
from lora_rec.schema import TOWERS


@pytest.fixture
def copy(bundle, tmp_path):
    return shutil.copytree(bundle, tmp_path / "copy")


def test_files_that_the_manifest_does_not_name_stay_here(copy, bundle):
    (copy / "notes.txt").write_text("mine")
    (copy / "item_tower" / "optimizer.pt").write_bytes(b"x")
    (copy / "user_vectors.npy").write_bytes(b"users")
    assert set(gather(copy).files) == set(list_files(bundle))


def test_vectors_of_users_leave_only_by_name(copy, client, hub):
    def add(place):
        (place / "user_vectors.npy").write_bytes(b"users")

    named = rewrite(copy, copy.parent / "named", add)
    assert "user_vectors.npy" in lora_rec.load(named).manifest.files
    push(client, named, "ann/users")
    assert "user_vectors.npy" not in hub.store.files("ann/users", "main")
    assert client.value(LOAD + "value = len(rec.item_ids)", name="ann/users", options={}) == 40
    push(client, named, "ann/users", include=["user_vectors.npy"])
    assert "user_vectors.npy" in hub.store.files("ann/users", "main")
    assert push(client, named, "ann/users")["deleted"] == ["user_vectors.npy"]
    with pytest.raises(
        BundleError, match="there is no 'notes.txt' to include; the bundle has user_vectors.npy"
    ):
        gather(named, include=["notes.txt"])


@pytest.mark.parametrize("place", ["metrics.json", "pictures/other.png", "user_tower"])
def test_a_planted_link_is_refused(copy, tmp_path, place):
    secret = tmp_path / "secret"
    original = copy / place
    if original.exists():
        shutil.move(original, secret)
    else:
        secret.write_text("secret")
    original.parent.mkdir(exist_ok=True)
    original.symlink_to(secret)
    with pytest.raises(BundleError, match=f"{place} is a link or no regular file, and a push follows none"):
        gather(copy)


def test_a_planted_token_is_refused(copy, tmp_path):
    def plant(place):
        (place / "recipe.yaml").write_text(f"data: {{root: {WRITE_TOKEN}}}\n")

    with pytest.raises(BundleError, match="recipe.yaml holds a token of the Hub; nothing was sent") as caught:
        gather(rewrite(copy, tmp_path / "yaml", plant))
    assert WRITE_TOKEN not in str(caught.value)

    def hide(place):
        (place / "head.safetensors").write_bytes(b"xx odd-token-of-another-form xx")

    hidden = rewrite(copy, tmp_path / "binary", hide)
    with pytest.raises(BundleError, match="head.safetensors holds a token"):
        gather(hidden, token="odd-token-of-another-form")


def test_a_planted_path_is_refused(copy, tmp_path):
    def plant(place):
        config = json.loads((place / "item_tower" / "adapter_config.json").read_text())
        config["base_model_name_or_path"] = "/home/ann/models/secret"
        (place / "item_tower" / "adapter_config.json").write_text(json.dumps(config))

    with pytest.raises(BundleError, match=r"holds a path of this machine \(base_model_name_or_path"):
        gather(rewrite(copy, tmp_path / "path", plant))


@pytest.mark.parametrize(
    "path",
    ["/srv", "../../home/ann/x", "data/../../x.csv", "/my data/shop/clicks.csv", "~ann/x", "file:///home/x"]
    + ["C:\\\\x", r"\\server\x", "see /home/ann/secret"],
)
def test_a_planted_path_of_any_form_is_refused(copy, tmp_path, path):
    def plant(place):
        recipe = yaml.safe_load((place / "recipe.yaml").read_text())
        recipe["data"]["root"] = path
        (place / "recipe.yaml").write_text(yaml.safe_dump(recipe))

    with pytest.raises(BundleError, match=r"holds a path of this machine \(data.root"):
        gather(rewrite(copy, tmp_path / "path", plant))


def test_slashes_in_templates_and_separators_are_no_paths(copy, tmp_path):
    def plant(place):
        recipe = yaml.safe_load((place / "recipe.yaml").read_text())
        recipe["text"]["item_template"] = "/{title}/ {genres} / {year}"
        recipe["ranking"] |= {"category_separator": "/"}
        recipe["data"] |= {"root": "data/films", "name": "ann/films", "separator": " / "}
        (place / "recipe.yaml").write_text(yaml.safe_dump(recipe))

    assert "recipe.yaml" in gather(rewrite(copy, tmp_path / "named", plant)).files


def test_names_of_categories_are_no_paths(copy, tmp_path):
    def name_slices(place):
        metrics = json.loads((place / "metrics.json").read_text())
        (place / "metrics.json").write_text(
            json.dumps(metrics | {"slices": [{"group": "length of the history", "name": "1"}, crime]})
        )

    crime = {"group": "category of the target", "name": "/books/crime/"}
    named = rewrite(copy, tmp_path / "named", name_slices)
    assert crime in gather(named).read_json("metrics.json")["slices"]
    bare = gather(named, item_texts=False)
    assert [part["name"] for part in bare.read_json("metrics.json")["slices"]] == ["1"]
    assert b"crime" not in b"".join(bare.read(name) for name in bare.files)


def test_the_recipe_of_a_bundle_names_no_folder_of_this_machine(tmp_path):
    names = [f"{tower}.backbone" for tower in TOWERS]
    names += ["data.root", "regularisation.translate_there", "regularisation.translate_back", "output"]
    config = Path(__file__).parents[2] / "recipes" / "configs" / "lastfm.yaml"
    recipe = Recipe.load(config, overrides=[f"{name}=/home/ann/{name}" for name in names])
    text = portable_recipe(recipe)
    assert "/home/ann" not in text
    up = [f"{name}=../../ann/{name}" for name in names]
    up[-1] = "output=~/ann/output"
    text = portable_recipe(Recipe.load(config, overrides=up))
    assert not {"ann", ".."} & set(re.split(r"[/\s]", text))
    assert yaml.safe_load(text)["output"] == "runs/output"
    assert text.count("translate_there") == 3  # the note, the setting and what stands there now


def test_without_item_texts(client, hub, bundle, caplog, tmp_path):
    near = lora_rec.load(bundle)
    push(client, bundle, "ann/bare", item_texts=False)
    folder = client.value(LOAD + "value = str(rec.folder)", name="ann/bare", options={})
    for title in near.titles:
        assert title.encode() not in hub.store.get(
            hub.store.files("ann/bare", "main")["items.json"]["sha256"]
        )
    rec = lora_rec.load(folder)
    assert "pushed without the items' texts: titles are ids" in caplog.text
    found = rec.recommend(["i3"], k=3)
    assert [item.item_id for item in found] == [item.item_id for item in near.recommend(["i3"], k=3)]
    assert [item.title for item in found] == [item.item_id for item in found]
    titles = dict(zip(near.item_ids, near.titles, strict=True))
    assert rec.with_item_fields({"title": titles}).recommend(["i3"], k=3) == near.recommend(["i3"], k=3)
    with pytest.raises(DataError, match="title: 39 items have no text, e.g. 'i1'; give all"):
        rec.with_item_fields({"title": {"i0": "x"}})
    with pytest.raises(BundleError, match="was pushed without the items' texts, .* merge the bundle that it"):
        merge_bundle(folder, tmp_path / "merged")


def test_without_item_vectors(client, hub, bundle, models):
    push(client, bundle, "ann/towers", item_vectors=False)
    sent = set(hub.store.files("ann/towers", "main"))
    assert not sent & {"item_vectors.npy", "head.safetensors", "similarity_vectors.npy", "factor_vectors.npy"}
    text = "pushed without the items' vectors and the head, so it needs items of yours"
    fails(client, LOAD, "BundleError", text, name="ann/towers", options={})
    folder = client.value("from lora_rec.hub import find_bundle\nvalue = str(find_bundle('ann/towers'))")
    bases = {"user_backbone": str(models["bert"]), "item_backbone": str(models["llama"])}
    near, far = (lora_rec.load_towers(place, **bases) for place in (bundle, folder))
    assert (near.encode_items(["war1 war2"]) == far.encode_items(["war1 war2"])).all()


def test_a_link_in_the_cache_cannot_be_pushed_on(client, bundle):
    push(client, bundle, "ann/films")
    text = "is a link or no regular file, and a push follows none"
    fails(client, LOAD + "rec.push_to_hub('ann/fork')", "BundleError", text, name="ann/films", options={})


def test_a_repository_of_something_else_is_left_alone(client, hub, bundle):
    hub.store.create("ann/model", private=False)
    head = hub.store.commit("ann/model", "main", "mine", {"pytorch_model.bin": b"years"}, {}, [])
    text = "holds files that no bundle has (pytorch_model.bin); nothing was sent"
    fails(client, PUSH, "HubError", text, name="ann/model", bundle=str(bundle), options={})
    assert hub.store.resolve("ann/model", "main") == head


FOREIGN = {
    "code": ({"run.py": b"print('run')"}, "holds files that bundle.json does not name (run.py)"),
    "pickle": (
        {"item_tower/adapter_model.bin": b"cos\nsystem\n"},
        "holds files that bundle.json does not name (item_tower/adapter_model.bin)",
    ),
    "changed": ({"metrics.json": b"{}"}, "metrics.json is not the file that bundle.json names"),
    "damaged": ({"bundle.json": b"{"}, "bundle.json is not valid JSON"),
    "list": ({"bundle.json": b"[]"}, "format version None"),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_bundles_of_other_makers_are_guarded_against(client, hub, bundle, case):
    name = f"ann/foreign-{case}"
    push(client, bundle, name)
    contents, text = FOREIGN[case]
    hub.store.commit(name, "main", "edited by hand", contents, {}, [])
    fails(client, LOAD, "BundleError", text, name=name, options={})
    cached = [path.name for path in client.cache.rglob("*")]
    assert not {"bundle.json", "run.py", "adapter_model.bin"} & set(cached)
    fails(client, LOAD, "BundleError", text, name=name, options={})  # and what was fetched is no better now


def edited(bundle, change):
    manifest = json.loads((bundle / "bundle.json").read_text())
    change(manifest)
    return {"bundle.json": json.dumps(manifest).encode()}


def test_manifests_of_other_makers_are_guarded_against(client, hub, bundle):
    digest = "0" * 64
    cases = {
        "newer": (lambda m: m.update(format_version=3), "format version 3, but this lora_rec reads up to 2"),
        "code": (
            lambda m: m["files"].update({"run.py": digest}),
            "bundle.json names 'run.py', which no bundle",
        ),
        "outside": (lambda m: m["files"].update({"../x.npy": digest}), "bundle.json names '../x.npy', which"),
        "missing": (lambda m: m["files"].update({"shown.safetensors": digest}), "is missing on the Hub"),
        "keys": (lambda m: m.update(run="code"), "bundle.json is not as it was written"),
        "types": (lambda m: m["files"].update({"head.safetensors": 1}), "a name or a digest is no text"),
    }
    push(client, bundle, "ann/manifests")
    for change, text in cases.values():
        hub.store.commit("ann/manifests", "main", "edited", edited(bundle, change), {}, [])
        fails(client, LOAD, "BundleError", text, name="ann/manifests", options={})
    assert "bundle.json" not in [path.name for path in client.cache.rglob("*")]


def test_a_head_that_is_missing_and_other_widths(copy, tmp_path, models):
    def drop(place):
        os.unlink(place / "head.safetensors")

    with pytest.raises(BundleError, match=r"no ranking head \(head.safetensors\)"):
        lora_rec.load(rewrite(copy, tmp_path / "headless", drop))

    def widen(place):
        manifest = json.loads((place / "bundle.json").read_text())
        (place / "bundle.json").write_text(json.dumps(manifest | {"width": 9}))

    with pytest.raises(BundleError, match="item_vectors.npy is 40 by 8, bundle.json says 40 by 9"):
        lora_rec.load(rewrite(copy, tmp_path / "wide", widen))
    with pytest.raises(BundleError, match="its map makes 8 numbers of 32, bundle.json says 9 of 32"):
        lora_rec.load_towers(
            tmp_path / "wide", user_backbone=str(models["bert"]), item_backbone=str(models["llama"])
        )

    def shorten(place):
        manifest = json.loads((place / "bundle.json").read_text())
        (place / "bundle.json").write_text(json.dumps(manifest | {"n_items": 39}))

    with pytest.raises(BundleError, match="items.json holds 40 items, bundle.json says 39"):
        lora_rec.load(rewrite(copy, tmp_path / "short", shorten))


def test_the_lists_of_a_fork_are_equal(client, hub, bundle, tmp_path):
    push(client, bundle, "ann/films")
    folder = client.value(LOAD + "value = str(rec.folder)", name="ann/films", options={})
    plain = tmp_path / "plain"
    shutil.copytree(folder, plain)  # copies what the links point to
    push(client, plain, "ann/fork")
    near = client.value(LOAD + LISTS, name="ann/films", options={})
    assert client.value(LOAD + LISTS, name="ann/fork", options={}) == near
