"""Single methods and panels as detectors of `dice`, and weights of recipe B."""

import numpy as np

SIGNED = 0.01
TAIL = 0.05


def by(name, facts):
    """Class means by label, or by predicted class where rows have no labels."""
    return name if facts["labels"] else f"{name}(by=prediction)"


def guide(facts):
    """A bank of a hundredth of the rows as published, but of no fewer than a hundred."""
    return f"nnguide(10, alpha={min(1, max(0.01, 100 / facts['rows'])):.3g})"


def singles(facts):
    """Published single methods, at the parameters of their papers or of OpenOOD."""
    half, few = facts["units"] // 2, min(50, facts["units"] // 2)
    logits = ["energy", "msp", "max-logit", "entropy", "gen", "doctor", "gradnorm", "kl-matching"]
    shaped = [f"{shaping} | energy" for shaping in ("react(0.99)", "ash-s(0.9)", "ash-b(0.65)", "scale(0.85)", "vra", "ras", "dice(0.7)", "dice(0.9)")]
    features = ["lts", "fdbd", "nci", "max-cosine", *templates(facts), "vim", f"residual({half})", "knn(50)", guide(facts), "pnml"]
    means = [by(name, facts) for name in ("core", "mds", "mds++", "rmds", "rmds++")]
    labelled = ["openmax(20)", "she", "ora"] if facts["labels"] else []
    return logits + shaped + features + means + labelled + [f"neco({few})", "relation", "gmm(3)"]


def templates(facts):
    """`dice` refuses methods that need the mean of the predicted class, whichever that is, where a class has no row."""
    return ["caref", "cadref"] if facts["every_class"] else []


def family(facts):
    """The members of F5: one score a family."""
    return ["lts", "nci", by("mds", facts), "vim", by("core", facts)]


def evidence(members, rule="evidence"):
    return f"{rule}({', '.join(members)})"


def without(members, *names):
    return [member for member in members if member.split("(")[0] not in names]


def panels(facts):
    """Names and detectors. Those behind F5 change one thing of it."""
    five, signed = family(facts), facts["negative"] >= SIGNED
    mds, better, core = by("mds", facts), by("mds++", facts), by("core", facts)
    units, caref = facts["units"], templates(facts)[:1]
    changed = {
        "F5": five,
        "A3": ["lts", "fdbd", "pnml"],
        "A5": ["lts", "fdbd", "pnml", "nci", better],
        "F5 + knn": [*five, "knn(50)"],
        "F5 + caref": [*five, *caref],
        "F5 + mds++": [*five, better],
        "F5 + pnml": [*five, "pnml"],
        "F5 + residual": [*five, f"residual({units // 2})"],
        "F5 + knn + caref": [*five, "knn(50)", *caref],
        "F5 + knn + mds++": [*five, "knn(50)", better],
        "F5 + max-cosine": [*five, "max-cosine"],
        "F5 - vim": without(five, "vim"),
        "F5 - mds": without(five, "mds"),
        "F5 - core": without(five, "core"),
        "F5 - nci": without(five, "nci"),
        "F5 - lts": without(five, "lts"),
        "F5, pnml for vim": ["lts", "nci", "pnml", mds, core],
        "F5, mds++ for mds": ["lts", "nci", better, "vim", core],
        "F5, knn for mds": ["lts", "nci", "knn(50)", "vim", core],
        "F5, energy for lts": ["energy", "nci", mds, "vim", core],
        "F5, vim of a quarter": ["lts", "nci", mds, f"vim({max(1, units // 4)})", core],
        "F5, vim of half": ["lts", "nci", mds, f"vim({units // 2})", core],
        "F5, no lts if signed": without(five, "lts") if signed else five,
        "F5, trio if signed": ["fdbd", mds, "vim"] if signed else five,
        "F5 + knn, no lts if signed": [*(without(five, "lts") if signed else five), "knn(50)"],
    }
    named = {name: evidence(members) for name, members in changed.items()}
    named.update({f"{name} by fisher": evidence(changed[name], "fisher") for name in ("F5", "A3")})
    return named


def pools(facts):
    """Members that recipe B weighs."""
    return {
        "F5 by B": family(facts),
        "F5 + 3 by B": [*family(facts), "energy", "pnml", "knn(50)"],
        "B12": ["gen", "react(0.99) | energy", "max-cosine", "lts", "lts(0.15)", "fdbd", guide(facts), "pnml", by("mds++", facts), *templates(facts)[:1], "vim", "knn(50)"],
    }


def weighted(members, weights):
    return evidence([f"{member}*{weight:.3f}" for member, weight in zip(members, weights) if weight >= 0.0005])


def votes(reference, scores):
    """Evidence against inputs, as the combination `evidence` counts it."""
    reference = np.sort(reference)
    count = len(reference)
    place = max(5, int(TAIL * count))
    start = reference[place - 1]
    mean = max((start - reference[: place - 1]).mean(), 1e-12)
    ranked = -np.log((1 + np.searchsorted(reference, scores, side="right")) / (count + 1))
    return np.where(scores >= start, ranked, -np.log(place / count) + (start - scores) / mean)


def apart(votes, others):
    """AUROC of others against in-distribution rows."""
    ordered = np.sort(votes)
    below, to = (np.searchsorted(ordered, others, side=side) for side in ("left", "right"))
    return float((below + to).mean() / (2 * len(ordered)))


def separable(known, sets):
    """The stand-ins that some member tells apart: in-distribution inputs may be invariant to the others."""
    return {name: rows for name, rows in sets.items() if max(apart(a, b) for a, b in zip(known, rows)) >= 0.6}


def slope(weights, known, sets):
    """The derivative [members] of the mean log-odds of the smoothed rates at which stand-ins are accepted."""
    sums = weights @ known
    row = np.argsort(sums)[int(0.95 * len(sums))]
    size = max(sums.std(), 1e-12)
    size_slope = (known - known.mean(1, keepdims=True)) @ (sums - sums.mean()) / (len(sums) * size)
    total = np.zeros(len(weights))
    for rows in sets:
        apart = (sums[row] - weights @ rows) / (0.3 * size)
        accepted = 1 / (1 + np.exp(-np.clip(apart, -50, 50)))
        rate = accepted.mean()
        if 0.002 < rate < 0.998:
            steep = accepted * (1 - accepted)
            part = known[:, row] * steep.mean() - rows @ steep / len(steep) - 0.3 * size_slope * (steep * apart).mean()
            total += part / (0.3 * size) / (rate * (1 - rate))
    return total / max(len(sets), 1)


def weigh(known, sets, steps=300, rate=0.06):
    """Weights [members], of mean 1, by recipe B: known [members, N], sets of [members, n], all evidence against inputs."""
    known = np.minimum(known, 30)
    logs, first, second = (np.zeros(len(known)) for _ in range(3))
    for step in range(1, steps + 1):
        weights = softmax(logs)
        change = slope(weights, known, sets)
        change = weights * (change - weights @ change)
        first, second = 0.9 * first + 0.1 * change, 0.999 * second + 0.001 * change**2
        logs -= rate * first / (1 - 0.9**step) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    return softmax(logs) * len(known)


def softmax(logs):
    parts = np.exp(logs - logs.max())
    return parts / parts.sum()
