"""Tokenizers and configurations of tiny random models."""

from tiny_names import WORDS


def write_qwen_tokenizer(folder):
    """One token a letter: transformers reads every Qwen2 tokenizer as a byte-level BPE, whatever it was."""
    from transformers import Qwen2Tokenizer

    letters = ["<|endoftext|>", "Ġ", *(chr(code) for code in range(33, 127))]
    Qwen2Tokenizer(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]).save_pretrained(folder)
    return len(letters)


def write_tokenizer(folder, *, encoder):
    """A token for each word of the tiny catalogue; gives their number."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"] if encoder else ["<unk>", "<eos>"]
    vocabulary = {token: i for i, token in enumerate([*special, ";", "war", "love", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=special[1] if encoder else special[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if encoder:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
        names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    else:
        names = {"unk_token": "<unk>", "eos_token": "<eos>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    return len(vocabulary)


def tiny_config(name, *, vocab_size):
    """A configuration of 3 layers and width 32; window sizes are smaller than a text, so masks matter."""
    from transformers import AutoConfig

    wide = {
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
    }
    grouped = wide | {"num_key_value_heads": 2}
    own = {
        "distilbert": {
            "dim": 32,
            "n_layers": 3,
            "n_heads": 4,
            "hidden_dim": 64,
            "max_position_embeddings": 64,
        },
        "electra": wide | {"embedding_size": 16},
        "albert": wide | {"embedding_size": 16},
        "deberta-v2": wide
        | {
            "relative_attention": True,
            "position_buckets": 8,
            "conv_kernel_size": 3,
            "pos_att_type": ["p2c", "c2p"],
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
        },
        "modernbert": wide | {"local_attention": 4, "cls_token_id": 2, "sep_token_id": 3},
        "gpt2": {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64},
        "gpt_neo": {
            "hidden_size": 32,
            "num_layers": 3,
            "num_heads": 4,
            "attention_types": [[["global", "local", "global"], 1]],
            "window_size": 4,
            "max_position_embeddings": 64,
        },
        "opt": {
            "hidden_size": 32,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "ffn_dim": 64,
            "max_position_embeddings": 64,
            "word_embed_proj_dim": 16,
        },
        "bloom": {"hidden_size": 32, "n_layer": 3, "n_head": 4},
        "llama": grouped,
        "mistral": grouped | {"sliding_window": 4},
        "qwen2": grouped,
        "qwen3": grouped
        | {"head_dim": 8, "use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
        "gemma": grouped | {"head_dim": 8},
        "gemma2": grouped | {"head_dim": 8, "sliding_window": 4},
        "gemma3_text": grouped | {"head_dim": 8, "sliding_window": 4},
    }.get(name, wide)
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}
    return AutoConfig.for_model(name, vocab_size=vocab_size, **(special | own))
