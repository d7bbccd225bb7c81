"""What the tiny models are, and the words that they and the tiny catalogue know."""

WORDS = [f"{kind}{n}" for kind in ("war", "love") for n in range(20)]
# Two tokens each: attention over a single token has no use for a query, so its adapter could not learn.
TITLES = [f"{word.rstrip('0123456789')} {word}" for word in WORDS]

ENCODERS = (
    "bert",
    "roberta",
    "xlm-roberta",
    "distilbert",
    "electra",
    "albert",
    "deberta-v2",
    "modernbert",
)
DECODERS = (
    "gpt2",
    "gpt_neo",
    "gpt_neox",
    "opt",
    "bloom",
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma",
    "gemma2",
    "gemma3_text",
    "phi",
    "phi3",
)
