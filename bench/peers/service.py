"""The service of examples/ under load, beside the same service calling torch: requests a second, and the times that requests take.

    .venv/bin/python bench/peers/service.py [--workers 2] [--clients 8] [--seconds 5] [--rounds 3]

Besides bench/peers/requirements.txt it takes fastapi, uvicorn and the package. Both run under uvicorn with as many workers, each of one thread;
clients are connections of one process that ask again as soon as they are answered. Services take turns; answers are asserted to agree. Prints
Markdown.
"""

import argparse
import asyncio
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import warnings

import numpy as np

import dice_ood as dice
from compare import made_up, row, table

ROOT = pathlib.Path(__file__).resolve().parents[2]
# The folder, the application, and the detector that it opens.
OURS, TORCH = (ROOT / "examples", "serve:app"), (ROOT / "bench" / "peers", "torch_service:app")
SERVICES = {"energy": (*OURS, "energy"), "dice(0.9) | energy": (*OURS, "dice(0.9) | energy"), "torch, energy": (*TORCH, "energy")}
# Rows of a request, units, classes.
CASES = [(1, 342, 10), (64, 342, 10), (64, 2048, 1000)]


class Service:
    """Workers of uvicorn behind a port."""

    def __init__(self, name, workers, environment):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        folder, app, spec = SERVICES[name]
        environment = {**os.environ, **environment, "DETECTOR": environment[spec]}
        command = [sys.executable, "-m", "uvicorn", "--app-dir", folder, app, "--port", self.port, "--workers", workers, "--log-level", "error"]
        self.process = subprocess.Popen([str(part) for part in command], env=environment)

    async def connect(self):
        for _ in range(600):
            try:
                return await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                await asyncio.sleep(0.1)
        raise SystemExit("the service does not answer")

    def stop(self):
        self.process.terminate()
        self.process.wait()


async def ask(connection, request):
    """The body of the answer."""
    reader, writer = connection
    writer.write(request)
    # Workers of uvicorn send the head and wait with the body for an acknowledgement, which Linux else puts off by 40 ms.
    writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    if not head.startswith(b"http/1.1 200"):
        raise SystemExit(head.decode())
    return await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0]))


def request_of(features):
    head = f"POST /score HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/octet-stream\r\ncontent-length: {features.nbytes}\r\n\r\n"
    return head.encode() + features.tobytes()


async def answer(service, features):
    connection = await service.connect()
    found = json.loads(await ask(connection, request_of(features)))
    connection[1].close()
    return {name: np.array(values) for name, values in found.items()}


async def load(service, features, clients, seconds):
    """Requests a second, and seconds of each."""
    connections = [await service.connect() for _ in range(clients)]
    request, taken = request_of(features), []
    end = time.perf_counter() + seconds

    async def client(connection):
        while (start := time.perf_counter()) < end:
            await ask(connection, request)
            taken.append(time.perf_counter() - start)
        connection[1].close()

    start = time.perf_counter()
    await asyncio.gather(*map(client, connections))
    return len(taken) / (time.perf_counter() - start), np.array(taken)


def agree(ours, theirs):
    np.testing.assert_allclose(ours["score"], theirs["score"], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(ours["p_value"], theirs["p_value"], atol=1e-2)
    assert (ours["prediction"] == theirs["prediction"]).mean() > 0.99


def files(folder, rng, units, classes):
    """The files that the services read, as their environment, and features to ask about."""
    features, weight, bias, _ = made_up(rng, 4_000, units, classes)
    found = {"HEAD": str(folder / "head.npz"), "RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    for place, spec in enumerate(["dice(0.9) | energy", "energy"]):
        det = dice.Detector(spec, head=(weight, bias)).fit(features[:3_000])
        found[spec] = str(folder / f"{place}.safetensors")
        det.save(found[spec])
    calibration, threshold = det.calibration_scores.astype(np.float32), np.float32([det.offset_])
    np.savez(found["HEAD"], weight=weight, bias=bias, calibration=calibration, threshold=threshold)
    return found, features[3_000:]


def compare(case, arguments, folder, rng):
    rows, units, classes = case
    environment, features = files(folder, rng, units, classes)
    batch = np.ascontiguousarray(features[:rows])
    best = {}
    services = {name: Service(name, arguments.workers, environment) for name in SERVICES}
    try:
        agree(*(asyncio.run(answer(services[name], batch)) for name in ("energy", "torch, energy")))
        for _ in range(arguments.rounds):
            for name, service in services.items():
                asyncio.run(load(service, batch, arguments.clients, 0.5))
                found = asyncio.run(load(service, batch, arguments.clients, arguments.seconds))
                best[name] = max(best.get(name, found), found, key=lambda one: one[0])
    finally:
        for service in services.values():
            service.stop()
    for name, (rate, taken) in best.items():
        median, slow = 1e3 * np.quantile(taken, [0.5, 0.99])
        row(f"{rows} x {units}, C = {classes}", name.replace("|", "\\|"), f"{rate:.0f}", f"{rate / best['torch, energy'][0]:.2f}x", f"{median:.2f}", f"{slow:.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", dice.FindingWarning)
    print(f"dice_ood {dice.__version__}; {arguments.workers} workers, {arguments.clients} clients, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    table("a request", "service", "requests a second", "of torch", "median, ms", "p99, ms")
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        for case in CASES:
            compare(case, arguments, pathlib.Path(folder), rng)


if __name__ == "__main__":
    main()
