"""Chinese titles go the whole way, from a table to served lists."""

import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest

import lora_rec
from lora_rec.config import build_config
from lora_rec.data import load_dataset
from lora_rec.recipe import Recipe
from lora_rec.text.collate import tokenize
from lora_rec.text.templates import render_histories, render_items

DIGITS = "零一二三四五六七八九"
TITLES = [f"{kind}{DIGITS[n // 10]}{DIGITS[n % 10]}" for kind in ("战争", "爱情") for n in range(20)]


@pytest.fixture
def chinese_tables(tmp_path):
    """60 users, each faithful to the war films or the love stories; the ids are Chinese as well."""
    generator = np.random.default_rng(0)
    rows = []
    for user in range(60):
        chosen = generator.permutation(20)[:9] + 20 * (user % 2)
        rows += [f"用户{user},号{item},{1000 + 10 * place}" for place, item in enumerate(chosen)]
    (tmp_path / "clicks.csv").write_text(
        "user_id,item_id,timestamp\n" + "\n".join(rows) + "\n", encoding="utf-8"
    )
    items = [f"号{n},{title},{'' if n % 2 else '剧情'}" for n, title in enumerate(TITLES)]
    (tmp_path / "items.csv").write_text("item_id,title,genres\n" + "\n".join(items) + "\n", encoding="utf-8")
    return tmp_path


@pytest.fixture
def character_models(backbone_folder, tmp_path):
    """The tiny backbones with a tokenizer of Chinese characters in place of theirs."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    folders = {}
    for name in ("bert", "llama"):
        folder = shutil.copytree(backbone_folder(name), tmp_path / f"chinese-{name}")
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"] if name == "bert" else ["<unk>", "<eos>"]
        characters = [*special, *";；，（）剧情战争爱", *DIGITS]
        vocabulary = {token: n for n, token in enumerate(dict.fromkeys(characters))}
        assert len(vocabulary) < 40  # the backbones' embeddings have 45 and 47 rows
        tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]" if name == "bert" else "<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex("."), "isolated")]
        )
        names = {"unk_token": "<unk>", "eos_token": "<eos>"}
        if name == "bert":
            tokenizer.post_processor = processors.TemplateProcessing(
                single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
            )
            names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
        folders[name] = folder
    return folders


def test_templates_and_tokens(chinese_tables, character_models):
    from transformers import AutoTokenizer

    dataset = load_dataset(chinese_tables / "clicks.csv", chinese_tables / "items.csv")
    assert dataset.item_ids[3] == "号3"
    items = render_items("{title}[（{genres}）]", dataset.item_fields)
    assert items[:2] == ["战争零零（剧情）", "战争零一"]
    histories = render_histories([np.array([0, 1, 39])], dataset.item_fields["title"], length=2)
    assert histories == ["爱情一九; 战争零一"]
    tokenizer = AutoTokenizer.from_pretrained(character_models["bert"])
    batch = tokenize(tokenizer, [*histories, items[0]], max_tokens=8).batch(np.arange(2))
    read = [tokenizer.convert_ids_to_tokens(row) for row in batch.input_ids.tolist()]
    assert read[0] == ["[CLS]", *"爱情一九;战", "[SEP]"]  # cut to 8 tokens, at the end
    assert read[1] == ["[CLS]", *"战争零零（剧", "[SEP]"]


def test_from_a_table_to_lists_that_are_served(chinese_tables, character_models, recipe_tree, tmp_path):
    tree = recipe_tree | {
        "output": str(tmp_path / "束"),
        "data": {
            n: str(chinese_tables / f) for n, f in (("interactions", "clicks.csv"), ("items", "items.csv"))
        },
        "text": {"item_template": "{title}[（{genres}）]"},
        "user_tower": recipe_tree["user_tower"] | {"backbone": str(character_models["bert"])},
        "item_tower": recipe_tree["item_tower"] | {"backbone": str(character_models["llama"])},
    }
    script = runpy.run_path(str(Path(__file__).parents[2] / "recipes" / "two_tower.py"))
    script["run"](build_config(Recipe, tree))
    recommender = lora_rec.load(tmp_path / "束")
    found = recommender.recommend(["号1", "号2", "号3", "号4"], k=5)
    # Histories keep to one kind, so the linear model alone gives five war films of the 36 others; by chance
    # that is 16 * 15 * 14 * 13 * 12 / (36 * 35 * 34 * 33 * 32), about one in 86.
    assert [item.title[:2] for item in found] == ["战争"] * 5
    assert all(item.item_id.startswith("号") for item in found)
