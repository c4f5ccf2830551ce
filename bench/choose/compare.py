"""Judges single methods and panels over many networks by the program `dice`: mean FPR95, regret, and what a choice would have been worth.

    .venv/bin/python bench/choose/compare.py --dice target/release/dice --networks DIR [DIR ...] [--join NAME=DIR ...] [--cache DIR]

Each subfolder of a DIR is a network: `head.safetensors`, features `id_train` and `id_test` (or `id` alone), one file an
out-of-distribution set, `standin_*` for recipe B. `--join c10=FOLDER` adds the files of FOLDER to the network c10. Detectors are fitted,
calibrated and evaluated by `dice`. Results are kept in the cache, a file a network and split, for this program and these files: empty it
after changing recipes. FPR95 has in-distribution as positive, in percent; a mean over networks counts each network once, over all its
sets. Prints Markdown.
"""

import argparse
import hashlib
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
from safetensors.numpy import load_file, save_file

import networks
import recipes
import report


class Program:
    def __init__(self, path, threads):
        self.path, self.threads = path, threads
        self.fingerprint = hashlib.sha256(path.read_bytes()).hexdigest()[:16]

    def run(self, *words):
        command = [str(self.path), "--quiet", "--threads", str(self.threads), *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
        return done.stdout

    def fit(self, network, paths, specs, to):
        detectors = [word for spec in specs for word in ("-d", spec)]
        inputs = ["--features", paths["fit"], "--head", network.files["head"], "--calibration", paths["calibration"]]
        self.run("fit", *inputs, *detectors, "-o", to)

    def evaluate(self, network, paths, specs, place):
        """`{spec: {set: [FPR95, AUROC]}}`, in percent."""
        detector = place / "detector.safetensors"
        self.fit(network, paths, specs, detector)
        sets = [word for name in network.sets for word in ("--ood", f"{name}={network.files[name]}")]
        said = self.run("eval", detector, "--id", paths["test"], *sets, "--bootstrap", 0, "--format", "json")
        rows = json.loads(said)["detectors"]
        measured = [{each["ood"]: [100 * each["fpr_at_tpr"], 100 * each["auroc"]] for each in row["sets"]} for row in rows]
        return dict(zip(specs, measured, strict=True))

    def scores(self, detector, spec, features, place):
        to = place / "scores.npy"
        self.run("score", detector, features, "-d", spec, "-o", to)
        return np.load(to).astype(np.float64)


def standin_votes(program, network, paths, members, place):
    """Evidence of each member against calibration rows [members, N], and against each stand-in; all scored as one file."""
    detector, together = place / "members.safetensors", place / "together.safetensors"
    program.fit(network, paths, members, detector)
    names = [name for name in network.standins if name.removeprefix("standin_") not in report.UNUSED]
    parts = [load_file(paths["calibration"])["features"], *(network.load(name)["features"] for name in names)]
    save_file({"features": np.concatenate([part.astype(np.float32) for part in parts])}, together)
    known, sets, ends = [], {name: [] for name in names}, np.cumsum([len(part) for part in parts])[:-1]
    for member in members:
        reference, *others = np.split(program.scores(detector, member, together, place), ends)
        known.append(recipes.votes(reference, reference))
        for name, scores in zip(names, others):
            sets[name].append(recipes.votes(reference, scores))
    return known, sets


def weights(program, network, paths, facts, place):
    """Panels with weights of recipe B; equal weights where the network has no stand-ins. Thresholds play no part in FPR95."""
    pools = recipes.pools(facts)
    members = list(dict.fromkeys(member for pool in pools.values() for member in pool))
    if not network.standins:
        return {name: recipes.evidence(pool) for name, pool in pools.items()}
    known, sets = standin_votes(program, network, paths, members, place)
    used = recipes.separable(known, sets)
    chosen = {}
    for name, pool in pools.items():
        rows = [members.index(member) for member in pool]
        some = np.array([known[row][:2000] for row in rows])
        found = recipes.weigh(some, [np.array([standin[row] for row in rows]) for standin in used.values()])
        chosen[name] = recipes.weighted(pool, found)
    return chosen


def measure(program, network, seed):
    """`{recipe: {set: [FPR95, AUROC]}}` of a split, the facts, and the detectors that recipes became."""
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder)
        paths = networks.split(network, seed, place)
        facts = networks.facts(network, paths)
        chosen = {spec.replace("(by=prediction)", ""): spec for spec in recipes.singles(facts)}
        single = list(chosen)
        chosen.update(recipes.panels(facts))
        chosen.update(weights(program, network, paths, facts, place))
        found = program.evaluate(network, paths, list(dict.fromkeys(chosen.values())), place)
        return {"facts": facts, "singles": single, "specs": chosen, "results": {name: found[spec] for name, spec in chosen.items()}}


def key(program, network):
    """What a result rests on besides the recipes: the program, the names and sizes of the files."""
    files = sorted((name, path.stat().st_size) for name, path in network.files.items())
    return hashlib.sha256(json.dumps([program.fingerprint, files]).encode()).hexdigest()[:16]


def cached(program, network, seed, cache):
    path = cache / f"{network.name}-{seed}.json"
    mark = key(program, network)
    if path.exists():
        held = json.loads(path.read_text())
        if held["key"] == mark:
            return held
    held = {"key": mark, **measure(program, network, seed)}
    path.write_text(json.dumps(held) + "\n")
    return held


def averaged(splits):
    """The mean over splits, `{recipe: {set: [FPR95, AUROC]}}`."""
    first = splits[0]["results"]
    return {name: {of: np.mean([split["results"][name][of] for split in splits], axis=0) for of in sets} for name, sets in first.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dice", type=pathlib.Path, required=True, help="the program, built for release")
    parser.add_argument("--networks", type=pathlib.Path, nargs="+", required=True, help="folders of networks")
    parser.add_argument("--join", nargs="*", default=[], metavar="NAME=DIR", help="more files of a network")
    parser.add_argument("--cache", type=pathlib.Path, default=pathlib.Path("target/choose"), help="where results are kept")
    parser.add_argument("--seeds", type=int, default=4, help="splits of networks with few test rows")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="*", help="these networks")
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    program, found = Program(options.dice, options.threads), {}
    for network in networks.open_all(options.networks, options.join):
        if options.only and network.name not in options.only:
            continue
        splits = [cached(program, network, seed, options.cache) for seed in networks.seeds(network, options.seeds)]
        found[network.name] = report.Found(network, splits[0], averaged(splits), len(splits))
        print(f"{network.name} measured", flush=True, file=sys.stderr)
    print(report.everything(found))


if __name__ == "__main__":
    main()
