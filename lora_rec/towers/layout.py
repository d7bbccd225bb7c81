"""Where each type of model keeps its layers and what the modules in them are called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from lora_rec.errors import TowerError


@dataclass(frozen=True)
class Family:
    """Names of modules inside one layer; several types share them."""

    query_value: tuple[str, ...]
    """Projections that carry an adapter unless told otherwise; one name where they are fused."""
    key_value: tuple[str, ...]
    """Projections that IA3 scales; one name where they are fused."""
    outputs: tuple[str, str]
    """What ends the attention and the feed-forward block, before each is added to the residual stream."""


def _separate(query: str, key: str, value: str, *outputs: str) -> Family:
    return Family((query, value), (key, value), (outputs[0], outputs[1]))


def _fused(name: str, *outputs: str) -> Family:
    return Family((name,), (name,), (outputs[0], outputs[1]))


_BERT = _separate("query", "key", "value", "attention.output.dense", "output.dense")
_LLAMA = _separate("q_proj", "k_proj", "v_proj", "self_attn.o_proj", "mlp.down_proj")
FAMILIES = {
    "bert": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "electra": _BERT,
    "distilbert": _separate("q_lin", "k_lin", "v_lin", "attention.out_lin", "ffn.lin2"),
    "albert": _separate("query", "key", "value", "attention.dense", "ffn_output"),
    "deberta-v2": _separate("query_proj", "key_proj", "value_proj", "attention.output.dense", "output.dense"),
    "modernbert": _fused("Wqkv", "attn.Wo", "mlp.Wo"),
    "gpt2": _fused("c_attn", "attn.c_proj", "mlp.c_proj"),
    "gpt_neo": _separate("q_proj", "k_proj", "v_proj", "attn.attention.out_proj", "mlp.c_proj"),
    "gpt_neox": _fused("query_key_value", "attention.dense", "mlp.dense_4h_to_h"),
    "bloom": _fused("query_key_value", "self_attention.dense", "mlp.dense_4h_to_h"),
    "opt": _separate("q_proj", "k_proj", "v_proj", "self_attn.out_proj", "fc2"),
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "gemma": _LLAMA,
    "gemma2": _LLAMA,
    "gemma3_text": _LLAMA,
    "phi": _separate("q_proj", "k_proj", "v_proj", "self_attn.dense", "mlp.fc2"),
    "phi3": _fused("qkv_proj", "self_attn.o_proj", "mlp.down_proj"),
}
SHARED_LAYER_TYPES = ("albert",)
"""Types whose layers are one layer, run several times: an adapter in it acts at every depth."""


@dataclass(frozen=True)
class Layout:
    """The layers of one model."""

    layers: str | None
    """Path of the list of layers; None where all depths share one layer or no list is found."""
    n_layers: int
    family: Family | None
    """None for a type that nobody has described and no described type resembles."""
    shared: bool = False

    def first_trained(self, trained_layers: int | None, *, where: str) -> int:
        """Gives the index of the first layer that carries adapters.

        Raises:
            TowerError: more layers are asked for than there are, or fewer where layers can't be told apart.
        """
        if trained_layers is None or self.shared:
            return 0
        if self.layers is None:
            raise TowerError(
                f"{where}.trained_layers: {trained_layers}, but this type keeps no list of {self.n_layers}"
                " layers that could be found; set trained_layers=null to adapt all"
            )
        if trained_layers > self.n_layers:
            raise TowerError(
                f"{where}.trained_layers: {trained_layers}, but the backbone has {self.n_layers} layers;"
                f" give 1..{self.n_layers}, or null for all"
            )
        return self.n_layers - trained_layers


def find_layout(model: nn.Module) -> Layout:
    """Finds the layers of any model: the list of modules that is as long as its configuration says."""
    config: Any = model.config
    n_layers = int(config.num_hidden_layers)
    shared = config.model_type in SHARED_LAYER_TYPES
    lists = (
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == n_layers
    )
    layers = None if shared else next(lists, None)
    family = FAMILIES.get(config.model_type) or _resembling(linear_modules(model))
    return Layout(layers, n_layers, family, shared)


POSITION_TABLES = ("position_embeddings", "wpe", "embed_positions")


def count_positions(model: nn.Module) -> int | None:
    """Gives how many tokens a text may have; None for a type without a table of positions (rotary, ALiBi)."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and name.rpartition(".")[2] in POSITION_TABLES:
            # OPT and RoBERTa do not begin with the first row.
            first = 0 if module.padding_idx is None else module.padding_idx + 1
            return int(module.num_embeddings) - int(getattr(module, "offset", first))
    return None


def check_length(n_tokens: int, n_positions: int | None, *, n_virtual: int, where: str) -> None:
    """Refuses texts that a model has no positions for.

    Args:
        n_tokens: of the longest text.
        n_positions: of `count_positions`.
        n_virtual: tokens that an adapter puts before the text.
        where: named in the error.

    Raises:
        TowerError: with the longest text that the model takes.
    """
    if n_positions is not None and n_tokens > n_positions - n_virtual:
        taken = f" less {n_virtual} virtual tokens" if n_virtual else ""
        raise TowerError(
            f"{where}: a text has {n_tokens} tokens, and the backbone has {n_positions} positions{taken}; set"
            f" the tower's max_tokens to {n_positions - n_virtual}"
        )


def linear_modules(model: nn.Module) -> list[str]:
    """Gives the paths of the linear modules, quantised ones and GPT-2's transposed ones too."""
    return [name for name, module in model.named_modules() if isinstance(module, (nn.Linear, Conv1D))]


def _resembling(linear: list[str]) -> Family | None:
    """Gives the first described family whose names all occur in an undescribed model."""
    for family in FAMILIES.values():
        names = (*family.query_value, *family.key_value, *family.outputs)
        if all(any(path.endswith(f".{name}") for path in linear) for name in names):
            return family
    return None
