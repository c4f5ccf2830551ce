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
# pandas that others here cannot have, but its PyTorch detectors do without. With what is imported of them.
ALONE = {
    "torch": ("torch", []),
    "torchvision": ("torchvision", ["pillow"]),
    "pytorch-ood": ("pytorch_ood.detector", ["scipy"]),
    "alibi-detect": (
        "alibi_detect.od.pytorch",
        ["catalogue", "dill<0.4", "numba", "pydantic", "scikit-learn", "toml", "tqdm", "transformers<5"],
    ),
}


# Seconds for one installation: tests can wait for no more.
MOST = 600


def python(*arguments: str) -> str | None:
    """The last words of a Python that failed."""
    try:
        done = subprocess.run([sys.executable, *arguments], stderr=subprocess.PIPE, text=True, timeout=MOST)
    except subprocess.TimeoutExpired:
        return f"it took more than {MOST // 60} minutes"
    lines = done.stderr.strip().splitlines() or ["it says nothing"]
    return None if done.returncode == 0 else next((line for line in lines if line.startswith("ERROR")), lines[-1])


def installed(*asked: str) -> str | None:
    """What is wrong where pip cannot install these."""
    return python("-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-compile", *asked)


def installed_alone(name: str, module: str, others: list[str]) -> str | None:
    """What is wrong where the module cannot be had; then the package is not left behind, for tests to fail by."""
    wrong = installed("--no-deps", name)
    others = of_torch() if name == "torch" and wrong is None else others
    wrong = wrong or (installed(*others) if others else None) or python("-W", "ignore", "-c", f"import {module}")
    if wrong:
        python("-m", "pip", "uninstall", "-q", "-y", name)
    return wrong


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
    wrong = {name: installed(name) for name in WHOLE}
    wrong |= {name: installed_alone(name, *more) for name, more in ALONE.items()}
    for name, what in wrong.items():
        if what:
            print(f"skipped: Python: {name} cannot be had: {what}")


if __name__ == "__main__":
    main()
