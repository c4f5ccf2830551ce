"""Installs what tests skip without, in the environment that runs this: what cannot be had is said, and the rest is installed.

    python optional.py
"""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import sys

# Installed whole.
WHOLE = ["pyspark>=4,<5", "ray[data]", "pyod"]

# What torch names and can be imported without: a compiler for GPUs, of a gigabyte, and a way to call CUDA from Python. Its other libraries are
# linked to, though nothing of them runs on a CPU.
NOT_OF_TORCH = {"triton", "cuda-bindings"}

# Installed without what they name, for which others stand: torch lacks something, as above, and alibi-detect asks for versions of numpy and
# pandas that others here cannot have, but its PyTorch detectors do without.
ALONE = {
    "torch": [],
    "torchvision": ["pillow"],
    "pytorch-ood": ["scipy"],
    "alibi-detect": ["catalogue", "dill<0.4", "numba", "pydantic", "scikit-learn", "toml", "tqdm", "transformers<5"],
}


def installed(*asked: str) -> bool:
    """Whether pip has installed these; its last words where it has not."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-compile", *asked], stderr=subprocess.PIPE, text=True
    )
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [f"pip ends with {done.returncode}"]
        print(f"skipped: Python: {asked[-1]} cannot be had: {said[-1]}", flush=True)
    return done.returncode == 0


def of_torch() -> list[str]:
    """What the torch that is installed names, extras aside."""
    named = [text for text in importlib.metadata.requires("torch") or [] if "extra ==" not in text]
    return [text for text in named if re.match(r"[\w.-]+", text)[0].lower() not in NOT_OF_TORCH]


def java() -> None:
    """Root installs it from Debian's packages, for Spark."""
    if shutil.which("java") or not shutil.which("apt-get"):
        return
    for name in ("openjdk-17-jre-headless", "default-jre-headless"):
        command = f"apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends {name} >/dev/null"
        if subprocess.run(command, shell=True, stderr=subprocess.DEVNULL).returncode == 0:
            return


def main() -> None:
    java()
    for name in WHOLE:
        installed(name)
    for name, others in ALONE.items():
        if installed("--no-deps", name):
            installed(*(of_torch() if name == "torch" else others))


if __name__ == "__main__":
    main()
