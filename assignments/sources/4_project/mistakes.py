"""Right answers in other words, and typical wrong ones with the points that they get. A test grades them all."""

from assignments._tools.mistakes import Mistake

# A report and a table that a student of another project might hand in. Everything in it is invented.
TABLE = """
RESULTS = {
    "data": {"images": 1310, "groups": 96, "gray": 4, "kept": 1306, "groups kept": 96, "largest group": 31, "near-gray share": 0.1118},
    "parts": {"training": (846, 61), "validation": (150, 11), "test": (310, 24)},
    "claim": {"difference": -0.0135, "low": -0.0201, "high": -0.0066, "survives": True},
    "rows": {
        "gray": {"eob@1": (0.1502, 0.1411, 0.1598), "eob@8": (0.1502, 0.1411, 0.1598), "variance@8": 0},
        "mean field": {"eob@1": (0.1467, 0.1388, 0.1549), "eob@8": (0.1467, 0.1388, 0.1549), "variance@8": 0},
        "k-means 8": {"eob@1": (0.1533, 0.1402, 0.1671), "eob@8": (0.1059, 0.0981, 0.1144), "variance@8": 0.0077},
        "model": {"eob@1": (0.1391, 0.1288, 0.1502), "eob@8": (0.0924, 0.0853, 0.0999), "variance@8": 0.0061},
    },
}
"""

REPORT = {
    "what": """Our botanical garden has thousands of black-and-white slides of flower beds. I ask whether a small network can propose
colors for such slides that are worth showing to the gardeners, who know what was planted. The claim, fixed on the day before I
opened the test part: with eight proposals the network comes nearer to the true colors of beds that it never saw than eight fixed
fields do. The rival is k-means with eight centers, the number is eob@8, and the difference is paired over beds.
I did not expect anything of the first proposal alone, because a bed can be red or yellow and nobody sees it in gray.""",
    "data": """I took all photographs myself, in the public garden, between May and July, and give them to the course under CC BY 4.0.
There are 1,310 photographs of 96 beds. A group is a bed and not a day: two photographs of one bed show the same flowers, also a week
later. 4 photographs were gray by the chroma test (a path in the rain) and were left out; 11 percent of the others are nearly gray,
mostly leaves. The similarity test found nine pairs across beds, all of which were hedges that look alike; I merged them all the same,
since a merged group does no harm. Three parts were drawn by bed: 846 photographs of 61 beds train, 150 of 11 choose, and the test part
has 310 photographs of 24 beds. Nothing was photographed at night, in autumn or indoors, no people are in the pictures, and trees are
hardly there. A flower that blooms in September was never seen by anything that I report.""",
    "method": """Everything runs on a free T4. The recipe for portraits was taken over with ten times the steps of the notebook (800, 1600
and 4000), batches of 16 and mirrored pictures; it took four minutes. Two things were chosen on the validation part: a factor on the
colors, among four, and whether pictures are mirrored. Neither choice has seen the test part, which I opened once, for the table. For
every photograph the eight proposals are sorted by weight, the error is the root mean square over the whole field, and the minimum is
taken over whole proposals. Intervals come from two thousand draws of beds with all their photographs. The baselines see the training
part only, and they are gray, the mean field, and eight cluster centers.""",
    "results": """On 310 photographs of 24 beds, in ab/128: the best of eight proposals has an error of 0.0924 (0.0853 to 0.0999), where
eight fixed fields have 0.1059 (0.0981 to 0.1144), the mean field 0.1467 and gray 0.1502. These intervals overlap, but the pictures are
the same, so the paired difference counts: it is -0.0135, from -0.0201 to -0.0066. The claim survives for these beds. The first
proposal alone has 0.1391 (0.1288 to 0.1502), which overlaps with both gray and the mean field; I compared no pair there and claim
nothing. The proposals vary a little less than the fixed fields (0.0061 and 0.0077), so the gain does not come from scattering wider.
What 24 beds of one garden in one summer say about other gardens is an open question.""",
    "failures": """Bed 17, photographs 212 to 214, shows blue larkspur. All eight proposals are violet or white, and the best error is the
largest of all. The same happens with the two other beds that are blue, number 40 and number 88. Blue is rare in the training part: I
counted three blue beds of 61. My explanation is rarity and not the network: rarity weights in the loss should help blue and nothing
else. If blue beds do not gain with them, or red ones lose more than the width of their interval, I am wrong. A second kind of failure
no number shows: the color of a petal bleeds into the leaf beside it, by one or two pixels, in nearly every proposal.""",
    "ethics": """The photographs are mine, and nobody is in them, so license and consent are simple. The harm lies in the use: the garden
wants to know what grew where in 1960, and a colored slide on a screen looks like an answer. A proposal could end up in the register
of plants as if somebody had seen it. Rare plants are served worst, and these are the ones that a register exists for; one notices by
measuring the error of each color by itself. Therefore I gave the gardeners eight proposals on one sheet with the gray slide in the
middle and the line "colors proposed by a program, not seen by anybody" printed across it, and no files.""",
    "next": """Rarity weights in the loss, because all three blue beds failed. I expect the mean error of blue beds to fall by a fifth,
and that of all beds to stay within its interval. If the blue ones do not improve, rarity is not the reason, and I would look at
whether blue and violet are told apart in gray at all, by training on blue and violet beds alone.""",
}

DIFFERENT = {
    "duplicates": """
def near_duplicates(gray, threshold):
    n, _, height, width = gray.shape
    v = gray.reshape(n, 8, height // 8, 8, width // 8).double().mean((2, 4)).reshape(n, 64).numpy()
    found = []
    for i in range(n):
        for j in range(i + 1, n):
            if min(np.ptp(v[i]), np.ptp(v[j])) > 0.001 and np.corrcoef(v[i], v[j])[0, 1] >= threshold:
                found.append((i, j))
    return torch.tensor(found, dtype=torch.int64).reshape(-1, 2)

def merged_groups(groups, pairs):
    parent = {}
    def top(g):
        while parent.get(g, g) != g:
            g = parent[g]
        return g
    for a, b in pairs:
        a, b = top(groups[int(a)]), top(groups[int(b)])
        parent[max(a, b)] = min(a, b)
    return [top(g) for g in groups]
""",
    "split": """
import random

def held_out(groups, share, seed):
    different = list(dict.fromkeys(sorted(groups)))
    n = round(share * len(different))
    n = 1 if n == 0 else len(different) - 1 if n == len(different) else n
    out = random.Random(seed).sample(different, n)
    return torch.as_tensor(np.isin(np.array(groups), out))
""",
    "statement": """
def data_statement(images, groups, gray_below, near_below):
    stays, faded, homes = 0, 0, {}
    for image, group in zip(images, groups):
        _, a, b = rgb_to_lab(image.movedim(2, 0))
        colorful = torch.hypot(a, b).mean().item()
        if colorful < gray_below:
            continue
        stays += 1
        faded += colorful < near_below
        homes[group] = homes.get(group, 0) + 1
    return dict([
        ("near-gray share", faded / stays), ("largest group", max(homes.values())), ("groups kept", len(homes)),
        ("kept", stays), ("gray", len(groups) - stays), ("groups", len({*groups})), ("images", images.shape[0]),
    ])
""",
    "scores": """
def heaviest(weights, k):
    return [sorted(range(len(row)), key=lambda j: -row[j])[:k] for row in weights.tolist()]

def error_of_best(outputs, weights, truth, k):
    best = []
    for own, target, chosen in zip(outputs, truth, heaviest(weights, k)):
        best.append(min((torch.linalg.vector_norm(own[j] - target) / target.numel() ** 0.5).item() for j in chosen))
    return torch.tensor(best)

def variance(outputs, weights, k):
    values = []
    for own, chosen in zip(outputs.double(), heaviest(weights, k)):
        some = own[chosen]
        values.append(((some**2).mean(0) - some.mean(0) ** 2).mean())
    return torch.stack(values)
""",
    "interval": """
import random

def group_interval(values, groups, rounds, seed):
    own = {}
    for value, group in zip(values.tolist(), groups):
        own.setdefault(group, []).append(value)
    totals = [(sum(each), len(each)) for each in own.values()]
    draw, means = random.Random(seed), []
    for _ in range(rounds):
        came = draw.choices(totals, k=len(totals))
        means.append(sum(t for t, _ in came) / sum(n for _, n in came))
    return tuple(torch.quantile(torch.tensor(means, dtype=torch.float64), torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist())
""",
    "paired": """
def paired_difference(first, second, groups, rounds, seed):
    people = {name: number for number, name in enumerate(set(groups))}
    member = torch.tensor([people[name] for name in groups])
    n = len(people)
    table = torch.zeros(n, 3, dtype=torch.float64)
    table.index_add_(0, member, torch.stack([first, second, torch.ones(len(first))], 1).double())
    drawn = torch.randint(n, (rounds, n), generator=torch.Generator().manual_seed(seed))
    one, other, count = table[drawn].sum(1).T
    ends = torch.quantile(one / count - other / count, torch.tensor([0.025, 0.975], dtype=torch.float64))
    return [(first.mean() - second.mean()).item(), ends[0].item(), ends[1].item()]
""",
    "claim": """
def claim(candidates, baseline, groups, validation, rounds, seed):
    inside = validation.numpy()
    names = np.array(groups)
    if np.intersect1d(names[inside], names[~inside]).size:
        raise ValueError("a group is in both parts")
    means = [float(row[validation].mean()) for row in candidates]
    best = means.index(min(means))
    test = torch.from_numpy(~inside)
    result = paired_difference(candidates[best][test], baseline[test], names[~inside].tolist(), rounds, seed)
    return [best, *result, bool(result[2] < 0)]
""",
    "baselines": """
def baselines(training, seed):
    x = training.flatten(1).numpy().astype(float)
    rng, best = np.random.default_rng(seed), (np.inf, None, None)
    for _ in range(20):
        c = x[rng.choice(len(x), 8, replace=False)]
        for _ in range(100):
            label = ((x[:, None] - c) ** 2).sum(2).argmin(1)
            new = np.stack([x[label == k].mean(0) if (label == k).any() else x[rng.integers(len(x))] for k in range(8)])
            if np.allclose(new, c):
                break
            c = new
        cost = ((x - c[label]) ** 2).sum()
        if cost < best[0]:
            best = (cost, c, label)
    _, c, label = best
    size = np.bincount(label, minlength=8)
    falling = np.argsort(-size)
    def field(a):
        return torch.tensor(a, dtype=torch.float32).reshape(-1, *training.shape[1:])
    return {
        "k-means 8": (field(c[falling]), torch.tensor(size[falling] / len(x))),
        "mean field": (field(x.mean(0)), torch.tensor([1.0])),
        "gray": (training[:1] * 0, torch.tensor([1.0])),
    }
""",
    "report": TABLE,
    **REPORT,
}

_DUPLICATES = """
def near_duplicates(gray, threshold):
    v = torch.nn.functional.adaptive_avg_pool2d(gray, 8).flatten(1)
    centered = v - v.mean(1, keepdim=True)
    unit = centered / centered.norm(dim=1, keepdim=True)
    flat = v.amax(1) - v.amin(1) < 0.001
    alike = unit @ unit.T >= threshold
    alike[flat] = False
    alike[:, flat] = False
    return alike.triu(1).nonzero()

def merged_groups(groups, pairs):
    groups = list(groups)
    for i, j in pairs.tolist():
        a, b = groups[i], groups[j]
        groups = [min(a, b) if g in (a, b) else g for g in groups]
    return groups
"""
_SPLIT = """
def held_out(groups, share, seed):
    names = sorted(set(groups))
    count = max(1, min(len(names) - 1, round(share * len(names))))
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed))
    out = [names[i] for i in order[:count]]
    return torch.tensor([g in out for g in groups])
"""
_STATEMENT = """
def data_statement(images, groups, gray_below, near_below):
    ab = rgb_to_lab(images.permute(0, 3, 1, 2))[:, 1:]
    chroma = (ab**2).sum(1).sqrt().mean((1, 2))
    kept = chroma >= gray_below
    left = [g for g, k in zip(groups, kept) if k]
    return {
        "images": len(images), "groups": len(set(groups)), "gray": int((chroma < gray_below).sum()), "kept": int(kept.sum()),
        "groups kept": len(set(left)), "largest group": max(left.count(g) for g in left),
        "near-gray share": float((kept & (chroma < near_below)).sum() / kept.sum()),
    }
"""
_SCORES = """
def error_of_best(outputs, weights, truth, k):
    e = ((outputs - truth[:, None]) ** 2).mean((2, 3, 4)).sqrt()
    order = torch.argsort(weights, dim=1, descending=True, stable=True)
    return torch.gather(e, 1, order)[:, :k].min(1).values

def variance(outputs, weights, k):
    order = torch.argsort(weights, dim=1, descending=True, stable=True)
    some = torch.stack([own[o[:k]] for own, o in zip(outputs, order)])
    return some.var(1, unbiased=False).mean((1, 2, 3))
"""
_INTERVAL = """
def group_interval(values, groups, rounds, seed):
    rng = np.random.default_rng(seed)
    x = values.double().numpy()
    _, member = np.unique(groups, return_inverse=True)
    sums = np.bincount(member, x)
    counts = np.bincount(member)
    d = rng.integers(len(sums), size=(rounds, len(sums)))
    means = sums[d].sum(1) / counts[d].sum(1)
    return tuple(np.quantile(means, [0.025, 0.975]))
"""
_PAIRED = """
def paired_difference(first, second, groups, rounds, seed):
    low, high = group_interval(first - second, groups, rounds, seed)
    return (first - second).mean().item(), low, high
"""
_CLAIM = """
def claim(candidates, baseline, groups, validation, rounds, seed):
    a = {g for g, v in zip(groups, validation) if v}
    test = ~validation
    b = [g for g, t in zip(groups, test) if t]
    if a & set(b):
        raise ValueError("leak")
    best = int(candidates[:, validation].mean(1).argmin())
    d, low, high = paired_difference(candidates[best][test], baseline[test], b, rounds, seed)
    return best, d, low, high, high < 0
"""
_BASELINES = """
def baselines(training, seed):
    shape = training.shape[1:]
    x = training.flatten(1)
    c = kmeans(x, 8, seed)
    label = torch.cdist(x, c).argmin(1)
    share = torch.bincount(label, minlength=8) / len(x)
    order = torch.argsort(share, descending=True)
    return {
        "gray": (torch.zeros(1, *shape), torch.ones(1)),
        "mean field": (training.mean(0)[None], torch.ones(1)),
        "k-means 8": (c[order].reshape(8, *shape), share[order]),
    }
"""


def _changed(code: str, *changes: tuple[str, str]) -> str:
    for old, new in changes:
        assert old in code, old
        code = code.replace(old, new)
    return code


MISTAKES = [
    Mistake(
        "duplicates",
        "the mean of a picture is not taken away",
        _changed(_DUPLICATES, ("centered = v - v.mean(1, keepdim=True)", "centered = v")),
        4,
        "was not taken away",
    ),
    Mistake(
        "duplicates",
        "not divided by the lengths",
        _changed(_DUPLICATES, (" / centered.norm(dim=1, keepdim=True)", "")),
        4,
        "not divided by the lengths",
    ),
    Mistake("duplicates", "every pair twice", _changed(_DUPLICATES, ("alike.triu(1)", "alike.fill_diagonal_(0)")), 3, "there twice"),
    Mistake(
        "duplicates",
        "each picture is like itself",
        _changed(_DUPLICATES, ("alike.triu(1)", "alike.triu()")),
        3,
        "like itself",
    ),
    Mistake(
        "duplicates",
        "flat pictures count",
        _changed(_DUPLICATES, ("    alike[flat] = False\n    alike[:, flat] = False\n", "")),
        5,
        "three flat pictures",
    ),
    Mistake(
        "duplicates",
        "no chains",
        _changed(
            _DUPLICATES,
            ("    groups = list(groups)\n", "    name = {g: g for g in groups}\n"),
            (
                "        groups = [min(a, b) if g in (a, b) else g for g in groups]\n    return groups",
                "        name[a] = name[b] = min(name[a], name[b])\n    return [name[g] for g in groups]",
            ),
        ),
        4,
        "must follow",
    ),
    Mistake(
        "duplicates",
        "only the two pictures are renamed",
        _changed(
            _DUPLICATES,
            ("groups = [min(a, b) if g in (a, b) else g for g in groups]", "groups[i] = groups[j] = min(a, b)"),
        ),
        3,
        "other pictures belong to them still",
    ),
    Mistake(
        "split",
        "pictures are split, not groups",
        """
def held_out(groups, share, seed):
    order = torch.randperm(len(groups), generator=torch.Generator().manual_seed(seed))
    out = torch.zeros(len(groups), dtype=torch.bool)
    out[order[: round(share * len(groups))]] = True
    return out
""",
        0,
        "whole groups are drawn, not pictures",
    ),
    Mistake(
        "split",
        "the order of the pictures decides",
        _changed(_SPLIT, ("sorted(set(groups))", "list(dict.fromkeys(groups))")),
        4,
        "only names and seed may decide",
    ),
    Mistake("split", "the seed is not used", _changed(_SPLIT, ("manual_seed(seed)", "manual_seed(0)")), 4, "the seed does not matter"),
    Mistake(
        "split",
        "drawn without the seed",
        _changed(_SPLIT, (", generator=torch.Generator().manual_seed(seed)", "")),
        3,
        "the second time",
    ),
    Mistake("split", "True for what stays", _changed(_SPLIT, ("g in out", "g not in out")), 2, "True means held out"),
    Mistake(
        "split",
        "nothing or all is held out of few groups",
        _changed(_SPLIT, ("max(1, min(len(names) - 1, round(share * len(names))))", "round(share * len(names))")),
        4,
        "nothing is held out",
    ),
    Mistake(
        "statement",
        "the chroma of the mean color",
        _changed(_STATEMENT, ("(ab**2).sum(1).sqrt().mean((1, 2))", "(ab.mean((2, 3))**2).sum(1).sqrt()")),
        1,
        "half red and half green",
    ),
    Mistake(
        "statement",
        "the spread of the bytes",
        _changed(
            _STATEMENT,
            (
                "(ab**2).sum(1).sqrt().mean((1, 2))",
                "(images.amax(3).float() - images.amin(3)).mean((1, 2))",
            ),
        ),
        4,
        "the spread of red",
    ),
    Mistake(
        "statement",
        "a share of all pictures",
        _changed(_STATEMENT, (".sum() / kept.sum())", ".sum() / len(images))")),
        4,
        "a share of all pictures",
    ),
    Mistake(
        "statement",
        "gray ones count as nearly gray",
        _changed(_STATEMENT, ("float((kept & (chroma < near_below)).sum() / kept.sum())", "float((chroma < near_below).float().mean())")),
        4,
        "gray pictures count as nearly gray",
    ),
    Mistake(
        "statement",
        "groups without a kept picture count",
        _changed(_STATEMENT, ('"groups kept": len(set(left))', '"groups kept": len(set(groups))')),
        3,
        "no picture is kept",
    ),
    Mistake(
        "statement",
        "gray pictures count for the largest group",
        _changed(_STATEMENT, ("max(left.count(g) for g in left)", "max(groups.count(g) for g in groups)")),
        3,
        "gray pictures count too",
    ),
    Mistake(
        "statement",
        "percent",
        _changed(_STATEMENT, ("float((kept &", "float(100 * (kept &")),
        4,
        "in percent",
    ),
    Mistake("scores", "the first k as they come", _changed(_SCORES, ("torch.gather(e, 1, order)", "e")), 5, "sorted by weight"),
    Mistake(
        "scores",
        "an oracle picks, whatever k is",
        _changed(_SCORES, ("torch.gather(e, 1, order)[:, :k]", "e")),
        2,
        "an oracle's pick is no single answer",
    ),
    Mistake(
        "scores",
        "the minimum at every pixel",
        _changed(
            _SCORES,
            ("((outputs - truth[:, None]) ** 2).mean((2, 3, 4)).sqrt()", "(outputs - truth[:, None]) ** 2"),
            (
                "torch.gather(e, 1, order)[:, :k].min(1).values",
                "torch.stack([own[o[:k]].amin(0).mean().sqrt() for own, o in zip(e, order)])",
            ),
        ),
        3,
        "at every pixel",
    ),
    Mistake(
        "scores",
        "the pooled root",
        _changed(_SCORES, (".min(1).values", ".min(1).values.square().mean().sqrt()")),
        2,
        "the pooled root",
    ),
    Mistake(
        "scores",
        "the minimum after the mean over the pictures",
        _changed(_SCORES, ("[:, :k].min(1).values", "[:, :k].mean(0).min()")),
        2,
        "average over the pictures first",
    ),
    Mistake(
        "scores",
        "the lightest first",
        _changed(
            _SCORES, ("order = torch.argsort(weights, dim=1, descending=True, stable=True)", "order = weights.argsort(dim=1, stable=True)")
        ),
        0,
        "not the heaviest",
    ),
    Mistake("scores", "divided by k - 1", _changed(_SCORES, (", unbiased=False", "")), 6, "divide by k - 1"),
    Mistake(
        "interval",
        "pictures are drawn",
        _changed(_INTERVAL, ("np.unique(groups, return_inverse=True)", "None, np.arange(len(x))")),
        0,
        "pictures are drawn and not groups",
    ),
    Mistake("interval", "90 percent", _changed(_INTERVAL, ("[0.025, 0.975]", "[0.05, 0.95]")), 1, "about 90 %"),
    Mistake(
        "interval",
        "one standard deviation to each side",
        _changed(_INTERVAL, ("tuple(np.quantile(means, [0.025, 0.975]))", "means.mean() - means.std(), means.mean() + means.std()")),
        0,
        "about 68 %",
    ),
    Mistake(
        "interval",
        "the mean of the groups' means",
        _changed(_INTERVAL, ("sums[d].sum(1) / counts[d].sum(1)", "(sums / counts)[d].mean(1)")),
        4,
        "mean of the groups' means",
    ),
    Mistake(
        "interval",
        "as many draws as pictures",
        _changed(_INTERVAL, ("size=(rounds, len(sums))", "size=(rounds, len(x))")),
        0,
        "or as many groups as there are pictures",
    ),
    Mistake(
        "interval",
        "drawn without replacement",
        _changed(_INTERVAL, ("rng.integers(len(sums), size=(rounds, len(sums)))", "np.stack([rng.permutation(len(sums))] * rounds)")),
        0,
        "draw with replacement",
    ),
    Mistake("interval", "the seed is not used", _changed(_INTERVAL, ("default_rng(seed)", "default_rng(1)")), 5, "is `seed` used"),
    Mistake(
        "paired",
        "drawn apart from each other",
        """
def paired_difference(first, second, groups, rounds, seed):
    names, member = np.unique(groups, return_inverse=True)
    rng, n, means = np.random.default_rng(seed), len(names), []
    counts = np.bincount(member)
    for errors in (first, second):
        drawn = rng.integers(n, size=(rounds, n))
        means.append(np.bincount(member, errors)[drawn].sum(1) / counts[drawn].sum(1))
    return (first.mean() - second.mean()).item(), *np.quantile(means[0] - means[1], [0.025, 0.975])
""",
        1,
        "drawn apart",
    ),
    Mistake("paired", "the sign", _changed(_PAIRED, ("first - second", "second - first")), 0, "the sign is wrong"),
    Mistake(
        "paired",
        "pictures are drawn",
        _changed(_PAIRED, ("group_interval(first - second, groups,", "group_interval(first - second, list(range(len(groups))),")),
        2,
        "pictures are drawn, not groups",
    ),
    Mistake(
        "paired",
        "the bounds of the first method alone",
        _changed(_PAIRED, ("group_interval(first - second,", "group_interval(first,")),
        1,
        "bounds of the first method",
    ),
    Mistake("paired", "a ratio", _changed(_PAIRED, ("(first - second).mean()", "(first.mean() / second.mean())")), 2, "this is a ratio"),
    Mistake("paired", "absolute differences", _changed(_PAIRED, ("first - second", "(first - second).abs()")), 0, "absolute differences"),
    Mistake(
        "claim",
        "chosen on the test part",
        _changed(_CLAIM, ("candidates[:, validation]", "candidates[:, test]")),
        4,
        "you choose on the test part",
    ),
    Mistake("claim", "chosen on all pictures", _changed(_CLAIM, ("candidates[:, validation]", "candidates")), 4, "you choose on all"),
    Mistake(
        "claim",
        "measured on all pictures",
        _changed(_CLAIM, ("candidates[best][test], baseline[test], b,", "candidates[best], baseline, groups,")),
        3,
        "only the test part may speak",
    ),
    Mistake("claim", "any difference below 0 is enough", _changed(_CLAIM, ("high, high < 0", "high, d < 0")), 4, "holds 0 survives"),
    Mistake(
        "claim",
        "an interval above 0 survives too",
        _changed(_CLAIM, ("high, high < 0", "high, high < 0 or low > 0")),
        4,
        "not only away from it",
    ),
    Mistake(
        "claim",
        "a leak goes unnoticed",
        _changed(_CLAIM, ('    if a & set(b):\n        raise ValueError("leak")\n', "")),
        4,
        "pictures in both parts, and it returned",
    ),
    Mistake(
        "baselines",
        "one color for the mean field",
        _changed(_BASELINES, ("training.mean(0)[None]", "training.mean((0, 2, 3), keepdim=True).expand(1, *shape)")),
        4,
        "one color for the whole picture",
    ),
    Mistake(
        "baselines",
        "gray is the mean color",
        _changed(_BASELINES, ("torch.zeros(1, *shape)", "training.mean((0, 2, 3), keepdim=True).expand(1, *shape)")),
        4,
        "gray is a = b = 0",
    ),
    Mistake(
        "baselines",
        "training fields in place of centers",
        _changed(_BASELINES, ("kmeans(x, 8, seed)", "x[:8]")),
        3,
        "your centers are training fields",
    ),
    Mistake(
        "baselines",
        "not sorted by size",
        _changed(_BASELINES, ("torch.argsort(share, descending=True)", "torch.argsort(c[:, 0] + 0 * share)")),
        4,
        "sort by size",
    ),
    Mistake("baselines", "equal weights", _changed(_BASELINES, ("share[order])", "torch.ones(8) / 8)")), 4, "all weights are equal"),
    Mistake("baselines", "counts", _changed(_BASELINES, ("share[order])", "share[order] * len(x))")), 4, "these are counts"),
    Mistake(
        "report",
        "an oracle's pick as the single answer",
        _changed(TABLE, ('"model": {"eob@1": (0.1391, 0.1288, 0.1502)', '"model": {"eob@1": (0.0924, 0.0853, 0.0999)')),
        3,
        "is an oracle's pick reported as a single answer",
    ),
    Mistake(
        "report",
        "the table is of a newer run than the report",
        _changed(
            TABLE,
            ('"eob@8": (0.0924, 0.0853, 0.0999)', '"eob@8": (0.0893, 0.0821, 0.0967)'),
            ("-0.0135", "-0.0166"),
        ),
        5,
        "an older run",
    ),
    Mistake("report", "no baseline", _changed(TABLE, ('"k-means 8": {', '"kmeans": {')), 1, "`k-means 8` is missing"),
    Mistake(
        "report", "an interval that holds 0 survives", _changed(TABLE, ('"high": -0.0066', '"high": 0.0066')), 4, "yours says otherwise"
    ),
    Mistake(
        "report",
        "a group is in two parts",
        _changed(TABLE, ('"test": (310, 24)', '"test": (310, 31)')),
        3,
        "some group is in two of them",
    ),
    Mistake(
        "report",
        "a section is missing",
        _changed(TABLE, ("0.1118", "0.112")),
        5,
        "too short: ethics",
        words={"ethics": "No people, no problem."},
    ),
    Mistake(
        "report",
        "the data in words without counts",
        _changed(TABLE, ("0.1118", "0.1117")),
        5,
        "is not in the data section",
        words={"data": REPORT["data"].replace("96 beds", "many beds")},
    ),
]
