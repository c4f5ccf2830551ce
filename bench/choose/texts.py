"""Networks of texts: the language of Django's own translations, by a recurrent network and by hashed character n-grams.

Related languages are near; other scripts, program text and digits are far.
"""

import pathlib
import re
import zlib

import numpy as np
import torch
from torch import nn

from task import Task, split

KNOWN = ["de", "fr", "es", "it", "pl", "ru", "fi", "hu", "tr", "sv", "cs", "nl"]
NEAR = {"nordic": ["da", "nb"], "slavic": ["sk", "sl", "uk", "bg"], "romance": ["ca", "gl", "pt", "ro"]}
FAR = {"greek": ["el"], "semitic": ["ar", "he"], "asian": ["ja", "ko", "zh_Hans"], "celtic": ["cy", "ga"]}
LENGTH = 96
BUCKETS = 2048
MESSAGE = re.compile(r'^msgstr(?:\[\d+\])? ((?:"(?:[^"\\]|\\.)*"\s*)+)', re.MULTILINE)


def root():
    import django

    return pathlib.Path(django.__file__).parent


def messages(language):
    """Translated texts of at least 20 characters, each once, in order of the files."""
    found = {}
    for path in sorted(root().rglob(f"locale/{language}/LC_MESSAGES/*.po")):
        for quoted in MESSAGE.findall(path.read_text(encoding="utf-8")):
            text = "".join(re.findall(r'"((?:[^"\\]|\\.)*)"', quoted)).replace("\\n", " ").replace('\\"', '"')
            text = re.sub(r"%\(\w+\)s|%[sd]|{\w*}|<[^>]*>", "", text)
            if len(text) >= 20 and "Content-Type" not in text:
                found[text[:120]] = None
    return list(found)


def program(count):
    """Lines of Django's own source."""
    lines = [line.strip() for path in sorted((root() / "db").rglob("*.py")) for line in path.read_text(encoding="utf-8").splitlines()]
    return [line for line in dict.fromkeys(lines) if len(line) >= 20][:count]


def several(languages, count):
    return [text for language in languages for text in messages(language)[: count // len(languages)]]


def encoded(texts):
    """The first LENGTH bytes [N, LENGTH] of each as numbers 1 to 256, 0 behind the end."""
    rows = np.zeros((len(texts), LENGTH), dtype=np.int64)
    for row, text in zip(rows, texts):
        part = np.frombuffer(text.encode()[:LENGTH], dtype=np.uint8)
        row[: len(part)] = part.astype(np.int64) + 1
    return rows


def hashed(texts):
    """Counts [N, BUCKETS] of hashed character n-grams of 1 to 3, rows of unit length."""
    rows = np.zeros((len(texts), BUCKETS), dtype=np.float32)
    for row, text in zip(rows, texts):
        for size in (1, 2, 3):
            for start in range(len(text) - size + 1):
                row[zlib.crc32(text[start : start + size].encode()) % BUCKETS] += 1
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)


class Recurrent(nn.Module):
    """The mean over time of a recurrent layer's states: values of both signs below 1."""

    def __init__(self, width, classes):
        super().__init__()
        self.embedding = nn.Embedding(257, 24, padding_idx=0)
        self.body = nn.GRU(24, width // 2, batch_first=True, bidirectional=True)
        self.fc = nn.Linear(width, classes)

    def forward(self, inputs):
        present = (inputs > 0)[..., None]
        states = self.body(self.embedding(inputs))[0] * present
        return states.sum(1) / present.sum(1).clamp(min=1)


class Grams(nn.Module):
    def __init__(self, width, classes):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(BUCKETS, width), nn.ReLU(), nn.Dropout(0.3), nn.Linear(width, width), nn.ReLU())
        self.fc = nn.Linear(width, classes)

    def forward(self, inputs):
        return self.body(inputs)


def distorted(texts, generator):
    """Characters shuffled, words backwards, case changed, two texts interleaved by words."""
    others = [texts[place] for place in generator.permutation(len(texts))]
    return {
        "characters": ["".join(generator.permutation(list(text))) for text in texts],
        "backwards": [" ".join(word[::-1] for word in text.split()) for text in texts],
        "case": [text.upper() for text in texts],
        "mix": [" ".join(word for pair in zip(a.split(), b.split()) for word in pair) for a, b in zip(texts, others)],
    }


def task(encode, **settings):
    """Both networks see the same texts."""
    generator = np.random.default_rng(7)
    texts, labels = zip(*((text, label) for label, language in enumerate(KNOWN) for text in messages(language)))
    texts, labels = np.array(texts, dtype=object), np.array(labels, dtype=np.int64)
    train, test = split(labels, 0.7, 0)
    digits = ["".join(generator.choice(list("0123456789.-: "), 60)) for _ in range(400)]
    return Task(
        train=(encode(texts[train]), labels[train]),
        test=(encode(texts[test]), labels[test]),
        near={name: encode(several(languages, 800)) for name, languages in NEAR.items()},
        far={**{name: encode(several(languages, 800)) for name, languages in FAR.items()}, "program": encode(program(800)), "digits": encode(digits)},
        standins={name: encode(changed) for name, changed in distorted(texts[test][:400], generator).items()},
        **settings,
    )


def language(_):
    return task(encoded, about="language of a text, GRU over bytes", model=lambda: Recurrent(96, len(KNOWN)), epochs=8, rate=5e-3)


def grams(_):
    return task(hashed, about="language of a text, perceptron with ReLU on hashed n-grams", model=lambda: Grams(256, len(KNOWN)), epochs=5)


NETWORKS = {"language": language, "grams": grams}
