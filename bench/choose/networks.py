"""Folders of features as `train.py` writes them, and their splits: rows to fit, to calibrate and to test."""

import dataclasses
import json
import pathlib

import numpy as np
from safetensors.numpy import load_file, save_file

# What is near where a folder without network.json holds a network of CIFAR-10, which is one with `id_test`, joined files included.
NEAR = {"cifar100", "tin"}
# Test rows from which one split is enough.
ENOUGH_TESTED = 2500


@dataclasses.dataclass
class Network:
    name: str
    files: dict
    near: set
    about: str

    def load(self, part):
        return load_file(self.files[part])

    @property
    def sets(self):
        inside = {"head", "id", "id_train", "id_test"}
        return sorted(name for name in self.files if name not in inside and not name.startswith("standin_"))

    @property
    def standins(self):
        return sorted(name for name in self.files if name.startswith("standin_"))


def open_network(folder, joined):
    """The network of `folder`, with the files that the folders `joined` hold besides."""
    files = {path.stem: path for place in (*joined, folder) for path in sorted(place.glob("*.safetensors"))}
    files = {name: path for name, path in files.items() if name == "head" or "features" in keys(path)}
    about = folder / "network.json"
    if about.exists():
        said = json.loads(about.read_text())
        return Network(folder.name, files, set(said["near"]), said["about"])
    return Network(folder.name, files, NEAR & set(files) if "id_test" in files else set(), folder.name)


def keys(path):
    """The names in the header of a safetensors file."""
    with path.open("rb") as file:
        return json.loads(file.read(int.from_bytes(file.read(8), "little")))


def open_all(folders, joins):
    """The networks of all subfolders of `folders` that have a head; `joins` are `NAME=FOLDER`."""
    more = {}
    for join in joins:
        name, _, place = join.partition("=")
        more.setdefault(name, []).append(pathlib.Path(place))
    places = [place for folder in folders for place in sorted(folder.iterdir()) if place.is_dir()]
    known = [place for place in places if place.name in more or (place / "head.safetensors").exists()]
    return [open_network(place, more.get(place.name, [])) for place in known]


def part(tensors, rows):
    return {name: np.ascontiguousarray(values[rows]) for name, values in tensors.items()}


def halves(count, generator):
    order = generator.permutation(count)
    return order[: count // 2], order[count // 2 :]


def split(network, seed, place):
    """Writes `calibration` and `test` (and `fit`) into `place` and returns the paths of the three.

    Where the folder has training rows they are fitted to and the test rows halved; else half of the rows is fitted to and a quarter each
    calibrates and tests.
    """
    generator = np.random.default_rng(seed)
    if "id_train" in network.files:
        fit, rest = network.files["id_train"], network.load("id_test")
    else:
        rest = network.load("id")
        fitted, others = halves(len(rest["features"]), generator)
        fit = place / "fit.safetensors"
        save_file(part(rest, fitted), fit)
        rest = part(rest, others)
    paths = {"fit": fit, "calibration": place / "calibration.safetensors", "test": place / "test.safetensors"}
    for name, rows in zip(("calibration", "test"), halves(len(rest["features"]), generator)):
        save_file(part(rest, rows), paths[name])
    return paths


def seeds(network, most):
    """One split where thousands of rows are tested, else as many as `most`: a rate over 250 rows is uncertain by points."""
    rows = len(network.load("id_test" if "id_test" in network.files else "id")["features"])
    return range(1 if rows / 2 >= ENOUGH_TESTED else most)


def facts(network, paths):
    """What recipes may know: shape of the head, whether features are signed, whether the fitted rows have labels."""
    fitted = load_file(paths["fit"])
    features = fitted["features"]
    head = network.load("head")
    classes, units = head["fc.weight"].shape
    predicted = (features.astype(np.float32) @ head["fc.weight"].T + head["fc.bias"]).argmax(1)
    return {
        "every_class": len(np.unique(predicted)) == classes,
        "units": units,
        "classes": classes,
        "negative": float((features < 0).mean()),
        "labels": "labels" in fitted,
        "rows": len(features),
    }
