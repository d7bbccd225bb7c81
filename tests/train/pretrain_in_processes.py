"""Started by test_tasks_learn.py under torchrun: trains without labels and writes what was learned."""

import json
import sys
from dataclasses import astuple
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from accelerate import Accelerator
from safetensors.torch import save_file
from tiny_tasks import learned, pretrain

from lora_rec.pretrain_recipe import PretrainRecipe


def main():
    recipe, output = PretrainRecipe.load(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    model, result = pretrain(recipe)
    accelerator = Accelerator(cpu=True)
    if accelerator.is_main_process:
        save_file(learned(model) | {"processes": torch.tensor(accelerator.num_processes)}, str(output))
        found = {name: astuple(validation) for name, validation in result.after.items()}
        output.with_suffix(".json").write_text(json.dumps(found))
    accelerator.wait_for_everyone()


if __name__ == "__main__":
    main()
