"""Right answers in other words, and typical wrong ones with the points that they get. A test grades them all."""

from assignments._tools.mistakes import Mistake

DIFFERENT = {
    "lab": """
import numpy as np

def rgb_to_lab(rgb):
    c = rgb.numpy().copy()
    dark = c <= 0.04045
    light = np.empty_like(c)
    light[dark] = c[dark] / 12.92
    light[~dark] = np.power((c[~dark] + 0.055) / 1.055, 2.4)
    x, y, z = (light @ M.numpy().T / M.numpy().sum(1)).T
    def f(t):
        return np.where(t > 216 / 24389, np.cbrt(t), (24389 / 27 * t + 16) / 116)
    return torch.from_numpy(np.column_stack([116 * f(y) - 16, 500 * (f(x) - f(y)), 200 * (f(y) - f(z))]))
""",
    "back": """
def lab_to_rgb(lab):
    L, a, b = lab.T
    y = (L + 16) / 116
    parts = []
    for r, white in zip((y + a / 500, y, y - b / 200), M.sum(1)):
        t = r.clone() ** 3
        low = r <= DELTA
        t[low] = (r[low] - 16 / 116) * 108 / 841
        parts.append(t * white)
    light = torch.linalg.solve(M, torch.stack(parts))
    out = light * 12.92
    high = light > 0.0031308
    out[high] = 1.055 * light[high].pow(1 / 2.4) - 0.055
    return out.T
""",
    "gamut": """
def most_chroma(L, hue):
    c = torch.zeros_like(L)
    step = 75.0
    while step > 1e-4:
        further = c + step
        rgb = lab_to_rgb(torch.column_stack([L, further * torch.cos(hue), further * torch.sin(hue)]))
        inside = (rgb.amin(1) >= -1e-6) & (rgb.amax(1) <= 1 + 1e-6)
        c = torch.where(inside, further, c)
        step /= 2
    return c
""",
    "bins": """
import math

def bin_centers(ab, grid):
    found = set()
    for a, b in ab.tolist():
        found.add(tuple(-math.floor((grid / 2 - value) / grid) * grid for value in (a, b)))
    return torch.tensor(sorted(found), dtype=ab.dtype)

def bin_index(ab, centers):
    out = torch.empty(len(ab), dtype=torch.int64)
    for start in range(0, len(ab), 2000):
        part = ab[start : start + 2000]
        out[start : start + 2000] = ((part[:, :1] - centers[:, 0]).square() + (part[:, 1:] - centers[:, 1]).square()).min(1).indices
    return out
""",
    "prior": """
def prior(batches, centers, uniform):
    index = bin_index(torch.cat(list(batches)), centers)
    hits = torch.nn.functional.one_hot(index, len(centers)).double().mean(0)
    return torch.lerp(hits, torch.full_like(hits, 1 / len(centers)), uniform)
""",
    "smooth": """
def smooth(p, centers, sigma):
    if not sigma > 0:
        return p.clone()
    log_kernel = -0.5 * torch.cdist(centers, centers).div(sigma).square()
    return torch.softmax(torch.logsumexp(log_kernel + p.log(), dim=1), dim=0)
""",
    "rarity": """
def rarity(p, centers, mix, sigma):
    q = smooth(p, centers, sigma)
    w = torch.reciprocal(torch.lerp(q, torch.ones_like(q) / q.numel(), mix))
    return w / torch.dot(q, w)
""",
    "loss": """
def weighted_loss(predicted, true, centers, weights):
    total = 0
    for guess, image in zip(predicted, true):
        weight = weights[bin_index(image, centers)]
        total = total + torch.einsum("p,pc,pc->", weight, guess - image, guess - image)
    return total / len(predicted)
""",
}

_LAB = """
def rgb_to_lab(rgb):
    light = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    share = light @ M.T / M.sum(1)
    root = torch.where(share > DELTA**3, share ** (1 / 3), share / (3 * DELTA**2) + 4 / 29)
    fx, fy, fz = root.T
    return torch.stack([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)], dim=1)
"""
_BACK = """
def lab_to_rgb(lab):
    fy = (lab[:, 0] + 16) / 116
    root = torch.stack([fy + lab[:, 1] / 500, fy, fy - lab[:, 2] / 200], dim=1)
    share = torch.where(root > DELTA, root**3, 3 * DELTA**2 * (root - 4 / 29))
    light = (share * M.sum(dim=1)) @ torch.linalg.inv(M).T
    power = 1.055 * light.clamp(min=0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(light <= 0.0031308, 12.92 * light, power)
"""
_GAMUT = """
def most_chroma(L, hue):
    low, high = torch.zeros_like(L), torch.full_like(L, 150)
    for _ in range(20):
        c = (low + high) / 2
        rgb = lab_to_rgb(torch.stack([L, c * hue.cos(), c * hue.sin()], dim=1))
        shown = ((rgb >= -1e-6) & (rgb <= 1 + 1e-6)).all(dim=1)
        low, high = torch.where(shown, c, low), torch.where(shown, high, c)
    return low
"""
_BINS = """
def bin_centers(ab, grid):
    return torch.unique(((ab - grid / 2) / grid).ceil() * grid, dim=0)

def bin_index(ab, centers):
    exact = "donot_use_mm_for_euclid_dist"
    return torch.cat([torch.cdist(part, centers, compute_mode=exact).argmin(1) for part in ab.split(5000)])
"""
_PRIOR = """
def prior(batches, centers, uniform):
    count = sum(torch.bincount(bin_index(batch, centers), minlength=len(centers)) for batch in batches)
    return (1 - uniform) * count / count.sum() + uniform / len(centers)
"""
_SMOOTH = """
def smooth(p, centers, sigma):
    if sigma == 0:
        return p
    kernel = torch.exp(-((centers[:, None] - centers) ** 2).sum(2) / (2 * sigma**2))
    return kernel @ p / (kernel @ p).sum()
"""
_RARITY = """
def rarity(p, centers, mix, sigma):
    q = smooth(p, centers, sigma)
    raw = 1 / ((1 - mix) * q + mix / len(q))
    return raw / (q * raw).sum()
"""
_LOSS = """
def weighted_loss(predicted, true, centers, weights):
    weight = weights[bin_index(true.reshape(-1, 2), centers)].view(true.shape[:2])
    return (weight * ((predicted - true) ** 2).sum(dim=2)).sum(dim=1).mean()
"""


def _changed(code: str, *changes: tuple[str, str]) -> str:
    for old, new in changes:
        assert old in code, old
        code = code.replace(old, new)
    return code


_DARK = "light = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)"

MISTAKES = [
    Mistake("lab", "the sRGB curve is not undone", _changed(_LAB, (_DARK, "light = rgb")), 3, "0.5 is a code, not half of the light"),
    Mistake("lab", "the power 2.2 for the sRGB curve", _changed(_LAB, (_DARK, "light = rgb ** 2.2")), 3, "power 2.2"),
    Mistake(
        "lab",
        "the cube root everywhere",
        _changed(_LAB, ("torch.where(share > DELTA**3, share ** (1 / 3), share / (3 * DELTA**2) + 4 / 29)", "share ** (1 / 3)")),
        10,
        "black becomes -16",
    ),
    Mistake("lab", "not divided by white", _changed(_LAB, (" / M.sum(1)", "")), 0, "not divided by those of white"),
    Mistake("lab", "the sign of a", _changed(_LAB, ("500 * (fx - fy)", "500 * (fy - fx)")), 3, "a has the wrong sign"),
    Mistake(
        "lab",
        "the argument is changed in place",
        _changed(
            _LAB,
            (
                _DARK,
                "dark = rgb <= 0.04045\n    rgb[dark] /= 12.92\n    rgb[~dark] = ((rgb[~dark] + 0.055) / 1.055) ** 2.4\n    light = rgb",
            ),
        ),
        14,
        "in place",
    ),
    Mistake(
        "back",
        "the result is clipped",
        _changed(
            _BACK,
            (
                "return torch.where(light <= 0.0031308, 12.92 * light, power)",
                "return torch.where(light <= 0.0031308, 12.92 * light, power).clamp(0, 1)",
            ),
        ),
        12,
        "you clip",
    ),
    Mistake(
        "back",
        "the third power everywhere",
        _changed(_BACK, ("torch.where(root > DELTA, root**3, 3 * DELTA**2 * (root - 4 / 29))", "root**3")),
        6,
        "third power everywhere",
    ),
    Mistake(
        "back",
        "light is returned",
        _changed(_BACK, ("return torch.where(light <= 0.0031308, 12.92 * light, power)", "return light")),
        2,
        "the sRGB curve of the last step is missing",
    ),
    Mistake(
        "back",
        "NaN for negative light",
        _changed(_BACK, ("torch.where(light <= 0.0031308, 12.92 * light, power)", "power"), ("light.clamp(min=0.0031308)", "light")),
        6,
        "no power of 1/2.4",
    ),
    Mistake(
        "back",
        "the inverse is not transposed",
        _changed(_BACK, ("torch.linalg.inv(M).T", "torch.linalg.inv(M)")),
        0,
        "has to be transposed",
    ),
    Mistake(
        "back", "the X, Y, Z of white are missing", _changed(_BACK, ("(share * M.sum(dim=1))", "share")), 0, "Lab knows parts of white"
    ),
    Mistake(
        "gamut",
        "degrees",
        _changed(_GAMUT, ("hue.cos()", "torch.deg2rad(hue).cos()"), ("hue.sin()", "torch.deg2rad(hue).sin()")),
        2,
        "taken for degrees",
    ),
    Mistake("gamut", "only values above 1 count", _changed(_GAMUT, ("(rgb >= -1e-6) & ", "")), 0, "below 0 no screen"),
    Mistake("gamut", "eight halvings", _changed(_GAMUT, ("range(20)", "range(8)")), 2, "halve more often"),
    Mistake(
        "gamut",
        "cosine and sine exchanged",
        _changed(_GAMUT, ("hue.cos()", "hue.tmp()"), ("hue.sin()", "hue.cos()"), ("hue.tmp()", "hue.sin()")),
        2,
        "cosine and sine are exchanged",
    ),
    Mistake("gamut", "one of three values is enough", _changed(_GAMUT, (".all(dim=1)", ".any(dim=1)")), 0, "all three values"),
    Mistake(
        "gamut",
        "the search goes the wrong way",
        _changed(
            _GAMUT, ("torch.where(shown, c, low), torch.where(shown, high, c)", "torch.where(shown, low, c), torch.where(shown, c, high)")
        ),
        0,
        "chroma is",
    ),
    Mistake("bins", "floor", _changed(_BINS, ("((ab - grid / 2) / grid).ceil()", "(ab / grid).floor()")), 10, "lower left corner"),
    Mistake("bins", "round", _changed(_BINS, ("((ab - grid / 2) / grid).ceil()", "(ab / grid).round()")), 13, "the even neighbor"),
    Mistake(
        "bins",
        "one table for everything",
        _changed(
            _BINS,
            (
                "torch.cat([torch.cdist(part, centers, compute_mode=exact).argmin(1) for part in ab.split(5000)])",
                "((ab[:, None] - centers) ** 2).sum(2).argmin(1)",
            ),
        ),
        13,
        "memory",
    ),
    Mistake(
        "bins",
        "unsorted, and one row for each color",
        _changed(_BINS, ("torch.unique(((ab - grid / 2) / grid).ceil() * grid, dim=0)", "((ab - grid / 2) / grid).ceil() * grid")),
        8,
        "one row for each color",
    ),
    Mistake(
        "bins",
        "distances along the axes",
        _changed(_BINS, ("compute_mode=exact", "p=1")),
        9,
        "as the crow flies",
    ),
    Mistake(
        "bins",
        "the last of equally near centers",
        _changed(
            _BINS,
            (
                "torch.cdist(part, centers, compute_mode=exact).argmin(1)",
                "len(centers) - 1 - torch.cdist(part, centers.flip(0), compute_mode=exact).argmin(1)",
            ),
        ),
        13,
        "the first one is",
    ),
    Mistake(
        "prior",
        "the batches are averaged",
        """
def prior(batches, centers, uniform):
    each = [torch.bincount(bin_index(b, centers), minlength=len(centers)) / len(b) for b in batches]
    return (1 - uniform) * torch.stack(each).double().mean(0) + uniform / len(centers)
""",
        5,
        "average the batches",
    ),
    Mistake("prior", "no minlength", _changed(_PRIOR, (", minlength=len(centers)", "")), 0, "without `minlength`"),
    Mistake("prior", "the uniform share on top", _changed(_PRIOR, ("(1 - uniform) * ", "")), 6, "the sum is above one"),
    Mistake("prior", "counts", _changed(_PRIOR, (" / count.sum()", "")), 0, "these are counts"),
    Mistake(
        "prior",
        "the shares exchanged",
        _changed(
            _PRIOR,
            (
                "(1 - uniform) * count / count.sum() + uniform / len(centers)",
                "uniform * count / count.sum() + (1 - uniform) / len(centers)",
            ),
        ),
        0,
        "the two shares are exchanged",
    ),
    Mistake(
        "prior",
        "only the last batch",
        """
def prior(batches, centers, uniform):
    for batch in batches:
        count = torch.bincount(bin_index(batch, centers), minlength=len(centers))
    return (1 - uniform) * count / count.sum() + uniform / len(centers)
""",
        5,
        "only the last batch",
    ),
    Mistake("smooth", "not scaled", _changed(_SMOOTH, (" / (kernel @ p).sum()", "")), 2, "does not sum to one"),
    Mistake("smooth", "the distance is not squared", _changed(_SMOOTH, (".sum(2) /", ".sum(2).sqrt() /")), 2, "it should take its square"),
    Mistake(
        "smooth", "sigma = 0 divides by zero", _changed(_SMOOTH, ("    if sigma == 0:\n        return p\n", "")), 5, "sigma = 0 gives NaN"
    ),
    Mistake("smooth", "the 2 is missing", _changed(_SMOOTH, ("(2 * sigma**2)", "sigma**2")), 2, "by twice of it is due"),
    Mistake(
        "smooth",
        "rows scaled to one",
        _changed(_SMOOTH, ("return kernel @ p / (kernel @ p).sum()", "return kernel / kernel.sum(1, keepdim=True) @ p")),
        2,
        "the sum of the result is to be one",
    ),
    Mistake("smooth", "sigma is not squared", _changed(_SMOOTH, ("(2 * sigma**2)", "(2 * sigma)")), 2, "by 2 sigma squared"),
    Mistake("rarity", "no scale", _changed(_RARITY, (" / (q * raw).sum()", "")), 1, "the scale is missing"),
    Mistake("rarity", "a mean of one over the bins", _changed(_RARITY, ("/ (q * raw).sum()", "/ raw.mean()")), 2, "one over the bins"),
    Mistake(
        "rarity",
        "mix exchanged",
        _changed(_RARITY, ("(1 - mix) * q + mix / len(q)", "mix * q + (1 - mix) / len(q)")),
        2,
        "the two shares are exchanged",
    ),
    Mistake("rarity", "not blurred", _changed(_RARITY, ("smooth(p, centers, sigma)", "p")), 2, "not blurred"),
    Mistake("rarity", "the scale taken with p", _changed(_RARITY, ("/ (q * raw).sum()", "/ (p * raw).sum()")), 2, "with the blurred p"),
    Mistake("rarity", "plain inverses", _changed(_RARITY, ("1 / ((1 - mix) * q + mix / len(q))", "1 / q")), 1, "plain inverses"),
    Mistake("loss", "the mean over the pixels", _changed(_LOSS, (".sum(dim=1).mean()", ".mean()")), 0, "mean over the pixels"),
    Mistake(
        "loss",
        "the weights of the guess",
        _changed(_LOSS, ("weights[bin_index(true.", "weights[bin_index(predicted.")),
        2,
        "those of the guess",
    ),
    Mistake("loss", "a plain number", _changed(_LOSS, (".sum(dim=1).mean()", ".sum(dim=1).mean().item()")), 6, "no gradient reaches"),
    Mistake("loss", "the distance is not squared", _changed(_LOSS, (".sum(dim=2))", ".sum(dim=2).sqrt())")), 2, "not squared"),
    Mistake("loss", "the sum over the images", _changed(_LOSS, (".sum(dim=1).mean()", ".sum()")), 0, "sum over the images"),
    Mistake(
        "loss",
        "no weights",
        _changed(_LOSS, ("(weight * ((predicted - true) ** 2).sum(dim=2))", "((predicted - true) ** 2).sum(dim=2)")),
        2,
        "do not enter",
    ),
]
