"""Training without labels: what is read, what is refused and why, what is written, and how it goes on."""

import datetime
import json

import numpy as np
import pytest
import torch
from peft import PeftModel
from tiny_tasks import TASKS, learner_of, pretrain, recipe_of, write_shop
from transformers import AutoModel, AutoTokenizer

import lora_rec.towers.backbone as backbone_module
from lora_rec.cli import main
from lora_rec.config import build_config
from lora_rec.data.publishers import load_published
from lora_rec.data_section import DataSection
from lora_rec.errors import BundleError, DataError, RecipeError, TowerError
from lora_rec.pipeline.data import load_data, split_data
from lora_rec.pipeline.domain import cut_domain, read_domain
from lora_rec.pipeline.pretrain import (
    check_tasks,
    format_result,
    open_pretrain_checkpoints,
    write_result,
)
from lora_rec.pipeline.pretrain_merge import merge_pretrained
from lora_rec.pipeline.pretrain_tasks import _warn_of_separator
from lora_rec.pipeline.shown import split_shown
from lora_rec.pipeline.towers import build_tower
from lora_rec.pretrain_recipe import PretrainRecipe
from lora_rec.text.collate import tokenize
from lora_rec.tower_section import TowerSection
from lora_rec.towers.two_tower import encode
from lora_rec.train.tasks.nsp import draw_pairs

TEXTS = ["war1 war war1", "love love3", "war7"]


@pytest.fixture
def shop(tmp_path, models):
    return write_shop(tmp_path, models)


@pytest.fixture
def trained(shop, models):
    """The folder of an adapter, its recipe, and the tower that it was written from."""

    def make(tasks=("category",), **tower):
        rate = 0.002 if tower.get("adapter") == "full" else 0.02
        recipe = recipe_of(shop, tasks, models=models, tower=tower, epochs=3, learning_rate=rate)
        model, result = pretrain(recipe)
        folder = write_result(recipe, read_domain(recipe), result, cost={})
        return folder, recipe, model.tower, result

    return make


def with_tasks(shop, tasks, **sections):
    return build_config(PretrainRecipe, shop | {"tasks": tasks} | sections)


def corpus_of(shop, path, **settings):
    tree = {k: v for k, v in shop.items() if k not in ("data", "text")}
    return build_config(
        PretrainRecipe, tree | {"tasks": {"nsp": {}}, "corpus": {"path": str(path)} | settings}
    )


# What is refused, and why.


def test_a_task_that_the_backbone_cannot_do_is_refused_before_anything_is_loaded(shop, models, monkeypatch):
    monkeypatch.setattr(
        backbone_module.AutoModelForMaskedLM, "from_pretrained", lambda *_: pytest.fail("loads")
    )
    gpt = {"tower": {"backbone": str(models["gpt2"])}}
    with pytest.raises(
        TowerError, match=r"tasks.mlm: '.*' is of the GPT type, where a token sees only those"
    ):
        check_tasks(with_tasks(shop, {"mlm": {}}, **gpt))
    with pytest.raises(TowerError, match=r"tasks.clm: '.*' is of the BERT type, where a token sees"):
        check_tasks(with_tasks(shop, {"clm": {}}))
    with pytest.raises(TowerError, match="has no mask token; use another backbone"):
        check_tasks(with_tasks(shop, {"mlm": {}}, tower={"backbone": str(models["bert"])}))
    check_tasks(with_tasks(shop, {name: TASKS[name] for name in TASKS if name != "clm"}))
    check_tasks(with_tasks(shop, {name: TASKS[name] for name in TASKS if name != "mlm"}, **gpt))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tasks": {}}, "tasks: none chosen; choose from mlm, clm, nsp"),
        ({"tasks": {"mlm": {"weight": 0}}}, "tasks.mlm.weight: 0.0 is not positive"),
        ({"tasks": {"mlm": {"masked_share": 1}}}, "tasks.mlm.masked_share: 1.0 is not between 0 and 1"),
        ({"tasks": {"mln": {}}}, "tasks.mln: unknown key; did you mean 'mlm'"),
        ({"tasks": {"category": {}}}, "tasks.category.field: missing; give it a value"),
        ({"tasks": {"entities": {}}}, "tasks.entities.columns, gazetteer: both missing"),
        (
            {"tasks": {"item_views": {"field_dropout": 0, "word_dropout": 0}}},
            "tasks.item_views.field_dropout, word_dropout: both 0",
        ),
        ({"corpus": {"path": "a.txt"}}, "data, corpus: give one of them, not both"),
        ({"data": None}, "data, corpus: give one of them"),
        ({"tasks": {"mlm": ""}}, "tasks.mlm: empty; write mlm: {} for its defaults, or null"),
        ({"tower": {"adapter": "prefix"}}, "tower.adapter: 'prefix' can neither be a tower's start"),
        ({"tower": {"adapter": "none"}}, "tower.adapter: 'none' learns nothing; use lora or adalora"),
        ({"train": {"held_out": 0}}, "train.held_out: 0.0 is not between 0 and 1"),
    ],
)
def test_settings_that_cannot_work_are_refused(shop, change, message):
    with pytest.raises(RecipeError) as caught:
        build_config(PretrainRecipe, shop | {"tasks": {"mlm": {}}} | change)
    assert message in str(caught.value)


def test_a_corpus_has_neither_templates_nor_histories(shop):
    tree = {k: v for k, v in shop.items() if k not in ("data", "text")} | {"corpus": {"path": "a.txt"}}
    with pytest.raises(RecipeError, match="text.item_template: has no effect with a corpus"):
        build_config(PretrainRecipe, tree | {"text": {"item_template": "{x}"}, "tasks": {"mlm": {}}})
    with pytest.raises(RecipeError, match=r"tasks.mlm.reads: a corpus has no histories; leave it out"):
        build_config(PretrainRecipe, tree | {"tasks": {"mlm": {"reads": "both"}}})


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        (
            {"category": {"field": "kidn"}},
            "tasks.category.field: there is no field 'kidn'; did you mean 'kind'",
        ),
        ({"category": {"field": "title"}}, "tasks.category.field: 'title' is all that the texts hold"),
        ({"entities": {"columns": ["brand"]}}, "tasks.entities.columns: there is no field 'brand'"),
        ({"entities": {"gazetteer": "names.csv"}}, "tasks.entities.gazetteer: no file names.csv"),
    ],
)
def test_a_task_without_its_data_is_an_error(shop, tasks, message):
    with pytest.raises(DataError) as caught:
        learner_of(with_tasks(shop, tasks))
    assert message in str(caught.value)


def test_a_category_that_all_share_teaches_nothing(shop, tmp_path):
    lines = (tmp_path / "items.csv").read_text().splitlines()
    (tmp_path / "items.csv").write_text(
        "\n".join([lines[0], *(f"{x.rsplit(',', 1)[0]},all" for x in lines[1:])])
    )
    with pytest.raises(DataError, match="'kind' has 1 categories; name another field"):
        learner_of(with_tasks(shop, {"category": {"field": "kind"}}))


# What is read.


def test_held_out_texts_and_histories_are_not_learned_from(shop, models):
    recipe = recipe_of(shop, ["mlm", "history_views"], models=models)
    domain = read_domain(recipe)
    for (train, held_out), n in ((domain.item_parts, 40), (domain.sequence_parts, 60)):
        assert len(held_out) == n // 5
        assert sorted([*train, *held_out]) == list(range(n))
    _, (mlm, views), _ = learner_of(recipe)
    texts, (train, held_out) = domain.item_texts(), domain.item_parts
    tokens = tokenize(AutoTokenizer.from_pretrained(recipe.tower.backbone), texts, max_tokens=128)
    read = {mlm._train[i].tobytes() for i in range(len(mlm._train))}
    assert len({tokens[i].tobytes() for i in train} & read) == 32
    assert not {tokens[i].tobytes() for i in held_out} & read
    kept = domain.sequences.take(domain.sequence_parts[0])
    assert [h.tolist() for h in views._train.histories] == [h.tolist() for h in kept]


def test_what_a_split_keeps_for_tests_is_not_read(shop):
    domain = read_domain(with_tasks(shop, {"nsp": {}}))
    assert set(domain.sequences.counts) == {7}  # of nine: the last two validate and test


def test_what_a_recipe_says_of_friends_may_stay(shop, caplog):
    caplog.set_level("INFO", logger="lora_rec")
    recipe = build_config(PretrainRecipe, shop | {"tasks": {"mlm": {}}, "text": {"friends_length": 3}})
    assert len(read_domain(recipe).items)
    assert "text.friends_length, text.n_shared_tags: not read here" in caplog.text


def test_another_column_is_another_domain(shop, tmp_path):
    (tmp_path / "c.csv").write_text("title,body\n" + "".join(f"a{n},b{n}\n" for n in range(40)))
    prints = {
        read_domain(corpus_of(shop, tmp_path / "c.csv", text_column=name)).fingerprint
        for name in ("title", "body")
    }
    assert len(prints) == 2


def test_shown_lists_are_cut_before_either_run_validates(tmp_path):
    lines = []
    for n in range(400):  # later lists have more clicks, so quantiles of clicks lie later
        time = datetime.datetime(2019, 11, 1) + datetime.timedelta(minutes=30 * n)
        shown = " ".join(f"N{(n + p) % 40}-{int(p < (1 if n < 240 else 4))}" for p in range(8))
        lines.append(f"{n}\tU{n % 20}\t{time:%m/%d/%Y %I:%M:%S %p}\tN1 N2\t{shown}\n")
    (tmp_path / "behaviors.tsv").write_text("".join(lines))
    (tmp_path / "news.tsv").write_text("".join(f"N{n}\tnews\ttitle {n}\n" for n in range(40)))
    section = DataSection(source="mind", root=str(tmp_path), split="time")
    shown = split_shown(section, load_published("mind", tmp_path).impressions)
    dataset = load_data(section)
    first = shown.validation.times.min()
    assert split_data(section, dataset).train_log.times.max() >= first
    assert cut_domain(section, dataset).train_log.times.max() < first


def test_strangers_of_what_is_held_out_are_held_out(shop, models):
    recipe = recipe_of(shop, ["nsp"], models=models)
    domain = read_domain(recipe)
    drawn = []

    def draw(sequences, **settings):
        drawn.append((sequences, draw_pairs(sequences, **settings)))
        return drawn[-1][1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lora_rec.pipeline.pretrain_tasks.draw_pairs", draw)
        _, (task,), _ = learner_of(recipe)
    assert [len(sequences) for sequences, _ in drawn] == [len(part) for part in domain.sequence_parts]
    for sequences, pairs in drawn:
        assert set(pairs.seconds) <= set(sequences.values)
    assert [task.n_examples, task.n_held_out] == [len(pairs.follow) for _, pairs in drawn]


def test_equal_texts_are_one(shop, tmp_path):
    with open(tmp_path / "items.csv", "a") as file:
        file.write("copy,war0 war war0,war\n")
    domain = read_domain(with_tasks(shop, {"mlm": {}}))
    assert len(domain.items) == 40
    assert len(domain.fields["title"]) == 41


def test_a_text_file_is_a_corpus(shop, tmp_path):
    (tmp_path / "a.txt").write_text("one\n\n two \nthree\n\n\nfour\nfive\nsix\n")
    domain = read_domain(corpus_of(shop, tmp_path / "a.txt"))
    assert domain.item_texts() == ["one", "two", "three", "four", "five", "six"]
    assert [s.tolist() for s in domain.sequences] == [[1, 2], [3, 4, 5]]
    assert domain.are_histories
    (tmp_path / "c.txt").write_bytes("one\u2028still one\r\ntwo\x85still two\n".encode("utf-8-sig"))
    cut = read_domain(corpus_of(shop, tmp_path / "c.txt"))
    assert cut.item_texts() == ["one still one", "two still two"]
    (tmp_path / "b.txt").write_text("".join(f"text {n}\n" for n in range(40)))
    domain = read_domain(corpus_of(shop, tmp_path / "b.txt"))
    assert domain.sequences.counts.tolist() == [16, 16, 8]
    assert not domain.are_histories


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_table_is_a_corpus(shop, tmp_path, suffix):
    import pandas as pd

    table = pd.DataFrame(
        {"review": ["a", "b", None, "c", "d"], "who": ["x", "y", "x", "x", "y"], "stars": [1, 2, 3, 4, 5]}
    )
    path = tmp_path / f"reviews.{suffix}"
    if suffix == "csv":
        table.to_csv(path, index=False)
    elif suffix == "jsonl":
        table.to_json(path, orient="records", lines=True)
    else:
        table.to_parquet(path)
    domain = read_domain(corpus_of(shop, path, text_column="review", group_column="who"))
    assert domain.item_texts() == ["a", "b", "c", "d"]
    assert domain.fields["stars"] == ["1", "2", "4", "5"]
    assert [s.tolist() for s in domain.sequences] == [[0, 2], [1, 3]]
    with pytest.raises(
        DataError, match=r"corpus.text_column: there is no column 'text'; the columns are: rev"
    ):
        read_domain(corpus_of(shop, path))


def test_a_corpus_without_groups_has_no_histories(shop, tmp_path):
    (tmp_path / "b.txt").write_text("".join(f"war{n % 20} love{n % 7}\n" for n in range(40)))
    tree = {k: v for k, v in shop.items() if k not in ("data", "text")}
    recipe = build_config(
        PretrainRecipe,
        tree | {"tasks": {"history_views": {}}, "corpus": {"path": str(tmp_path / "b.txt")}},
    )
    with pytest.raises(DataError, match="this corpus has no histories; name corpus.group_column"):
        learner_of(recipe)


@pytest.mark.parametrize("base", ["bert", "llama"])
def test_every_task_works_on_a_corpus(shop, tmp_path, models, base):
    rows = [f"war{n % 20} war love{n % 7},u{n % 10},{'war' if n % 2 else 'love'}" for n in range(80)]
    (tmp_path / "c.csv").write_text("text,who,kind\n" + "\n".join(rows) + "\n")
    (tmp_path / "names.csv").write_text("name,kind\nlove3,brand\nwar war,place\n")
    lm = "mlm" if base == "bert" else "clm"
    tasks = {lm: {}, "nsp": {}, "category": {"field": "kind"}, "history_views": {}, "item_views": {}}
    tasks["entities"] = {"gazetteer": str(tmp_path / "names.csv"), "columns": ["kind"]}
    tree = {k: v for k, v in shop.items() if k not in ("data", "text")}
    tower = shop["tower"] if base == "bert" else {"backbone": str(models["llama"])}
    recipe = build_config(
        PretrainRecipe,
        tree
        | {
            "tasks": tasks,
            "tower": tower,
            "corpus": {"path": str(tmp_path / "c.csv"), "group_column": "who"},
            "train": shop["train"] | {"epochs": 2, "batch_size": 32},
        },
    )
    _, result = pretrain(recipe)
    assert set(result.after) == set(tasks)
    assert all(np.isfinite(v.loss) for v in result.after.values())


def test_several_categories_share_an_item(shop, tmp_path):
    lines = (tmp_path / "items.csv").read_text().splitlines()
    many = [lines[0], *(f"{line}|old" if n % 2 else line for n, line in enumerate(lines[1:]))]
    (tmp_path / "items.csv").write_text("\n".join(many))
    _, (task,), objective = learner_of(with_tasks(shop, {"category": {"field": "kind", "separator": "|"}}))
    assert task._shares.shape == (40, 3)
    found = set(map(tuple, task._shares.tolist()))  # of love, old and war
    assert found == {(1.0, 0.0, 0.0), (0.5, 0.5, 0.0), (0.0, 0.0, 1.0), (0.0, 0.5, 0.5)}
    assert objective.validate()["category"].loss > 0


def test_the_category_is_not_in_the_text_that_is_read(shop):
    tree = shop | {"text": shop["text"] | {"item_template": "{title}[, {kind}]"}}
    domain = read_domain(with_tasks(tree, {"category": {"field": "kind"}}))
    assert domain.item_texts()[0] == "war0 war war0, war"
    assert domain.item_texts(without="kind")[0] == "war0 war war0"


# What is written, and how it goes on.


@pytest.mark.parametrize("adapter", ["lora", "adalora"])
def test_the_result_is_a_plain_peft_adapter_that_a_tower_starts_from(trained, tmp_path, adapter):
    settings = {"adapter": adapter} | ({"init_rank": 6, "target_rank": 2} if adapter == "adalora" else {})
    folder, recipe, tower, result = trained(("mlm", "category"), **settings)
    names = {"adapter_config.json", "adapter_model.safetensors", "pretrain.json", "recipe.yaml"}
    assert {path.name for path in folder.iterdir()} == names
    section = TowerSection(backbone=recipe.tower.backbone, start_from=str(folder), trained_layers=2)
    again = build_tower(section, width=None, where="user_tower", device="cpu")
    source = tokenize(tower.backbone_info.tokenizer, TEXTS, max_tokens=32)
    vectors = [encode(t, source, np.arange(3), token_budget=100) for t in (tower, again)]
    np.testing.assert_allclose(*vectors, atol=1e-5)
    start = TowerSection(backbone=recipe.tower.backbone, trained_layers=2)
    plain = build_tower(start, width=None, where="user_tower", device="cpu")
    assert np.abs(encode(plain, source, np.arange(3), token_budget=100) - vectors[0]).max() > 1e-3
    # Plain peft reads it, too.
    model = PeftModel.from_pretrained(AutoModel.from_pretrained(recipe.tower.backbone), str(folder))
    batch = source.batch(np.arange(3))
    with torch.no_grad():
        states = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state
    mask = batch.attention_mask.unsqueeze(-1)
    pooled = torch.nn.functional.normalize((states * mask).sum(dim=1) / mask.sum(dim=1), dim=1)
    np.testing.assert_allclose(pooled.numpy(), vectors[0], atol=1e-5)


def test_what_was_done_is_told(trained, tmp_path):
    folder, recipe, _, result = trained(("mlm", "category"))
    facts = json.loads((folder / "pretrain.json").read_text())
    assert set(facts["tasks"]) == {"mlm", "category"}
    assert facts["tasks"]["category"]["before"] == result.before["category"].measure
    assert facts["tasks"]["category"]["after"] == result.after["category"].measure
    assert facts["kind"] == "encoder"
    again = PretrainRecipe.load(folder / "recipe.yaml")
    assert again.tasks == recipe.tasks
    assert str(tmp_path) not in (folder / "recipe.yaml").read_text() + (folder / "pretrain.json").read_text()
    table = format_result(recipe, result, folder).splitlines()
    head = "| task | measure | weight | examples | held out | before | after |"
    assert table[0].split() == head.split()
    assert len({len(line) for line in table[:4]}) == 1
    assert table[2].startswith("| mlm      | perplexity |")
    assert f"user_tower.start_from={folder}" in table[-1]


@pytest.mark.parametrize("precision", ["fp32", "4bit"])
@pytest.mark.parametrize("base", ["bert", "gpt2"])
def test_merged_below_a_second_adapter(trained, models, tmp_path, capsys, base, precision):
    own = {} if base == "bert" else {"backbone": str(models["gpt2"])}
    settings = own | ({} if precision == "fp32" else {"precision": "4bit", "compute": "fp32"})
    folder, recipe, tower, _ = trained(("category", "nsp"), **settings)
    output = tmp_path / "merged"
    assert main(["merge", str(folder), str(output), "--backbone", recipe.tower.backbone]) == 0
    assert f"user_tower.backbone={output}" in capsys.readouterr().out
    second = TowerSection(backbone=str(output), trained_layers=1)
    above = build_tower(second, width=None, where="user_tower", device="cpu")
    source = tokenize(tower.backbone_info.tokenizer, TEXTS, max_tokens=32)
    vectors = [encode(t, source, np.arange(3), token_budget=100) for t in (tower, above)]
    np.testing.assert_allclose(*vectors, atol=2e-4)
    assert above.trained_parameters()


def test_merging_another_base_or_twice_is_refused(trained, models, tmp_path, capsys):
    folder, recipe, _, _ = trained()
    with pytest.raises(BundleError, match="is not the one that the adapter was trained on"):
        merge_pretrained(folder, tmp_path / "m", backbone=str(models["gpt2"]))
    assert not (tmp_path / "m").exists()
    (tmp_path / "there").mkdir()
    with pytest.raises(BundleError, match="exists; name a folder that is not there yet"):
        merge_pretrained(folder, tmp_path / "there", backbone=recipe.tower.backbone)
    assert main(["merge", str(folder), str(tmp_path / "m"), "--force"]) == 1
    assert "--force: has no effect on one adapter; leave it out" in capsys.readouterr().err
    (folder / "pretrain.json").write_text('{"format": 99}')
    with pytest.raises(BundleError, match="of another version"):
        merge_pretrained(folder, tmp_path / "m", backbone=recipe.tower.backbone)


@pytest.mark.parametrize("adapter", ["ia3", "full"])
def test_what_is_no_lora_goes_on_only_merged(trained, tmp_path, adapter):
    folder, recipe, tower, result = trained(adapter=adapter)
    told = format_result(recipe, result, folder)
    assert "start_from" not in told
    assert f"puts a new adapter on what lora-rec merge {folder} OUT writes" in told
    assert merge_pretrained(folder, tmp_path / "merged", backbone=recipe.tower.backbone) > 0.999
    section = TowerSection(backbone=str(tmp_path / "merged"))
    above = build_tower(section, width=None, where="user_tower", device="cpu")
    source = tokenize(tower.backbone_info.tokenizer, TEXTS, max_tokens=32)
    vectors = [encode(t, source, np.arange(3), token_budget=100) for t in (tower, above)]
    np.testing.assert_allclose(*vectors, atol=2e-4)


def test_another_list_of_names_is_another_run(shop, tmp_path, models):
    names = tmp_path / "names.csv"
    found = []
    for kind in ("brand", "brand", "place"):
        names.write_text(f"name,kind\nwar,{kind}\n")
        recipe = with_tasks(shop, {"entities": {"gazetteer": str(names)}})
        model, _, objective = learner_of(recipe)
        kept = open_pretrain_checkpoints(recipe, read_domain(recipe), model, objective.accelerator)
        found.append(kept.run)
    assert found[0] == found[1] != found[2]


def test_rows_without_a_group_follow_nobody(shop, tmp_path, caplog):
    path = tmp_path / "c.csv"
    path.write_text("text,who\n" + "".join(f"row {n},{'ann' if n < 3 else ''}\n" for n in range(9)))
    domain = read_domain(corpus_of(shop, path, text_column="text", group_column="who"))
    assert [sequence.tolist() for sequence in domain.sequences] == [[0, 1, 2]]
    assert "6 of 9 rows name no group; each is one of its own" in caplog.text


def test_another_separator_is_told(caplog):
    kinds = ["war|love" if n % 3 else "war" for n in range(40)]
    _warn_of_separator(kinds, "|", "tasks.category.separator")
    _warn_of_separator(kinds, None, "tasks.category.separator")
    assert not caplog.records
    _warn_of_separator(kinds, ",", "tasks.category.separator")
    assert "tasks.category.separator: ',', but '|' seems to part the names" in caplog.text
