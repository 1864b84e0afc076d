"""Start-up times: medians over new processes, compared with a Python that does nothing.

python benchmarks/startup.py [--repeat 15]
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time

LIMITS_MS = {"import hicom_edge": 50.0, "hicom-edge --help": 400.0}
COMMANDS = {
    "python": ["-c", "pass"],
    "import hicom_edge": ["-c", "import hicom_edge"],
    "hicom-edge --help": ["-m", "hicom_edge", "--help"],
    "hicom-edge ask --help": ["-m", "hicom_edge", "ask", "--help"],
    "hicom-edge --version": ["-m", "hicom_edge", "--version"],
    "hicom-edge doctor": ["-m", "hicom_edge", "doctor"],
    "from hicom_edge import VideoQA": ["-c", "from hicom_edge import VideoQA"],
}


def wall_ms(arguments: list[str]) -> float:
    """Milliseconds of one new process."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
    return (time.perf_counter() - started) * 1000


def measure(repeat: int) -> dict[str, list[float]]:
    """All commands alternately, `repeat` times, after one round that warms the disk cache."""
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for round_number in range(repeat + 1):
        for name, arguments in COMMANDS.items():
            elapsed = wall_ms(arguments)
            if round_number:
                times[name].append(elapsed)
    return times


def main() -> int:
    """Print a table, then one line of JSON; returns 1 if a limit is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeat", type=int, default=15)
    medians = {n: statistics.median(t) for n, t in measure(parser.parse_args().repeat).items()}
    nothing = medians["python"]
    print(f"{'command':<34}{'median ms':>10}{'above python':>14}{'limit':>8}")
    exceeded = []
    for name, median in medians.items():
        limit = LIMITS_MS.get(name)
        # An import happens in a Python that runs anyway; a command includes Python's start.
        cost = median - nothing if name.startswith("import") else median
        exceeded += [name] if limit is not None and cost > limit else []
        print(f"{name:<34}{median:>10.1f}{median - nothing:>14.1f}{limit or '':>8}")
    machine = {"python": platform.python_version(), "machine": platform.machine()}
    print(json.dumps({"median_ms": medians, "exceeded": exceeded, **machine}))
    return 1 if exceeded else 0


if __name__ == "__main__":
    sys.exit(main())
