"""Started by test_loop.py under torchrun: trains the tiny towers and writes the adapters."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parent))

import torch
from accelerate import Accelerator
from safetensors.torch import save_file
from test_loop import adapters, train


def main():
    tree, output = json.loads(Path(sys.argv[1]).read_text()), sys.argv[2]
    torch.set_num_threads(1)
    model, _, _ = train(tree, epochs=2, patience=2)
    accelerator = Accelerator(cpu=True)
    if accelerator.is_main_process:
        save_file(adapters(model) | {"processes": torch.tensor(accelerator.num_processes)}, output)
    accelerator.wait_for_everyone()


if __name__ == "__main__":
    main()
