"""Started by test_objectives.py under torchrun: trains the tiny towers on each objective in turn."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from accelerate import Accelerator
from objective_runs import run
from safetensors.torch import save_file
from tiny import every_epoch_is_the_best


def main():
    trees, output = json.loads(Path(sys.argv[1]).read_text()), sys.argv[2]
    torch.set_num_threads(1)
    found = {}
    for name, tree in trees.items():
        with every_epoch_is_the_best():
            model, result, _ = run(tree)
        assert result.best_epoch == 2
        found |= {f"{name}/{key}": p.detach().clone() for key, p in model.trained_parameters().items()}
    accelerator = Accelerator(cpu=True)
    if accelerator.is_main_process:
        save_file(found | {"processes": torch.tensor(accelerator.num_processes)}, output)
    accelerator.wait_for_everyone()


if __name__ == "__main__":
    main()
