"""Tables of what `compare.py` measured."""

import dataclasses

import numpy as np

# Distortions that recipe B leaves out: uniform noise and flat colour are told apart by anything.
UNUSED = {"noise", "flat", "invert", "jig4"}
# Networks that are left out together: nearly the same network, or the same data.
KIN = [{"mbv2", "dia"}, {"language", "grams"}, {"plain", "transformer"}]

# The panel of `auto`; networks with a class that no row is of have F5.
AUTO = "F5 + caref"


@dataclasses.dataclass
class Found:
    """What was measured on a network: `results[recipe][set]` is FPR95 and AUROC in percent."""

    network: object
    first: dict
    results: dict
    splits: int

    def fpr(self, recipe, sets=None):
        return float(np.mean([self.results[recipe][name][0] for name in sets or self.network.sets]))

    @property
    def singles(self):
        return self.first["singles"]

    def oracle(self, name):
        """The lowest FPR95 of the single methods on a set."""
        return min(self.results[single][name][0] for single in self.singles)

    def regret(self, recipe, name):
        return float(self.results[recipe][name][0] - self.oracle(name))


def table(header, rows):
    def line(cells):
        return "| " + " | ".join(cell.replace("|", "\\|") if isinstance(cell, str) else f"{cell:.1f}" for cell in cells) + " |"

    return "\n".join([line(header), "|" + "---|" * len(header), *map(line, rows)])


def shared_singles(found):
    """Single methods measured on all networks: those that need labels are not."""
    return [name for name in next(iter(found.values())).singles if all(name in each.results for each in found.values())]


def short(name):
    """Arguments of these depend on the network; the name stands for the method."""
    method = name.split("(")[0]
    return method if method in ("residual", "neco", "nnguide") else name


def common(found):
    """Names that stand for the same method of each network."""
    for each in found.values():
        each.results = {short(name): values for name, values in each.results.items()}
        each.first["singles"] = [short(name) for name in each.singles]


def recipes_of(found):
    first = next(iter(found.values()))
    return [name for name in first.results if name not in {single for each in found.values() for single in each.singles}]


def overall(found, recipe):
    return float(np.mean([each.fpr(recipe) for each in found.values()]))


def side(found, recipe, near):
    """The mean over networks that have near (or far) sets."""
    parts = [[name for name in each.network.sets if (name in each.network.near) == near] for each in found.values()]
    rates = [each.fpr(recipe, sets) for each, sets in zip(found.values(), parts) if sets]
    return float(np.mean(rates)) if rates else float("nan")


def regrets(found, recipe):
    return {(name, of): each.regret(recipe, of) for name, each in found.items() for of in each.network.sets}


def means(found, names):
    rows = []
    for recipe in sorted(names, key=lambda name: overall(found, name)):
        lost = regrets(found, recipe)
        worst = max(lost, key=lost.get)
        rows.append([recipe, overall(found, recipe), side(found, recipe, True), side(found, recipe, False), float(np.mean(list(lost.values()))), lost[worst], "/".join(worst)])
    return table(["detector", "mean", "near", "far", "mean regret", "worst regret", "there"], rows)


def by_network(found, names):
    oracle = ["oracle", *(float(np.mean([each.oracle(of) for of in each.network.sets])) for each in found.values())]
    rows = [oracle + [float(np.mean(oracle[1:]))]]
    rows += [[name, *(each.fpr(name) for each in found.values()), overall(found, name)] for name in names]
    return table(["detector", *found, "mean"], rows)


def by_set(found, names, single):
    rows = []
    for name, each in found.items():
        for of in each.network.sets:
            best = min(each.singles, key=lambda recipe: each.results[recipe][of][0])
            values = [float(each.results[recipe][of][0]) for recipe in (*names, single)]
            kind = "near" if of in each.network.near else "far"
            rows.append([name, of, kind, each.oracle(of), best, *values, each.regret(names[0], of)])
    return table(["network", "set", "is", "oracle", "by", *names, single, f"regret of {names[0]}"], rows)


def kin(name):
    return next((group for group in KIN if name in group), {name})


def left_out(found, names):
    """For each network: the recipe of the lowest mean on networks not akin to it, and what it gives there."""
    rows = []
    for name, each in found.items():
        others = {other: of for other, of in found.items() if other not in kin(name)}
        chosen = min(names, key=lambda recipe: overall(others, recipe))
        rows.append([name, chosen, each.fpr(chosen), max(each.regret(chosen, of) for of in each.network.sets)])
    rows.append(["mean, worst", "", float(np.mean([row[2] for row in rows])), max(row[3] for row in rows)])
    return table(["left out", "chosen on the others", "mean FPR95", "worst regret"], rows)


def difference(found, one, other):
    """Mean over networks of the difference, with its standard error."""
    values = [each.fpr(one) - each.fpr(other) for each in found.values()]
    error = float(np.std(values, ddof=1) / len(values) ** 0.5) if len(values) > 1 else float("nan")
    return [one, float(np.mean(values)), error, f"{sum(value < 0 for value in values)} of {len(values)}"]


def shapes(found):
    rows = []
    for name, each in found.items():
        facts = each.first["facts"]
        rows.append([name, f"{facts['units']}, {facts['classes']}", f"{facts['rows']}", f"{100 * facts['negative']:.0f} %", "yes" if facts["labels"] else "no", f"{len(each.network.sets)}", f"{len(each.network.near)}", f"{each.splits}"])
    return table(["network", "D, C", "rows fitted", "negative", "labels", "sets", "near", "splits"], rows)


def everything(found):
    common(found)
    panels, single = recipes_of(found), shared_singles(found)
    best = min(single, key=lambda name: overall(found, name))
    weighed = [name for name in panels if "by B" in name or name == "B12"]
    with_standins = {name: each for name, each in found.items() if each.network.standins}
    parts = [
        "## Networks", shapes(found),
        "## Panels", means(found, panels),
        "## Single methods", means(found, single),
        *(f"mean({name}) / mean({best}) = {overall(found, name):.2f} / {overall(found, best):.2f} = {overall(found, name) / overall(found, best):.3f}" for name in (AUTO, "F5")),
        "## By network", by_network(found, [AUTO, "F5", "A3", "A5", *weighed, best, "dice(0.7) | energy", "dice(0.9) | energy", "energy"]),
        "## By set", by_set(found, [AUTO, "F5", "F5 + knn"], best),
        "## Leave one network out: any panel with equal weights", left_out(found, [name for name in panels if name not in weighed]),
        "## Leave one network out: a single method", left_out(found, single),
        "## Changes of F5, by network", table(["panel", "difference to F5", "standard error", "better on"], [difference(found, name, "F5") for name in panels if name != "F5"]),
    ]
    if with_standins:
        parts += ["## Weights on stand-ins, where there are some", means(with_standins, ["F5", *weighed]), left_out(with_standins, ["F5", *weighed])]
    return "\n\n".join(parts)
