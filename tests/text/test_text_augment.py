import json

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from objective_runs import run

from lora_rec.config import build_config
from lora_rec.errors import LoraRecError, RecipeError, TowerError
from lora_rec.objectives_section import RegularisationSection
from lora_rec.pipeline.variants import make_variants, open_varied
from lora_rec.recipe import Recipe
from lora_rec.text import translate
from lora_rec.text.augment import VariedSource, drop_words
from lora_rec.text.synonyms import open_wordnet, swap_words
from lora_rec.text.translate import translate_there_and_back

TEXT = " ".join(f"word{n}" for n in range(1000))


def test_words_are_left_out_by_their_share_and_in_order():
    kept = drop_words(TEXT, share=0.3, seed=0).split()
    # A thousand draws: further than five deviations (.072) would be no luck.
    assert len(kept) / 1000 == pytest.approx(0.7, abs=0.075)
    assert kept == [word for word in TEXT.split() if word in set(kept)]
    assert drop_words(TEXT, share=0.3, seed=0) == " ".join(kept)
    assert drop_words(TEXT, share=0.3, seed=1) != " ".join(kept)


def test_one_word_stays():
    assert {drop_words("only", share=0.99, seed=n) for n in range(5)} == {"only"}
    assert drop_words("", share=0.5, seed=0) == ""


class Counted:
    """A source that says which texts were asked for."""

    def __init__(self, texts):
        self.texts = list(texts)
        self.lengths = np.array([len(text.split()) for text in texts])


def test_a_step_reads_the_text_or_one_of_its_variants():
    texts = ["a b c d e f", "g h i j k l", "judged m n o p"]
    section = RegularisationSection(word_dropout=0.5, word_variants=3)
    source = open_varied(
        section, Accelerator(cpu=True), Counted(texts), texts, np.array([0, 1]), open_texts=Counted
    )
    assert len(source.source.texts) == 3 + 3 * 2
    seen = {0: set(), 1: set(), 2: set()}
    for seed in range(200):
        for text, place in enumerate(source.draw(np.array([0, 1, 2]), np.random.default_rng(seed))):
            seen[text].add(source.source.texts[place])
    expected = make_variants(section, texts[:2])
    for text in (0, 1):
        assert seen[text] == {texts[text], *(variant[text] for variant in expected)}
    assert seen[2] == {texts[2]}


def test_without_variants_a_text_is_itself():
    plain = VariedSource.plain(Counted(["a", "b"]))
    assert plain.draw(np.array([1, 0, 1]), np.random.default_rng(0)).tolist() == [1, 0, 1]


def write_wordnet(folder):
    """WordNet's files: the first sense of 'film' is a movie; 'white' is most often a colour."""
    data = "00000000 06 n 02 film 0 motion_picture 0 000 | a form of art  \n"
    second = f"{len(data):08d} 06 n 02 film 0 layer 0 000 | a thin coat  \n"
    third = f"{len(data + second):08d} 18 n 03 white 0 White_person 0 paleface 0 000 | a person  \n"
    index = f"film n 2 0 2 0 00000000 {len(data):08d}  \nlayer n 1 0 1 0 {len(data):08d}  \n"
    index += f"white n 1 0 1 0 {len(data + second):08d}  \n"
    files = {"data.noun": data + second + third, "index.noun": index, "lexnames": ""}
    files["data.adj"] = "00000000 00 a 03 white 0 snowy 0 Snow_White 0 000 | of a colour  \n"
    files["index.adj"] = "white a 1 0 1 0 00000000  \n"
    files["cntlist.rev"] = "white%3:00:00:: 1 60\n"
    files["lexnames"] = "".join(f"{n:02d}\tnoun.n{n}\t1\n" for n in range(45))
    empty = [f"{kind}.{part}" for kind in ("data", "index") for part in ("adj", "adv", "verb")]
    empty += [f"{part}.exc" for part in ("adj", "adv", "noun", "verb")] + ["cntlist.rev", "index.sense"]
    folder.mkdir(parents=True)
    for name, text in (dict.fromkeys(empty, "") | files).items():
        (folder / name).write_text(text)


def test_synonyms_are_those_of_the_most_frequent_sense(tmp_path, monkeypatch):
    nltk = pytest.importorskip("nltk")
    write_wordnet(tmp_path / "nltk_data" / "corpora" / "wordnet")
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path / "nltk_data")])
    lookup = open_wordnet()
    assert lookup("film") == ["motion picture"]
    assert lookup("unknown") == []
    assert lookup("white") == ["snowy"]
    assert swap_words("Film; a film (1999)", share=1, seed=0, lookup=lookup) == (
        "Motion picture; a motion picture (1999)"
    )
    section = RegularisationSection(synonyms=0.5, word_variants=8)
    variants = [variant[0] for variant in make_variants(section, ["a film"])]
    assert set(variants) == {"a film", "a motion picture"}
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    with pytest.raises(LoraRecError, match="regularisation.synonyms: nltk does not find WordNet; run"):
        open_wordnet()


@pytest.fixture(scope="module")
def translators(tmp_path_factory):
    """Two tiny random translation models: what they say is nonsense, and the same each time."""
    from tiny_names import WORDS
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import MarianConfig, MarianMTModel, PreTrainedTokenizerFast

    folders = []
    for seed in (0, 1):
        folder = tmp_path_factory.mktemp("translator") / str(seed)
        vocabulary = {t: i for i, t in enumerate(["<pad>", "</s>", "<unk>", "war", "love", ";", *WORDS])}
        tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer.post_processor = processors.TemplateProcessing(
            single="$A </s>", special_tokens=[("</s>", 1)]
        )
        names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
        torch.manual_seed(seed)
        sizes = {
            f"{side}_{what}": n
            for side in ("encoder", "decoder")
            for what, n in (("layers", 1), ("attention_heads", 2), ("ffn_dim", 32))
        }
        config = MarianConfig(
            vocab_size=len(vocabulary),
            d_model=16,
            max_position_embeddings=64,
            pad_token_id=0,
            eos_token_id=1,
            decoder_start_token_id=0,
            forced_eos_token_id=1,
            max_length=12,
            **sizes,
        )
        MarianMTModel(config).save_pretrained(folder)
        folders.append(str(folder))
    return folders


def test_translations_are_made_once(translators, tmp_path, monkeypatch):
    monkeypatch.setattr(translate, "MOST_TOKENS", 8)
    there, back = translators
    texts = ["war war1", "love love2", "", "war war1"]
    found = translate_there_and_back(texts, there=there, back=back, root=tmp_path)
    assert len(found) == 4
    assert found[0] == found[3]
    assert found[2] == ""
    assert found[:2] != texts[:2]
    monkeypatch.setattr(translate, "_load", lambda *_, **__: pytest.fail("translates again"))
    assert translate_there_and_back(texts, there=there, back=back, root=tmp_path) == found
    kept = sorted((tmp_path / "translations").iterdir())
    assert len(kept) == 2
    assert all(isinstance(json.loads(file.read_text()), dict) for file in kept)


def test_what_was_translated_before_a_run_ended_is_kept(translators, tmp_path, monkeypatch):
    monkeypatch.setattr(translate, "MOST_TOKENS", 8)
    monkeypatch.setattr(translate, "TEXTS_AT_ONCE", 1)
    monkeypatch.setattr(translate, "SECONDS_UNKEPT", 0.0)
    there, back = translators
    original, seen = translate._keep, []

    def keep(known, file):
        original(known, file)
        seen.append(dict(known))
        if len(seen) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(translate, "_keep", keep)
    with pytest.raises(KeyboardInterrupt):
        translate_there_and_back(["war war1", "love"], there=there, back=back, root=tmp_path)
    (file,) = (tmp_path / "translations").iterdir()
    assert list(json.loads(file.read_text())) == ["love"]
    translate_there_and_back(["war war1", "love"], there=there, back=back, root=tmp_path)
    assert seen[1] == seen[0] | {"war war1": seen[1]["war war1"]}


def test_a_model_that_is_no_translator_is_an_error(models, tmp_path):
    with pytest.raises(TowerError, match="regularisation.translate_there: '.*bert' does not load"):
        translate_there_and_back(["war"], there=str(models["bert"]), back="x", root=tmp_path)


def test_a_run_with_all_variants(recipe_tree, translators, monkeypatch):
    monkeypatch.setattr(translate, "MOST_TOKENS", 8)
    there, back = translators
    variants = {
        "word_dropout": 0.3,
        "word_variants": 1,
        "translate_there": there,
        "translate_back": back,
    }
    _, result, _ = run(recipe_tree | {"regularisation": variants})
    _, plain, _ = run(recipe_tree)
    assert len(result.epochs) == 1
    assert result.epochs[0].loss != plain.epochs[0].loss
    assert result.start_validation == plain.start_validation


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"word_dropout": 1.0}, "regularisation.word_dropout: 1.0 is not in [0, 1)"),
        ({"word_variants": 2}, "word_variants: has no effect without word_dropout or synonyms; leave it out"),
        ({"translate_there": "x"}, "translate_there, translate_back: give both models or none"),
        ({"label_smoothing": 0.5}, "label_smoothing: 0.5 is not in [0, 0.5)"),
        ({"adversarial_size": 0.1}, "adversarial_size: has no effect without an adversary; leave it out"),
        (
            {"adversary": "fgm", "adversarial_steps": 5},
            "adversarial_steps: has no effect without adversary 'freelb'; leave it out",
        ),
    ],
)
def test_settings_without_effect_are_refused(recipe_tree, settings, message):
    with pytest.raises(RecipeError) as error:
        build_config(Recipe, recipe_tree | {"regularisation": settings})
    assert message in str(error.value)
