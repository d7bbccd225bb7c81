"""The card: valid for the Hub by the client's own checks, written from the bundle, and read as Markdown."""

import json
import re
from dataclasses import replace

import pytest
import yaml
from hub_server.cards import find_errors
from markdown_it import MarkdownIt
from test_hub_round_trip import push
from tiny import rewrite

from lora_rec.data_section import DataSection
from lora_rec.export.bundle_writer import describe_source
from lora_rec.hub.card import write_card
from lora_rec.hub.card_code import load_plainly
from lora_rec.hub.contents import gather
from lora_rec.schema import TOWERS

CHECK = """
from huggingface_hub import ModelCard
card = ModelCard.load(path)
card.validate()
value = [vars(result) for result in card.data.eval_results]
"""


@pytest.fixture(scope="module")
def learned(make_bundle):
    """A bundle whose towers have moved."""
    return make_bundle("learned", train={"epochs": 1})


def test_only_what_the_hub_could_name_is_called_a_data_set_there():
    for name, dataset_id in (("ann/clicks", "ann/clicks"), ("магазин/2024", None), ("own", None)):
        section = DataSection(interactions="c.csv", items="i.csv", name=name)
        assert describe_source(section).dataset_id == dataset_id


def card_of(hub, name):
    return hub.store.get(hub.store.files(name, "main")["README.md"]["sha256"]).decode()


def test_the_client_finds_the_card_valid_and_reads_its_results(client, hub, learned, tmp_path):
    push(client, learned, "ann/card", licence="apache-2.0")
    text = card_of(hub, "ann/card")
    (tmp_path / "README.md").write_text(text)
    hub.requests.clear()
    results = client.value(CHECK, path=str(tmp_path / "README.md"))
    assert "/api/validate-yaml" in str(hub.requests)
    metrics = json.loads((learned / "metrics.json").read_text())
    found = {result["metric_name"]: result for result in results}
    for system in ("frozen_towers", "trained_towers", "ranking_head"):
        for metric in ("ndcg@10", "ild@10"):
            one = found[f"{metric}, {system}"]
            assert one["metric_value"] == pytest.approx(metrics[system][metric], abs=1e-6)
            assert one["metric_type"] == metric.replace("@", "_at_")
            assert one["metric_args"]["interval_95"][0] <= one["metric_value"]
            assert one["dataset_split"] == "test"
    head = yaml.safe_load(text.split("---\n")[1])
    assert (head["license"], head["library_name"]) == ("apache-2.0", "lora_rec")
    assert head["pipeline_tag"] == "feature-extraction"
    assert {"recommender-system", "diversity", "lora"} <= set(head["tags"])
    broken = text.replace("pipeline_tag: feature-extraction", "pipeline_tag: reading-minds")
    (tmp_path / "README.md").write_text(broken)
    refused = client.run(CHECK, path=str(tmp_path / "README.md"))
    assert "pipeline_tag" in refused.text


def test_bases_and_data_of_the_hub_stand_in_the_metadata(learned, tmp_path):
    import shutil

    copy = shutil.copytree(learned, tmp_path / "copy")
    manifest = json.loads((copy / "bundle.json").read_text())
    manifest["item_tower"] |= {"base_model_id": "ann/gpt", "revision": "a" * 40, "licence": "mit"}
    manifest["data"] = {"name": "Films", "licence": "for research", "home": None, "dataset_id": "ann/films"}
    manifest["ranking"] |= {"steepness": 1.25, "typical_chance": 0.03}
    (copy / "bundle.json").write_text(json.dumps(manifest))
    card = write_card(gather(copy), name="ann/x")
    head = yaml.safe_load(card.split("---\n")[1])
    assert head["base_model"] == ["ann/gpt"]
    assert head["base_model_relation"] == "adapter"
    assert head["datasets"] == ["ann/films"]
    assert head["model-index"][0]["results"][0]["dataset"]["type"] == "ann/films"
    for name in ("电影", "clicks of 2024"):
        manifest["data"] = {"name": name, "licence": None, "home": None, "dataset_id": None}
        (copy / "bundle.json").write_text(json.dumps(manifest))
        assert find_errors(write_card(gather(copy), name="ann/x")) == []
    for said in ("`" + "a" * 40 + "`", "| mit |", "for research", "steepness 1.25, typical chance 0.03"):
        assert said in card


def test_it_says_what_somebody_needs_and_renders(learned):
    contents = gather(learned)
    card = write_card(contents, name="ann/x")
    body = card.split("---\n", 2)[2]
    page = MarkdownIt("commonmark").enable("table").render(body)
    titles = re.findall(r"<h2>(.*?)</h2>", page)
    assert titles == [
        "What is in it",
        "Data",
        "How good it is",
        "Relevance and diversity",
        "Without <code>lora_rec</code>",
        "New items",
        "Limits",
    ]
    assert page.count("<table>") == 3
    assert "|" not in re.sub(r"<code.*?</code>", "", page, flags=re.S)  # every table became one
    for name in TOWERS:
        tower = contents.manifest.tower(name)
        assert f"lora_rank {tower.adapter_settings['lora_rank']}" in card
    counts = contents.read_json("metrics.json")["data"]
    assert f"{counts['n_users']:,} users" in card
    low, high = contents.read_json("metrics.json")["intervals"]["trained_towers"]["ndcg@10"]
    assert f"({low:.4f}–{high:.4f})" in card
    ranking = contents.manifest.ranking
    assert f"steepness {ranking.steepness:.3g}" in card
    (picture,) = re.findall(r'<img src="(.*?)"', page)
    assert picture in contents.files
    assert card == write_card(gather(learned), name="ann/x")


@pytest.mark.parametrize("own", TOWERS)
def test_the_tower_that_peft_does_load_has_its_code(learned, own):
    manifest = gather(learned).manifest
    (plain,) = set(TOWERS) - {own}
    text = load_plainly(
        replace(manifest, **{own: replace(manifest.towers[own], adapter="bottleneck")}), "ann/x", ""
    )
    assert f"subfolder='{plain}'" in text
    assert "Of the other tower's kind, `bottleneck`, peft has none" in text
    neither = {name: replace(manifest.towers[name], adapter="full") for name in TOWERS}
    text = load_plainly(replace(manifest, **neither), "ann/x", "")
    assert text == "peft has no adapter of the kind `full`; load it with `lora_rec`."


def test_it_says_when_files_tell_of_users(learned, tmp_path):
    named = rewrite(learned, tmp_path / "named", lambda place: (place / "user_ids.json").write_text("[]"))
    nothing = "No user's id or history is in these files."
    assert nothing in write_card(gather(named), name="ann/x")
    card = write_card(gather(named, include=["user_ids.json"]), name="ann/x")
    assert nothing not in card and "`user_ids.json` tells of single users." in card


def test_the_first_code_on_the_card_runs(client, hub, learned):
    push(client, learned, "ann/lines")
    code = re.findall(r"```python\n(import lora_rec\n.*?)```", card_of(hub, "ann/lines"), flags=re.S)[0]
    lines = re.findall(r"^\d+ i.*$", client.run(code).out, flags=re.M)  # bars are written beside them
    assert len(lines) == 10
    assert lines[0].startswith("1 i")
