import numpy as np
import torch

from lora_rec.data.dataset import Lists
from lora_rec.rank.sequence import SequencePart
from lora_rec.train.head import HeadExamples, train_sequence_head
from lora_rec.train.sequence import SequenceHead

GENERATOR = np.random.default_rng(0)
HISTORIES = Lists.from_arrays([GENERATOR.permutation(20)[: 3 + n % 9] for n in range(30)])
TEXT = GENERATOR.normal(size=(20, 6)).astype("f4")


def module(**settings):
    torch.manual_seed(0)
    arguments = {
        "user_width": 4,
        "width": 8,
        "n_blocks": 2,
        "n_heads": 2,
        "history_length": 5,
        "dropout": 0.1,
        "id_dropout": 0.3,
        "min_id_count": 2,
        "temperature": 0.2,
    }
    return SequenceHead(TEXT, np.bincount(HISTORIES.values, minlength=20), **(arguments | settings))


def train(head, histories=HISTORIES, **settings):
    arguments = {
        "histories": histories,
        "examples": HeadExamples(HISTORIES, np.zeros(30, dtype=np.int64), np.ones((30, 4), dtype="f4")),
        "validate": lambda _: 0.0,
        "seed": 0,
        "epochs": 2,
        "batch_size": 64,
        "learning_rate": 0.01,
        "weight_decay": 0.0,
    }
    return train_sequence_head(head, **(arguments | settings))


def test_numpy_equals_torch():
    head = module(width=16)
    train(head)  # away from its start, where many terms are zero
    head.eval()
    part = SequencePart(**head.to_arrays())
    # None, one, the window's length, longer, and repeats: of different lengths in one table.
    histories = Lists.from_arrays(
        [[], [3], [1, 2, 3, 4, 5], GENERATOR.permutation(20), [7, 7, 7], [], [0, 19]]
    )
    texts = GENERATOR.normal(size=(7, 4)).astype("f4")
    for text in (None, texts):
        vectors = part.user_vectors(histories, text)
        assert vectors.dtype == np.float32
        for row, history in enumerate(histories):
            newest = torch.from_numpy(history[-5:])[None]
            given = None if text is None else torch.from_numpy(np.append(text[row], np.float32(1)))[None]
            with torch.no_grad():
                items = head.item_inputs()
                expected = head.states(items, newest, counts=torch.tensor([newest.shape[1]]), user_text=given)
            np.testing.assert_allclose(vectors[row], expected[0, -1].numpy(), atol=1e-5)
            alone = part.user_vectors(histories.take([row]), None if text is None else text[[row]])
            np.testing.assert_allclose(vectors[row], alone[0], atol=1e-5)
    assert part.user_vectors(Lists.from_arrays([])).shape == (0, 16)
    assert not np.allclose(part.user_vectors(histories, texts), part.user_vectors(histories))
