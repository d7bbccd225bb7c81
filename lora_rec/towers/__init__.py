"""Backbones, adapters, pooling, and the two towers made of them.

Three lines that the libraries below write whenever they are used, and that ask for nothing, are dropped here,
before any of them is imported.
"""

import logging
import warnings

_HARMLESS = ("MatMul8bitLt: inputs will be cast", "Failed to load CPU gemm_4bit_forward")


def _drop_harmless(record: logging.LogRecord) -> bool:
    return not (isinstance(record.msg, str) and record.msg.startswith(_HARMLESS))


for _name in ("bitsandbytes.autograd._functions", "bitsandbytes.backends.cpu.ops"):
    logging.getLogger(_name).addFilter(_drop_harmless)
# peft asks every model under this name, which transformers has since changed.
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
