"""Counts how often the verdicts of `dice diagnose` are right: every network, every out-of-distribution set.

    python3 bench/choose/diagnose.py --data DATA [--networks FOLDER] [--dice target/release/dice] [--detector 'dice(0.7) | energy']
        [--panel] [--check]

DATA holds `networks/NAME/` (head.safetensors; id_train and id_test, or id; one file a set; standin_*) and
`cifar10-densenet101/`, whose other sets are in `networks/c10/`. FOLDER holds networks in the same layout, each with a network.json as
`train.py` writes it: no threshold was set on these, and their hits are counted apart too. Needs nothing but Python and the `dice`
binary, whose JSON it reads.

Sets are given without near or far, so that the tool does not take what it measures on them for its verdict. Three-way a verdict is right
where the gain in AUROC over energy is what it says: at least a point up (helps), at least a point down (hurts), or less (no
difference). Two-way counts only sets that moved by a point: to use DICE where it helps, and not where it does not.
"""

import argparse
import dataclasses
import json
import pathlib
import subprocess
import sys
import tempfile
from collections import defaultdict

# Images of other classes of the same kind, where no network.json says what is near; every other set is far.
NEAR = {("c10", "cifar100"), ("r20", "cifar100"), ("vit", "cifar100")}
STAND_INS = {"near": ["flipud", "rot90", "imix", "invert", "jig2"], "far": ["phase", "zoom"]}
MATERIAL = 0.01


@dataclasses.dataclass
class Network:
    name: str
    training: pathlib.Path
    test: pathlib.Path
    head: pathlib.Path
    # Files of the sets by name, and the names of those that are near.
    sets: dict
    near: set
    folder: pathlib.Path
    # Whether thresholds of rules were set with it in view.
    seen: bool


def networks(data, more):
    shared = [(folder, True) for folder in sorted((data / "networks").iterdir())]
    for folder, seen in shared + [(folder, False) for place in more for folder in sorted(place.iterdir())]:
        own, home = folder, folder
        if seen and folder.name == "c10":
            home = data / "cifar10-densenet101"
        training = home / "id_train.safetensors"
        test = home / "id_test.safetensors"
        if not training.exists():
            training = test = home / "id.safetensors"
        sets = {}
        for place in {home, own}:
            for file in sorted(place.glob("*.safetensors")):
                skip = file.stem.startswith(("id", "head", "standin_", "mean_activation", "official"))
                if not skip:
                    sets[file.stem] = file
        said = folder / "network.json"
        near = set(json.loads(said.read_text())["near"]) if said.exists() else {name for name in sets if (folder.name, name) in NEAR}
        yield Network(folder.name, training, test, home / "head.safetensors", sets, near, own, seen)


def run(arguments):
    done = subprocess.run([str(part) for part in arguments], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, arguments))}\n{done.stderr}")
    return done.stdout


def diagnose(arguments, network, stand_ins):
    command = [arguments.dice, "diagnose", network.training, "--head", network.head, "-d", arguments.detector]
    command += ["--format", "json", "--quiet"]
    if network.test != network.training:
        command += ["--id", network.test]
    for label, file in sorted(network.sets.items()):
        command += ["--ood", f"{label}={file}"]
    if stand_ins:
        files = [(far, network.folder / f"standin_{kind}.safetensors") for far, kinds in STAND_INS.items() for kind in kinds]
        files = [(far, file) for far, file in files if file.exists()]
        if {far for far, _ in files} != set(STAND_INS):
            return None
        for far, file in files:
            command += ["--standin", f"{far}:{file.stem}={file}"]
    return json.loads(run(command))


def effect(gain):
    return "helps" if gain >= MATERIAL else "hurts" if gain <= -MATERIAL else "no_difference"


def pairs(network, found, stand_ins):
    """Of one diagnosis: set, near or far, what is expected, the gain.

    By stand-ins the rule is asked here, as the tool passes over it where it was tried on too few sets.
    """
    for told in found["sets"]:
        if told["kind"] != "out_of_distribution":
            continue
        distance = "near" if told["name"] in network.near else "far"
        expected = found["forecast"][distance]
        if stand_ins and expected["rule"] != "stand_ins":
            gains = [one["separation"]["gain"]["value"] for one in found["sets"] if (one["kind"], one["distance"]) == ("stand_in", distance)]
            mean = sum(gains) / len(gains)
            expected = {"rule": "stand_ins", "rule_says": effect(mean), "effect": "cannot_tell", "tried": None, "unseen": None, "gain": mean}
        yield told["name"], distance, expected, told["separation"]["gain"]["value"]


class Count:
    def __init__(self):
        self.right = self.of = 0

    def add(self, right):
        self.right += right
        self.of += 1

    def __str__(self):
        return f"{self.right}/{self.of}"


class Outcomes(dict):
    """How many sets got better, worse, or moved by less than a point."""

    def __init__(self):
        super().__init__(better=0, worse=0, same=0)

    def add(self, gain):
        self[{"helps": "better", "hurts": "worse"}.get(effect(gain), "same")] += 1

    def __str__(self):
        return "{better} / {worse} / {same}".format(**self)


def is_told(outcomes, told):
    """Whether the tool prints these outcomes, where it prints any."""
    return told is None or all(told[name] == count for name, count in outcomes.items())


def table(title, rows, header):
    print(f"\n{title}\n")
    print("| " + " | ".join(header) + " |")
    print("|" + " --- |" * len(header))
    for row in rows:
        print("| " + " | ".join(row) + " |")


def judge(arguments, stand_ins):
    """Prints what each rule says of each set and what was measured; the number of rules whose outcomes the tool tells otherwise."""
    rows, totals, rules, unseen, told = [], defaultdict(Count), defaultdict(Outcomes), defaultdict(Outcomes), {}
    for network in networks(arguments.data, arguments.networks):
        found = diagnose(arguments, network, stand_ins)
        if found is None:
            continue
        name, signal = network.name, found["sets"][0]["signal"]["value"]
        for label, distance, expected, gain in pairs(network, found, stand_ins):
            says, real = expected["rule_says"], effect(gain)
            key = (expected["rule"], says, distance)
            rules[key].add(gain)
            if not network.seen:
                unseen[key].add(gain)
            told[key] = (expected["tried"], expected["unseen"])
            for which in ["all"] if network.seen else ["all", "of networks that set no threshold"]:
                totals[distance, which, "three-way"].add(says == real)
                totals[distance, which, "opposite"].add({says, real} == {"helps", "hurts"})
                if real != "no_difference":
                    totals[distance, which, "two-way"].add((says == "helps") == (real == "helps"))
            basis = f"{100 * expected['gain']:+.1f}" if stand_ins else f"{signal:+.2f}"
            negative = f"{100 * found['training']['negative']:.1f}"
            rows.append([name, label, distance, negative, basis, says, expected["effect"], real, f"{100 * gain:+.1f}"])
    what = "stand-ins" if stand_ins else "features alone"
    basis = "on stand-ins" if stand_ins else "signal"
    table(f"`{arguments.detector}`, by {what}", rows, ["network", "set", "", "negative %", basis, "rule says", "tool says", "measured", "gain"])
    table(f"Hits by {what}", [[*key, str(totals[key])] for key in sorted(totals)], ["sets", "of", "count", "hits"])
    as_told = {key: is_told(found, told[key][0]) and is_told(unseen[key], told[key][1]) for key, found in rules.items()}
    lines = [[*key, str(found), str(unseen[key]), "yes" if as_told[key] else f"no: {told[key]}"] for key, found in sorted(rules.items())]
    header = ["rule", "says", "sets", "outcomes", "of networks that set no threshold", "as the tool tells"]
    table(f"Better / worse / same where a rule says so, by {what}", lines, header)
    return sum(not told for told in as_told.values())


def panel(arguments):
    """Compares the detector that the tool names with the better of dice(0.7) and energy, where test inputs are apart."""
    outcomes, rows, instead = defaultdict(Outcomes), [], None
    for network in networks(arguments.data, arguments.networks):
        name, training, test, head, sets = network.name, network.training, network.test, network.head, network.sets
        if training == test:
            continue
        instead = instead or diagnose(arguments, network, False)["forecast"]["instead"]
        with tempfile.TemporaryDirectory() as folder:
            fitted = pathlib.Path(folder) / "detectors.safetensors"
            specs = ["dice(0.7) | energy", "energy", instead["detector"]]
            chosen = [part for spec in specs for part in ("-d", spec)]
            run([arguments.dice, "fit", "--quiet", "--features", training, "--head", head, *chosen, "-o", fitted])
            files = [part for label, file in sorted(sets.items()) for part in ("--ood", f"{label}={file}")]
            report = json.loads(run([arguments.dice, "eval", fitted, "--id", test, *files, "--bootstrap", 0, "--format", "json", "--quiet"]))
        for label, *found in zip(sorted(sets), *[detector["sets"] for detector in report["detectors"]]):
            dice, energy, other = (one["auroc"] for one in found)
            distance = "near" if label in network.near else "far"
            outcomes[distance].add(other - max(dice, energy))
            rows.append([name, label, distance, *(f"{100 * auroc:.1f}" for auroc in (energy, dice, other))])
    table("AUROC", rows, ["network", "set", "", "energy", "dice(0.7)", instead["detector"]])
    lines = [[distance, str(found), "yes" if is_told(found, instead[distance]) else "no"] for distance, found in sorted(outcomes.items())]
    table("Better / worse / same than the better of energy and dice(0.7)", lines, ["sets", "outcomes", "as the tool tells"])
    return sum(not is_told(found, instead[distance]) for distance, found in outcomes.items())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--networks", type=pathlib.Path, nargs="*", default=[], metavar="FOLDER", help="networks that `train.py` made")
    parser.add_argument("--dice", type=pathlib.Path, default=pathlib.Path("target/release/dice"))
    parser.add_argument("--detector", default="dice(0.7) | energy")
    parser.add_argument("--check", action="store_true", help="fail where the tool tells other counts")
    parser.add_argument("--panel", action="store_true", help="compare the detector that the tool names in place of DICE")
    arguments = parser.parse_args()
    wrong = panel(arguments) if arguments.panel else sum(judge(arguments, stand_ins) for stand_ins in [False, True])
    if arguments.check and wrong:
        sys.exit(f"{wrong} counts that the tool tells are not those counted here")


if __name__ == "__main__":
    main()
