"""Ctrl-C stops long work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

CODE = """
import numpy as np, dice_ood as dice
x = np.random.default_rng(0).normal(size=(8_000, 128)).astype(np.float32)
det = dice.Detector("knn(5)").fit(x[:4_000], calibration=x[4_000:4_500])
print("ready", flush=True)
try:
    {work}
except KeyboardInterrupt:
    print("stopped", flush=True)
"""


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("work", ["while True: det.score_samples(np.repeat(x, 50, axis=0))", "dice.Detector('knn(5)').fit(x, calibration=np.repeat(x, 50, axis=0))"])
def test_interrupt(work):
    child = subprocess.Popen([sys.executable, "-c", CODE.format(work=work)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "ready\n"
    time.sleep(0.7)
    child.send_signal(signal.SIGINT)
    assert child.communicate(timeout=120)[0] == "stopped\n" and child.returncode == 0
