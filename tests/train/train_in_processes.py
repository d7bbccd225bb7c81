"""Started by test_loop.py under torchrun: trains the tiny towers and writes the adapters."""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from accelerate import Accelerator
from safetensors.torch import save_file
from test_loop import adapters, train
from tiny import every_epoch_is_the_best

from lora_rec.train.shared import as_in_main


def main():
    tree, output = json.loads(Path(sys.argv[1]).read_text()), sys.argv[2]
    torch.set_num_threads(1)
    with every_epoch_is_the_best():
        model, result, _ = train(tree, epochs=2, patience=2)
    accelerator = Accelerator(cpu=True)
    assert result.best_epoch == 2
    assert as_in_main(accelerator.process_index) == 0
    assert model.item_tower.is_sharded == (os.environ.get("ACCELERATE_USE_FSDP") == "true")
    if accelerator.is_main_process:
        save_file(adapters(model) | {"processes": torch.tensor(accelerator.num_processes)}, output)
    accelerator.wait_for_everyone()


if __name__ == "__main__":
    main()
