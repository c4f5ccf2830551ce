"""Tries other rules than the sum of evidence, and weights on stand-ins made of features alone.

    .venv/bin/python bench/choose/rules.py --dice target/release/dice --networks DIR [DIR ...] [--join NAME=DIR ...]

Members are fitted and scored by `dice`, once a network; rules are then applied to their evidence here. The mean FPR95 counts each network
once. Feature-space stand-ins are made of calibration rows: units shuffled between rows, rows of two predicted classes mixed half and half
or crossed unit by unit, rows shrunk, drawn towards the mean, or with noise of half a standard deviation.
"""

import argparse
import pathlib
import tempfile

import numpy as np
from safetensors.numpy import load_file, save_file

import compare
import networks
import recipes

RULES = {
    "sum": lambda votes: votes.sum(0),
    "sum of square roots": lambda votes: np.sqrt(votes).sum(0),
    "sum of powers of 1.5": lambda votes: (votes**1.5).sum(0),
    "sum of squares": lambda votes: (votes**2).sum(0),
    "largest": lambda votes: votes.max(0),
    "three largest": lambda votes: np.sort(votes, 0)[-3:].sum(0),
    "without the largest": lambda votes: np.sort(votes, 0)[:-1].sum(0),
    "harmonic mean of p": lambda votes: np.logaddexp.reduce(np.minimum(votes, 700), 0),
}
EXTRA = {"F5 + knn(5)": ["knn(5)"], "F5 + caref": ["caref"], "F5 + knn(5) + caref": ["knn(5)", "caref"]}
KINDS = [["shuffled"], ["mixed"], ["crossed"], ["shrunk"], ["drawn"], ["noisy"], ["mixed", "crossed", "drawn", "shuffled"]]


def standins(rows, head, signed):
    """Made of features `[N, D]`."""
    random = np.random.default_rng(5)
    predicted = (rows @ next(part for part in head.values() if part.ndim == 2).astype(np.float32).T).argmax(1)
    others = random.permutation(len(rows))
    for _ in range(5):
        alike = predicted == predicted[others]
        others[alike] = random.integers(0, len(rows), alike.sum())
    noisy = rows + random.normal(size=rows.shape).astype(np.float32) * rows.std(0) / 2
    return {
        "shuffled": np.stack([rows[random.permutation(len(rows)), unit] for unit in range(rows.shape[1])], 1),
        "mixed": (rows + rows[others]) / 2,
        "crossed": np.where(random.random(rows.shape) < 0.5, rows, rows[others]),
        "shrunk": 0.7 * rows,
        "drawn": rows.mean(0) + 0.6 * (rows - rows.mean(0)),
        "noisy": noisy if signed else np.maximum(noisy, 0),
    }


def evidence(program, network):
    """Of each member against test rows, each set and each stand-in; and against the calibration rows that it rests on."""
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder)
        paths = networks.split(network, 0, place)
        facts = networks.facts(network, paths)
        members = [*recipes.family(facts), "knn(5)", *recipes.templates(facts)[:1]]
        program.fit(network, paths, members, place / "members.safetensors")
        calibration = load_file(paths["calibration"])["features"].astype(np.float32)
        parts = {"calibration": calibration, "test": load_file(paths["test"])["features"]}
        parts.update({name: network.load(name)["features"] for name in network.sets})
        made = standins(calibration[:1500], load_file(network.files["head"]), facts["negative"] >= recipes.SIGNED)
        parts.update({f"standin_{name}": rows for name, rows in made.items()})
        save_file({"features": np.concatenate([part.astype(np.float32) for part in parts.values()])}, place / "all.safetensors")
        ends = np.cumsum([len(part) for part in parts.values()])[:-1]
        found = {}
        for member in members:
            reference, *others = np.split(program.scores(place / "members.safetensors", member, place / "all.safetensors", place), ends)
            scores = dict(zip(parts, [reference, *others]))
            found[member] = {name: recipes.votes(reference, values) for name, values in scores.items()}
        return found


def accepted(found, network, members, rule):
    """Mean FPR95 over the sets of a network, in percent."""
    against = {name: rule(np.array([found[member][name] for member in members])) for name in ["test", *network.sets]}
    limit = np.sort(against["test"])[int(np.ceil(0.95 * len(against["test"]))) - 1]
    return 100 * np.mean([np.mean(against[name] <= limit) for name in network.sets])


def weights(found, members, kinds):
    known = np.array([found[member]["calibration"][:2000] for member in members])
    sets = {kind: [found[member][f"standin_{kind}"] for member in members] for kind in kinds}
    used = recipes.separable(known, sets)
    return recipes.weigh(known, [np.array(rows) for rows in used.values()]) if used else np.ones(len(members))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dice", type=pathlib.Path, required=True)
    parser.add_argument("--networks", type=pathlib.Path, nargs="+", required=True)
    parser.add_argument("--join", nargs="*", default=[])
    options = parser.parse_args()
    program = compare.Program(options.dice, 2)
    all_of = [(network, evidence(program, network)) for network in networks.open_all(options.networks, options.join)]

    def say(name, value):
        values = {network.name: value(network, found) for network, found in all_of}
        print(f"| {name} | {np.mean(list(values.values())):.1f} | {', '.join(f'{at} {value:.0f}' for at, value in values.items())} |", flush=True)

    print("| what | mean | by network |\n|---|---|---|")
    for name, rule in RULES.items():
        say(name, lambda network, found: accepted(found, network, list(found)[:5], rule))
    for name, more in EXTRA.items():
        say(name, lambda network, found: accepted(found, network, [*list(found)[:5], *[member for member in more if member in found]], RULES["sum"]))
    for kinds in KINDS:

        def weighted(network, found):
            five = list(found)[:5]
            own = weights(found, five, kinds)
            return accepted(found, network, five, lambda votes: own @ votes)

        say(f"weights on {', '.join(kinds)}", weighted)


if __name__ == "__main__":
    main()
