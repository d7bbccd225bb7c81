"""An error instead of an adapter that learned nothing."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from lora_rec.errors import TrainingError

STEPS_UNTIL_LEARNING = 3  # a LoRA's B has a gradient in the first step, its A only once B is not zero


class LearningCheck:
    """Stops a run whose adapters learn nothing, after its first steps.

    A tensor learns once it has had a gradient and has moved: weight decay alone moves tensors too.
    """

    def __init__(self, trained: Mapping[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
        """Keeps the tensors as they are before the first step."""
        self._trained, self._optimizer = trained, optimizer
        self._still = {name: parameter.detach().clone() for name, parameter in trained.items()}

    def after_step(self, step: int, *, last: bool = False) -> None:
        """Looks at gradients and values after an optimizer step, before `zero_grad`.

        Args:
            step: from 1.
            last: whether the run ends with this step.

        Raises:
            TrainingError: a tensor has neither moved nor had a gradient by the third step, or none has by the
                last one of a shorter run.
        """
        if step > STEPS_UNTIL_LEARNING:
            return
        for name in list(self._still):
            parameter = self._trained[name]
            moved = not torch.equal(self._still[name], parameter.detach())
            had_gradient = parameter.grad is not None and bool(parameter.grad.any())
            if had_gradient and (moved or self._is_lost_in_rounding(parameter)):
                del self._still[name]
        # Where numbers before the tower start at zero, such as a feature's, its A needs the third step, too.
        nothing = last and step > 1 and len(self._still) == len(self._trained)
        if self._still and (step == STEPS_UNTIL_LEARNING or nothing):
            raise TrainingError(
                f"train: {len(self._still)} of {len(self._trained)} trained tensors did not learn in {step}"
                f" steps, e.g. {next(iter(self._still))}; check target_modules, trained_layers and the"
                " learning rates"
            )

    def _is_lost_in_rounding(self, parameter: torch.nn.Parameter) -> bool:
        """Whether a step at the rate of now is: IA3 starts at ones, and a long warm-up near zero."""
        rates = {id(p): group["lr"] for group in self._optimizer.param_groups for p in group["params"]}
        least = torch.finfo(parameter.dtype).eps * float(parameter.detach().abs().min())
        return 0 < rates.get(id(parameter), 0) < least
