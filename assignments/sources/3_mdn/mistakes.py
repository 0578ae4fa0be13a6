"""Right answers in other words, and typical wrong ones with the points that they get. A test grades them all."""

from assignments._tools.mistakes import Mistake

DIFFERENT = {
    "logsumexp": """
def log_sum_exp(a, dim):
    # One number after the other; what was summed so far is kept as a largest number and a factor.
    top = total = None
    for part in a.unbind(dim):
        if top is None:
            top, total = part, torch.isfinite(part).to(a.dtype)
            continue
        new = torch.maximum(top, part)
        base = torch.where(new == -math.inf, 0.0, new).detach()
        total = total * torch.exp(torch.where(top == -math.inf, -math.inf, top) - base) + torch.exp(part - base)
        top = base
    return top + torch.log(total) if a.shape[dim] > 1 else a.select(dim, 0)
""",
    "parameters": """
def parameters(out, K, floor):
    rows = out.reshape(len(out) * K, -1)
    half = (rows.shape[1] - 1) // 2
    raw = rows[:, 1 + half :]
    positive = torch.maximum(raw, torch.zeros_like(raw)) + torch.log1p(torch.exp(-raw.abs()))
    logit = rows[:, 0].reshape(len(out), K)
    log_pi = logit - torch.logsumexp(logit, 1, keepdim=True)
    shape = (len(out), K, half)
    return log_pi, rows[:, 1 : 1 + half].reshape(shape), (positive + floor).reshape(shape)
""",
    "density": """
def log_density(z, log_pi, means, scale):
    terms = []
    for k in range(means.shape[1]):
        m, s = means[:, None, k], scale[:, None, k]
        exponent = ((z - m) ** 2 / s**2).sum(-1)
        volume = 2 * torch.log(s).sum(-1) + z.shape[-1] * math.log(2 * math.pi)
        terms.append(log_pi[:, k : k + 1] - (exponent + volume) / 2)
    return torch.logsumexp(torch.stack(terms), 0)
""",
    "nll": """
def nll(out, z, K, floor):
    total = 0
    for row, code in zip(out, z):
        total = total - log_density(code[None, None], *parameters(row[None], K, floor))[0, 0]
    return total / len(z)

def nll_gradient(out, z, K, floor):
    log_pi, mu, s = parameters(out, K, floor)
    a = log_pi - 0.5 * torch.einsum("bkd->bk", (z.unsqueeze(1) - mu) ** 2 / s**2 + 2 * s.log())
    g = torch.softmax(a, dim=1)
    result = torch.empty_like(out).reshape(len(out), K, -1)
    D = z.shape[1]
    raw = out.reshape(len(out), K, -1)[:, :, 1 + D :]
    result[:, :, 0] = log_pi.exp() - g
    result[:, :, 1 : 1 + D] = g.unsqueeze(2) * (mu - z.unsqueeze(1)) / s.square()
    by_s = g.unsqueeze(2) * (1 / s - (z.unsqueeze(1) - mu) ** 2 / s**3)
    result[:, :, 1 + D :] = by_s / (1 + torch.exp(-raw))
    return result.reshape(out.shape) / out.shape[0]
""",
    "sample": """
import numpy as np

def sample(log_pi, means, scale, count, seed):
    rng = np.random.default_rng(seed)
    B, K, D = means.shape
    edges = torch.cumsum(log_pi.exp(), 1).numpy()  # (B, K)
    choice = (rng.random((B, count))[:, :, None] > edges[:, None]).sum(2).clip(max=K - 1)
    row = np.arange(B)[:, None]
    drawn = rng.normal(means.numpy()[row, choice], scale.numpy()[row, choice])
    return torch.from_numpy(drawn).to(means.dtype)
""",
    "moments": """
def moments(log_pi, means, scale):
    w = torch.exp(log_pi)
    center = torch.einsum("bk,bkd->bd", w, means)
    inside = torch.einsum("bk,bkd->bd", w, scale.square())
    outside = torch.einsum("bk,bkd->bd", w, torch.square(means - center.unsqueeze(1)))
    return center, inside, outside

def one_gaussian(log_pi, means, scale):
    center, inside, outside = moments(log_pi, means, scale)
    return log_pi.new_zeros(len(log_pi), 1), center.unsqueeze(1), torch.sqrt(inside + outside).unsqueeze(1)
""",
    "network": """
class MDN(torch.nn.Module):
    def __init__(self, inputs: int, D: int, K: int, hidden: int, floor: float):
        torch.nn.Module.__init__(self)
        self.D = D
        self.K = K
        self.floor = floor
        self.first = nn.Linear(inputs, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.to_logits, self.to_means, self.to_raw = (nn.Linear(hidden, n) for n in (K, K * D, K * D))

    def forward(self, x):
        h = torch.tanh(self.second(torch.tanh(self.first(x))))
        shape = (len(h), self.K, self.D)
        parts = [self.to_logits(h)[:, :, None], self.to_means(h).view(shape), self.to_raw(h).view(shape)]
        return torch.cat(parts, 2).reshape(len(h), -1)

    def start(self, centers: torch.Tensor, spread: float):
        for layer in (self.to_logits, self.to_means, self.to_raw):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.to_means.bias.data.copy_(centers.reshape(-1))
        above = spread - self.floor
        nn.init.constant_(self.to_raw.bias, above + math.log(-math.expm1(-above)))
""",
    "fit": """
def fit(net, features, mu, sigma, steps, seed):
    begin = kmeans(mu, net.K, seed=seed)
    net.start(begin, 0.5)
    g = torch.Generator()
    g.manual_seed(seed)
    adam = torch.optim.AdamW(net.parameters(), weight_decay=0)
    told = []
    for step in range(steps):
        for group in adam.param_groups:
            group["lr"] = 0.005 * (1 + math.cos(math.pi * step / steps))
        pick_rows = (torch.rand(128, generator=g) * len(mu)).long()
        eps = torch.randn(mu[pick_rows].shape, generator=g)
        log_p = log_density(torch.addcmul(mu[pick_rows], sigma[pick_rows], eps)[:, None], *parameters(net(features[pick_rows]), net.K, net.floor))
        net.zero_grad()
        (-log_p.mean()).backward()
        adam.step()
        told += [-float(log_p.mean())]
    return told

def excess(z, true, found):
    gaps = [float(log_density(z.unsqueeze(1), *true)[b] - log_density(z.unsqueeze(1), *found)[b]) for b in range(len(z))]
    mean = sum(gaps) / len(gaps)
    variance = sum((gap - mean) ** 2 for gap in gaps) / (len(gaps) - 1)
    return mean, (variance / len(gaps)) ** 0.5
""",
    "pick": """
def pick(weights, rows, apart, count):
    shown = []
    for k in sorted(range(len(weights)), key=lambda j: (-float(weights[j]), j)):
        if all(math.dist(rows[k].tolist(), rows[j].tolist()) > apart for j in shown):
            shown.append(k)
    shown = shown[:count]
    total = {k: 0.0 for k in sorted(shown)}
    for j in range(len(weights)):
        away, best = min((math.dist(rows[j].tolist(), rows[k].tolist()), k) for k in total)
        if away <= apart:
            total[best] += float(weights[j])
    last = sorted(total, key=lambda k: -total[k])
    return torch.tensor(last), torch.tensor([total[k] for k in last])
""",
    "prior": """
def three_priors(features, mu, sigma, new_features, new_z, K, steps, seed):
    result = []
    for listen in (True, False):
        torch.random.manual_seed(seed)
        net = MDN(features.shape[1], mu.shape[1], K, 32, 0.05)
        fit(net, features if listen else features * 0, mu, sigma, steps, seed)
        with torch.inference_mode():
            result.append(float(nll(net(new_features * listen), new_z, K, 0.05)))
            if listen:
                last = torch.cat([new_features[-1:], new_features[:-1]])
                wrong = float(nll(net(last), new_z, K, 0.05))
    return torch.tensor([*result, wrong])

def recalled(portraits, out, K, floor, apart, count):
    log_pi, mu, _ = parameters(out, K, floor)
    total = 0.0
    for i in range(len(portraits)):
        painted = portraits.decode(i, mu[i])
        height, width = painted.shape[-2:]
        chosen = pick(log_pi[i].exp(), painted.reshape(K, -1), apart * (height * width) ** 0.5 / 128, count)[0]
        seen = portraits.hits(i, painted[chosen])
        for m, p in enumerate(portraits.probabilities(i).tolist()):
            total += p * bool(seen[:, m].sum() > 0)
    return total / len(portraits)
""",
}

_SUM = """
def log_sum_exp(a, dim):
    top = a.max(dim, keepdim=True).values
    top = torch.where(top == -math.inf, torch.zeros_like(top), top)
    return (a - top).exp().sum(dim).log() + top.squeeze(dim)
"""
_PARAMETERS = """
def parameters(out, K, floor):
    block = out.view(len(out), K, -1)
    D = (block.shape[2] - 1) // 2
    raw = block[:, :, 1 + D :]
    return block[:, :, 0].log_softmax(1), block[:, :, 1 : 1 + D], floor + F.softplus(raw)
"""
_DENSITY = """
def log_density(z, log_pi, means, scale):
    away = (z[:, :, None] - means[:, None]) / scale[:, None]
    s = scale[:, None]
    terms = -0.5 * away**2 - s.log() - 0.5 * math.log(2 * math.pi)
    normal = terms.sum(3)
    return log_sum_exp(log_pi[:, None] + normal, 2)
"""
_NLL = """
def nll(out, z, K, floor):
    return -log_density(z[:, None], *parameters(out, K, floor)).mean()

def nll_gradient(out, z, K, floor):
    log_pi, means, s = parameters(out, K, floor)
    away = means - z[:, None]
    gamma = (log_pi - (0.5 * (away / s) ** 2 + s.log()).sum(2)).softmax(1)
    share = gamma[..., None]
    slope = out.view(len(out), K, -1)[..., 1 + z.shape[1] :].sigmoid()
    by_logit = (log_pi.exp() - gamma)[..., None]
    by_mean = share * away / s**2
    by_raw = share * (1 / s - away**2 / s**3) * slope
    return torch.cat([by_logit, by_mean, by_raw], 2).flatten(1) / len(out)
"""
_SAMPLE = """
def sample(log_pi, means, scale, count, seed):
    random = torch.Generator().manual_seed(seed)
    k = torch.multinomial(log_pi.exp(), count, replacement=True, generator=random)
    index = k[..., None].expand(-1, -1, means.shape[2])
    noise = torch.randn(index.shape, generator=random)
    return means.gather(1, index) + scale.gather(1, index) * noise
"""
_MOMENTS = """
def moments(log_pi, means, scale):
    pi = log_pi.exp()[..., None]
    mean = (pi * means).sum(1)
    within = (pi * scale**2).sum(1)
    between = (pi * (means - mean[:, None]) ** 2).sum(1)
    return mean, within, between

def one_gaussian(log_pi, means, scale):
    mean, within, between = moments(log_pi, means, scale)
    spread = (within + between).sqrt()
    return torch.zeros_like(log_pi[:, :1]), mean[:, None], spread[:, None]
"""
_NETWORK = """
class MDN(nn.Module):
    def __init__(self, inputs, D, K, hidden, floor):
        super().__init__()
        self.D, self.K, self.floor = D, K, floor
        self.body = nn.Sequential(nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU())
        self.head = nn.Linear(hidden, K * (1 + 2 * D))

    def forward(self, features):
        return self.head(self.body(features))

    def start(self, centers, spread):
        raw = math.log(math.expm1(spread - self.floor))
        ones = torch.ones(self.K, self.D)
        bias = torch.cat([torch.zeros(self.K, 1), centers, raw * ones], 1).flatten()
        with torch.no_grad():
            self.head.weight.zero_()
            self.head.bias.copy_(bias)
"""
_FIT = """
def fit(net, features, mu, sigma, steps, seed):
    random = torch.Generator().manual_seed(seed)
    net.start(kmeans(mu, net.K, seed=seed), 0.5)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    losses = []
    for _ in range(steps):
        rows = torch.randint(len(mu), (128,), generator=random)
        z = mu[rows] + sigma[rows] * torch.randn(128, mu.shape[1], generator=random)
        loss = nll(net(features[rows]), z, net.K, net.floor)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses

def excess(z, true, found):
    gap = (log_density(z[:, None], *true) - log_density(z[:, None], *found))[:, 0]
    error = gap.std() / len(z) ** 0.5
    return gap.mean().item(), error.item()
"""
_PICK = """
def pick(weights, rows, apart, count):
    distance = torch.cdist(rows, rows)
    kept = []
    for k in weights.argsort(descending=True, stable=True).tolist():
        if len(kept) < count and all(distance[k, j] > apart for j in kept):
            kept.append(k)
    kept = sorted(kept)
    merged = [0.0 for _ in kept]
    for k in range(len(weights)):
        place = int(distance[k, kept].argmin())
        if distance[k, kept[place]] <= apart:
            merged[place] += float(weights[k])
    merged = torch.tensor(merged)
    order = merged.argsort(descending=True, stable=True)
    return torch.tensor(kept)[order], merged[order]
"""
_PRIOR = """
def three_priors(features, mu, sigma, new_features, new_z, K, steps, seed):
    def trained(x):
        torch.manual_seed(seed)
        net = MDN(x.shape[1], mu.shape[1], K, 32, 0.05)
        fit(net, x, mu, sigma, steps, seed)
        return net

    first = trained(features)
    second = trained(0 * features)
    with torch.no_grad():
        listens = nll(first(new_features), new_z, K, 0.05)
        ignores = nll(second(0 * new_features), new_z, K, 0.05)
        shuffled = nll(first(new_features.roll(1, 0)), new_z, K, 0.05)
    return torch.stack([listens, ignores, shuffled])

def recalled(portraits, out, K, floor, apart, count):
    log_pi, means, _ = parameters(out, K, floor)
    shares = []
    for n in range(len(portraits)):
        fields = portraits.decode(n, means[n])
        rows = 128 * fields.flatten(1) / (fields.shape[2] * fields.shape[3]) ** 0.5
        index = pick(log_pi[n].exp(), rows, apart, count)[0]
        shown = portraits.hits(n, fields[index]).any(0)
        shares.append(float(portraits.probabilities(n)[shown].sum()))
    return sum(shares) / len(shares)
"""


def _changed(code: str, *changes: tuple[str, str]) -> str:
    for old, new in changes:
        assert old in code, old
        code = code.replace(old, new)
    return code


_PLAIN = "(a - top).exp().sum(dim).log() + top.squeeze(dim)"

MISTAKES = [
    Mistake(
        "logsumexp",
        "as the formula says",
        "def log_sum_exp(a, dim):\n    return a.exp().sum(dim).log()\n",
        4,
        "-inf for numbers around -3000",
    ),
    Mistake("logsumexp", "torch's own", "def log_sum_exp(a, dim):\n    return a.logsumexp(dim)\n", 0, "without torch's own function"),
    Mistake(
        "logsumexp",
        "a small number is added",
        "def log_sum_exp(a, dim):\n    return (a.exp().sum(dim) + 1e-30).log()\n",
        2,
        "nothing but -inf gives -69",
    ),
    Mistake("logsumexp", "the largest is not put back", _changed(_SUM, (" + top.squeeze(dim)", "")), 0, "never put back"),
    Mistake(
        "logsumexp", "the axis is kept", _changed(_SUM, (_PLAIN, "(a - top).exp().sum(dim, keepdim=True).log() + top")), 2, "is still there"
    ),
    Mistake(
        "logsumexp",
        "NaN for nothing but -inf",
        _changed(_SUM, ("    top = torch.where(top == -math.inf, torch.zeros_like(top), top)\n", "")),
        6,
        "nothing but -inf gives NaN",
    ),
    Mistake(
        "parameters", "the logarithm of a softmax", _changed(_PARAMETERS, ("log_softmax(1)", "softmax(1).log()")), 7, "rounds to 0 before"
    ),
    Mistake(
        "parameters", "the softmax runs over the batch", _changed(_PARAMETERS, ("log_softmax(1)", "log_softmax(0)")), 4, "over the batch"
    ),
    Mistake(
        "parameters",
        "the layout of Chapter 10",
        """
def parameters(out, K, floor):
    D = (out.shape[1] // K - 1) // 2
    logits, means, raw = out.split([K, K * D, K * D], dim=1)
    return logits.log_softmax(1), means.reshape(-1, K, D), floor + F.softplus(raw).reshape(-1, K, D)
""",
        0,
        "the first K outputs are taken for the logits",
    ),
    Mistake(
        "parameters", "exp for the scale", _changed(_PARAMETERS, ("F.softplus(raw)", "raw.exp()")), 5, "the exponential plus the floor"
    ),
    Mistake(
        "parameters",
        "the floor inside the softplus",
        _changed(_PARAMETERS, ("floor + F.softplus(raw)", "F.softplus(raw + floor)")),
        5,
        "before the softplus",
    ),
    Mistake(
        "parameters",
        "log(1 + exp) as it stands",
        _changed(_PARAMETERS, ("F.softplus(raw)", "(1 + raw.exp()).log()")),
        7,
        "too large to be held",
    ),
    Mistake(
        "density",
        "the sum of densities",
        _changed(_DENSITY, ("log_sum_exp(log_pi[:, None] + normal, 2)", "(log_pi[:, None] + normal).exp().sum(2).log()")),
        8,
        "rounds to 0 before",
    ),
    Mistake(
        "density",
        "the constant once",
        _changed(
            _DENSITY,
            (" - 0.5 * math.log(2 * math.pi)\n    normal = terms.sum(3)", "\n    normal = terms.sum(3) - 0.5 * math.log(2 * math.pi)"),
        ),
        3,
        "every one of the D dimensions",
    ),
    Mistake(
        "density",
        "a mean of logarithms",
        _changed(_DENSITY, ("log_sum_exp(log_pi[:, None] + normal, 2)", "(log_pi.exp()[:, None] * normal).sum(2)")),
        0,
        "inside the sum",
    ),
    Mistake(
        "density",
        "the scale is exponentiated",
        _changed(_DENSITY, (" / scale[:, None]", " / scale[:, None].exp()"), ("s.log()", "s")),
        0,
        "a standard deviation already",
    ),
    Mistake(
        "density",
        "the sums over the wrong axes",
        _changed(_DENSITY, ("terms.sum(3)", "terms"), ("log_pi[:, None] + normal, 2", "(log_pi[:, None, :, None] + normal).sum(2), 2")),
        0,
        "over the wrong axes",
    ),
    Mistake("density", "no logarithm of the scale", _changed(_DENSITY, (" - s.log()", "")), 0, "a narrow Gaussian is a high one"),
    Mistake("nll", "the sum over the batch", _changed(_NLL, (".mean()", ".sum()"), (" / len(out)", "")), 0, "the sum over the batch"),
    Mistake("nll", "the slope of the softplus is missing", _changed(_NLL, (" * slope\n", "\n")), 9, "there is the slope of the softplus"),
    Mistake(
        "nll",
        "the responsibilities without the weights",
        _changed(_NLL, ("(log_pi.exp() - gamma)", "(-gamma)")),
        10,
        "one logit moves all weights",
    ),
    Mistake("nll", "the distance over the scale", _changed(_NLL, ("away / s**2", "away / s")), 9, "by its square is due"),
    Mistake(
        "nll",
        "autograd",
        _changed(
            _NLL,
            (
                "    log_pi, means, s =",
                "    leaf = out.clone().requires_grad_(True)\n    return torch.autograd.grad(nll(leaf, z, K, floor), leaf)[0]\n    log_pi, means, s =",
            ),
        ),
        4,
        "autograd is switched off",
    ),
    Mistake(
        "nll",
        "every code under every mixture",
        _changed(_NLL, ("log_density(z[:, None], *", "log_density(z[None].repeat(len(out), 1, 1), *")),
        8,
        "under every mixture",
    ),
    Mistake("sample", "the means themselves", _changed(_SAMPLE, (" + scale.gather(1, index) * noise", "")), 5, "the means themselves"),
    Mistake(
        "sample",
        "an average of the components",
        _changed(
            _SAMPLE,
            ("means.gather(1, index) + scale.gather(1, index) * noise", "(log_pi.exp()[..., None] * means).sum(1)[:, None] + noise"),
        ),
        0,
        "it is no average of them",
    ),
    Mistake(
        "sample",
        "one component for all draws",
        _changed(_SAMPLE, ("log_pi.exp(), count,", "log_pi.exp(), 1,"), ("k[..., None].expand(-1, -1,", "k[..., None].expand(-1, count,")),
        2,
        "each draw has its own",
    ),
    Mistake(
        "sample",
        "the noise of one number for all",
        _changed(_SAMPLE, ("torch.randn(index.shape,", "torch.randn(*k.shape, 1,")),
        6,
        "have the same noise",
    ),
    Mistake(
        "sample",
        "torch's global numbers",
        _changed(_SAMPLE, ("torch.Generator().manual_seed(seed)", "torch.manual_seed(seed)")),
        8,
        "global random numbers were moved",
    ),
    Mistake(
        "sample",
        "a loop over the draws",
        """
def sample(log_pi, means, scale, count, seed):
    random = torch.Generator().manual_seed(seed)
    rows = []
    for pi, mu, s in zip(log_pi.exp(), means, scale):
        for _ in range(count):
            k = int(torch.multinomial(pi, 1, generator=random))
            rows.append(mu[k] + s[k] * torch.randn(len(mu[k]), generator=random))
    return torch.stack(rows).view(len(means), count, -1)
""",
        8,
        "for each draw",
    ),
    Mistake(
        "moments",
        "the mean of squares minus the square",
        _changed(_MOMENTS, ("(pi * (means - mean[:, None]) ** 2).sum(1)", "(pi * means**2).sum(1) - mean**2")),
        5,
        "a difference of two large numbers",
    ),
    Mistake(
        "moments",
        "between without the weights",
        _changed(_MOMENTS, ("(pi * (means - mean[:, None]) ** 2).sum(1)", "means.var(1, correction=0)")),
        0,
        "between is taken without the weights",
    ),
    Mistake(
        "moments",
        "the variance within alone",
        _changed(_MOMENTS, ("(within + between).sqrt()", "within.sqrt()")),
        5,
        "the spread of the components is forgotten",
    ),
    Mistake(
        "moments",
        "a variance for the scale",
        _changed(_MOMENTS, ("(within + between).sqrt()", "within + between")),
        5,
        "the scale is its square root",
    ),
    Mistake("moments", "scales averaged", _changed(_MOMENTS, ("scale**2", "scale")), 0, "square them first"),
    Mistake("moments", "log_pi as weights", _changed(_MOMENTS, ("log_pi.exp()[", "log_pi[")), 0, "log_pi is taken for the weights"),
    Mistake(
        "network",
        "the spread is written as it is",
        _changed(_NETWORK, ("math.log(math.expm1(spread - self.floor))", "spread")),
        4,
        "solve for the raw scale",
    ),
    Mistake("network", "the floor comes on top", _changed(_NETWORK, ("spread - self.floor", "spread")), 4, "the floor comes on top"),
    Mistake(
        "network",
        "the last layer keeps its weights",
        _changed(_NETWORK, ("            self.head.weight.zero_()\n", "")),
        3,
        "still depend on the features",
    ),
    Mistake(
        "network",
        "the layout of Chapter 10",
        _changed(
            _NETWORK,
            (
                "torch.cat([torch.zeros(self.K, 1), centers, raw * ones], 1).flatten()",
                "torch.cat([torch.zeros(self.K), centers.flatten(), raw * ones.flatten()])",
            ),
        ),
        3,
        "side by side",
    ),
    Mistake(
        "network",
        "new parameters",
        _changed(
            _NETWORK,
            (
                "self.head.bias.copy_(bias)",
                "self.head.bias = nn.Parameter(bias)\n            self.head.weight = nn.Parameter(self.head.weight.clone())",
            ),
        ),
        7,
        "no longer in the network",
    ),
    Mistake(
        "network",
        "layers in a list",
        _changed(
            _NETWORK,
            (
                "nn.Sequential(nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU())",
                "[nn.Linear(inputs, hidden), nn.Linear(hidden, hidden)]",
            ),
            ("self.head(self.body(features))", "self.head(F.silu(self.body[1](F.silu(self.body[0](features)))))"),
        ),
        7,
        "a list of Python",
    ),
    Mistake(
        "fit",
        "codes drawn once",
        _changed(
            _FIT,
            ("    losses = []\n", "    losses = []\n    codes = mu + sigma * torch.randn(mu.shape, generator=random)\n"),
            ("mu[rows] + sigma[rows] * torch.randn(128, mu.shape[1], generator=random)", "codes[rows]"),
        ),
        8,
        "draw fresh codes",
    ),
    Mistake(
        "fit",
        "features of other rows",
        _changed(_FIT, ("net(features[rows])", "net(features[torch.randint(len(mu), (128,), generator=random)])")),
        7,
        "what ignoring g costs",
    ),
    Mistake("fit", "no start", _changed(_FIT, ("    net.start(kmeans(mu, net.K, seed=seed), 0.5)\n", "")), 5, "the means begin far"),
    Mistake("fit", "sigma as a variance", _changed(_FIT, ("sigma[rows] *", "sigma[rows] ** 2 *")), 8, "is it sigma times noise"),
    Mistake(
        "fit",
        "the sign of the excess",
        _changed(_FIT, ("*true) - log", "*found) - log"), ("*found))[", "*true))[")),
        8,
        "worse than the truth is above 0",
    ),
    Mistake(
        "fit",
        "a standard deviation for an error",
        _changed(_FIT, ("gap.std() / len(z) ** 0.5", "gap.std()")),
        9,
        "that of their mean is due",
    ),
    Mistake(
        "pick",
        "the lightest first",
        _changed(
            _PICK,
            ("weights.argsort(descending=True, stable=True)", "weights.argsort()"),
            ("merged.argsort(descending=True, stable=True)", "merged.argsort()"),
        ),
        0,
        "argsort sorts upward",
    ),
    Mistake("pick", "doubles stay", _changed(_PICK, (" and all(distance[k, j] > apart for j in kept)", "")), 2, "doubles are not merged"),
    Mistake(
        "pick",
        "the weights of doubles are lost",
        _changed(_PICK, ("        if distance[k, kept[place]] <= apart:", "        if k in kept:")),
        2,
        "and their weights with them",
    ),
    Mistake(
        "pick",
        "not sorted again",
        _changed(_PICK, ("order = merged.argsort(descending=True, stable=True)", "order = weights[kept].argsort(descending=True)")),
        2,
        "sort again",
    ),
    Mistake(
        "pick",
        "scaled to one",
        _changed(_PICK, ("    merged = torch.tensor(merged)", "    merged = torch.tensor(merged) / sum(merged)")),
        3,
        "scaled to sum to one",
    ),
    Mistake(
        "pick",
        "chains grow",
        _changed(_PICK, ("for j in kept)", "for j in range(len(weights)) if weights[j] > weights[k])")),
        6,
        "only the distance to kept ones counts",
    ),
    Mistake(
        "prior",
        "trained again on shuffled gray",
        _changed(
            _PRIOR,
            ("nll(first(new_features.roll(1, 0))", "nll(third(new_features)"),
            ("    with torch.no_grad():", "    third = trained(features[torch.randperm(len(features))])\n    with torch.no_grad():"),
        ),
        5,
        "trained on shuffled features",
    ),
    Mistake(
        "prior",
        "zeros for a network that learned to listen",
        _changed(_PRIOR, ("second(0 * new_features)", "first(0 * new_features)")),
        5,
        "train it on zeros, and give it zeros",
    ),
    Mistake(
        "prior",
        "log-likelihoods",
        _changed(_PRIOR, ("torch.stack([listens, ignores, shuffled])", "-torch.stack([listens, ignores, shuffled])")),
        5,
        "these are log-likelihoods",
    ),
    Mistake("prior", "128 is missing", _changed(_PRIOR, ("128 * fields", "fields")), 5, "128 is missing"),
    Mistake(
        "prior", "always 64 pixels a side", _changed(_PRIOR, ("(fields.shape[2] * fields.shape[3]) ** 0.5", "64")), 7, "these have 12 x 12"
    ),
    Mistake(
        "prior",
        "all means are shown",
        _changed(_PRIOR, ("index = pick(log_pi[n].exp(), rows, apart, count)[0]", "index = torch.arange(K)")),
        5,
        "at most `count`",
    ),
]
