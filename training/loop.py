"""The optimiser loop of every stage: schedule, progress, periodic state on disk, exact resume.

The caller draws each batch from (seed, stage, step), so a resumed run sees the same batches as an
uninterrupted one and ends with the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from hicom_edge.errors import InputError
from hicom_edge.files import replacing
from hicom_edge.progress import Progress, no_progress


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share a peak learning rate."""

    parameters: Sequence[nn.Parameter]
    rate: float


@dataclass(frozen=True)
class Loop:
    """The optimisation of one stage with AdamW.

    Attributes:
        state: file of the periodic state, from which an interrupted run continues.
        fingerprint: hash of the options; state with another fingerprint is refused.
        modules: the modules that learn, by name.
        groups: their parameters with the peak learning rates.
        warmup: share of the steps during which the learning rate rises.
        save_every: steps between two writes of the state.
    """

    name: str
    state: Path
    fingerprint: str
    modules: Mapping[str, nn.Module]
    groups: Sequence[ParameterGroup]
    steps: int
    warmup: float
    weight_decay: float
    save_every: int
    progress: Progress = no_progress

    def run(self, loss_at: Callable[[int], Tensor]) -> None:
        """Run the remaining steps; `loss_at(step)` returns the scalar loss of that step's batch.

        Raises:
            InputError: the state on disk belongs to a run with other options.
        """
        optimizer = torch.optim.AdamW(
            [{"params": list(g.parameters), "lr": g.rate, "peak": g.rate} for g in self.groups],
            weight_decay=self.weight_decay,
            betas=(0.9, 0.98),
        )
        done = self._resume(optimizer)
        average = math.nan
        for step in range(done, self.steps):
            loss = self._step(optimizer, loss_at, step)
            average = loss if math.isnan(average) else 0.97 * average + 0.03 * loss  # for display
            task = f"{self.name}, loss {average:.3f}"
            self.progress(task, step + 1, self.steps, "step")
            if (step + 1) % self.save_every == 0 or step + 1 == self.steps:
                self._save(optimizer, step + 1)

    def _step(
        self, optimizer: torch.optim.Optimizer, loss_at: Callable[[int], Tensor], step: int
    ) -> float:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * cosine_with_warmup(step, self.steps, self.warmup)
        loss = loss_at(step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        # Clipped separately: the norm of one group must not shrink the steps of another.
        for parameters in (group["params"] for group in optimizer.param_groups):
            nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        return float(loss.detach())

    def _resume(self, optimizer: torch.optim.Optimizer) -> int:
        if not self.state.exists():
            return 0
        saved = torch.load(self.state, weights_only=True, map_location="cpu")
        if saved["fingerprint"] != self.fingerprint:
            raise InputError(
                f"{self.state} was written by a run with other options, expected the same options; "
                "choose another output directory or delete it"
            )
        for name, module in self.modules.items():
            module.load_state_dict(saved["modules"][name])
        optimizer.load_state_dict(saved["optimizer"])
        return int(saved["step"])

    def _save(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        content = {
            "fingerprint": self.fingerprint,
            "step": step,
            "modules": {name: module.state_dict() for name, module in self.modules.items()},
            "optimizer": optimizer.state_dict(),
        }
        # Through a Python file: given a path, PyTorch's own writer does not report a full disk.
        with replacing(self.state) as path, path.open("wb") as file:
            torch.save(content, file)


def cosine_with_warmup(step: int, steps: int, warmup: float) -> float:
    """The learning rate of a step as a share of the peak: linear warm-up, then cosine decay."""
    rising = max(1, round(steps * warmup))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))
