"""A network of waveforms: six families of signals, a 1-D CNN with ReLU and average pooling."""

import numpy as np
from torch import nn

from task import Task

LENGTH = 256


def time(generator, count):
    """Phases [count, LENGTH] in cycles: frequency and start drawn for each signal."""
    frequency = generator.uniform(3, 14, (count, 1))
    return frequency * np.linspace(0, 1, LENGTH) + generator.random((count, 1))


def sawtooth(cycles):
    return 2 * (cycles % 1) - 1


def chirp(generator, count, rate):
    return np.sin(2 * np.pi * (time(generator, count) + rate * 12 * np.linspace(0, 1, LENGTH) ** 2))


def ring(generator, count):
    """Decays from a start that is drawn."""
    cycles = time(generator, count) * 2
    start = generator.uniform(0, 0.5, (count, 1))
    since = np.linspace(0, 1, LENGTH) - start
    return np.where(since > 0, np.exp(-6 * since) * np.sin(2 * np.pi * cycles), 0) * 2


def modulated(generator, count):
    envelope = 0.5 + 0.5 * np.sin(2 * np.pi * time(generator, count) / 4)
    return envelope * np.sin(2 * np.pi * time(generator, count) * 3)


def brownian(generator, count):
    steps = np.cumsum(generator.standard_normal((count, LENGTH)), axis=1)
    return steps - steps.mean(1, keepdims=True)


def steps(generator, count):
    return np.repeat(generator.uniform(-1, 1, (count, 16)), LENGTH // 16, axis=1)


def beats(generator, count):
    """A narrow pulse and a wide one behind it, as of a heart."""
    cycles = time(generator, count) % 1
    return np.exp(-(((cycles - 0.3) / 0.02) ** 2)) * 2 + 0.5 * np.exp(-(((cycles - 0.6) / 0.08) ** 2)) - 0.3


FAMILIES = {
    "sine": lambda g, n: np.sin(2 * np.pi * time(g, n)),
    "square": lambda g, n: np.sign(np.sin(2 * np.pi * time(g, n))),
    "sawtooth": lambda g, n: sawtooth(time(g, n)),
    "chirp": lambda g, n: chirp(g, n, 1),
    "ring": ring,
    "modulated": modulated,
}
NEAR = {
    "triangle": lambda g, n: 2 * np.abs(sawtooth(time(g, n))) - 1,
    "falling": lambda g, n: chirp(g, n, -1),
    "pulses": lambda g, n: np.where(time(g, n) % 1 < 0.15, 1.0, -0.2),
}
FAR = {
    "white": lambda g, n: g.standard_normal((n, LENGTH)),
    "brownian": brownian,
    "steps": steps,
    "beats": beats,
}


def signals(family, count, generator):
    """[count, 1, LENGTH], each of unit size with noise of a tenth to a half of that."""
    clean = family(generator, count)
    clean = clean / (clean.std(1, keepdims=True) + 1e-6)
    noise = generator.uniform(0.1, 0.5, (count, 1)) * generator.standard_normal(clean.shape)
    return np.float32(clean + noise)[:, None]


def labelled(count, generator):
    parts = [signals(family, count, generator) for family in FAMILIES.values()]
    return np.concatenate(parts), np.repeat(np.arange(len(parts), dtype=np.int64), count)


class Convolutions(nn.Module):
    def __init__(self, width, classes):
        super().__init__()
        layers, inputs = [], 1
        for outputs in (16, 32, width):
            layers += [nn.Conv1d(inputs, outputs, 9, stride=2, padding=4), nn.BatchNorm1d(outputs), nn.ReLU()]
            inputs = outputs
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten())
        self.fc = nn.Linear(width, classes)

    def forward(self, inputs):
        return self.body(inputs)


def distorted(inputs, generator):
    """Backwards, mixed, halves exchanged, samples shuffled, phases drawn, a third enlarged."""
    rows = inputs[:, 0]
    field = np.angle(np.fft.rfft(generator.standard_normal(LENGTH)))
    places = np.linspace(LENGTH // 3, 2 * LENGTH // 3, LENGTH).astype(int)
    changed = {
        "backwards": rows[:, ::-1],
        "mix": (rows + rows[generator.permutation(len(rows))]) / 2,
        "halves": np.roll(rows, LENGTH // 2, axis=1),
        "shuffled": rows[:, generator.permutation(LENGTH)],
        "phase": np.fft.irfft(np.fft.rfft(rows) * np.exp(1j * field), LENGTH),
        "zoom": rows[:, places],
    }
    return {name: np.ascontiguousarray(part[:, None], dtype=np.float32) for name, part in changed.items()}


def wave(_):
    generator = np.random.default_rng(5)
    test = labelled(300, generator)
    return Task(
        about="waveforms of six families, 1-D CNN with ReLU",
        model=lambda: Convolutions(64, len(FAMILIES)),
        train=labelled(1000, generator),
        test=test,
        near={name: signals(family, 600, generator) for name, family in NEAR.items()},
        far={name: signals(family, 600, generator) for name, family in FAR.items()},
        standins=distorted(test[0][generator.permutation(len(test[0]))[:400]], generator),
        epochs=8,
    )


NETWORKS = {"wave": wave}
