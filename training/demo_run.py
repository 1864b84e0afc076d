"""What every step of a demo training run shares, and the check of its model before any work."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from hicom_edge.errors import InputError
from hicom_edge.model.config import HicomConfig
from hicom_edge.progress import Progress
from hicom_edge.training.demo_config import hicom_config
from hicom_edge.training.demo_options import DemoOptions
from hicom_edge.training.demo_tokenizers import Tokenizers
from hicom_edge.training.siglip_files import tower_config


@dataclass(frozen=True)
class Run:
    """One training run; `output` is the directory of its state and its checkpoint."""

    output: Path
    options: DemoOptions
    tokenizers: Tokenizers
    progress: Progress
    device: torch.device

    def check_model(self) -> None:
        """Check the compressor's options now instead of after the towers' training.

        Raises:
            CheckpointError: the compressor's options are invalid.
        """
        config = hicom_config(self.options, self.tokenizers.language)
        tower = tower_config(self.options, self.tokenizers.guide.vocab_size)
        HicomConfig(config, tower).check()


def choose_device(name: str | None) -> torch.device:
    """The device of a name; by default "cuda" if there is a GPU, else "cpu".

    Raises:
        InputError: the device is not available.
    """
    chosen = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:  # the latter from a PyTorch without CUDA
        reason = str(error).splitlines()[0]
        raise InputError(
            f"device is {chosen!r}, which is not available ({reason}); pass cpu, or cuda with a GPU"
        ) from error
    return torch.device(chosen)
