"""How the command line spells the library's options."""

from __future__ import annotations

import re

from hicom_edge.errors import HicomEdgeError

# The others are spelled as in the library, with dashes.
FLAGS = {
    "held_out": "--held-out-samples",
    "held_out_data": "--held-out",
    "target_agreement": "--target-quality",
    "workspace_mib": "--workspace",
    "device_memory_gb": "--device-memory",
    "version": "--trtllm-version",
    "form": "--decoder-form",
}


def flag_of(option: str) -> str:
    """The flag of an option, such as --num-frames for num_frames."""
    return FLAGS.get(option, f"--{option.replace('_', '-')}")


def with_flags(error: HicomEdgeError) -> str:
    """The error's message, with its options as the command line spells them."""
    message = str(error)
    for option in error.options:
        message = re.sub(rf"(?<![-\w]){re.escape(option)}\b", flag_of(option), message, count=1)
    return message
