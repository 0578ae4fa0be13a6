"""Right answers in other words, and typical wrong ones with the points that they get. A test grades them all."""

from assignments._tools.mistakes import Mistake

DIFFERENT = {
    "density": """
def log_density(x, mu, logvar):
    sigma = logvar.div(2).exp()
    z = (x - mu) / sigma
    each = -z.square() / 2 - sigma.log() - math.log(math.sqrt(math.tau))
    return torch.einsum("...d->...", each)
""",
    "kl": """
def kl(mu, logvar, m, log_s2):
    total = mu.new_zeros(len(mu))
    for d in range(mu.shape[1]):
        first, second = logvar[:, d], log_s2[..., d]
        away = (mu[:, d] - m[..., d]) / second.div(2).exp()
        t = first - second
        total = total + (away.square() + torch.special.expm1(t).sub(t)) / 2
    return total
""",
    "estimate": """
def estimated_kl(mu, logvar, m, log_s2, eps):
    sigma, s = logvar.div(2).exp(), log_s2.div(2).exp()
    terms = []
    for noise in eps:
        z = mu + sigma * noise
        log_q = (-noise.square() / 2 - sigma.log()).sum()
        log_p = (-((z - m) / s).square() / 2 - s.log()).sum()
        terms.append(log_q - log_p)
    terms = torch.stack(terms)
    spread = (terms - terms.mean()).square().sum() / (len(terms) - 1)
    return terms.mean(), (spread / len(terms)).sqrt()

def draws_needed(error, draws, wanted):
    one = error * error * draws
    return -int(-one // (wanted * wanted))
""",
    "model": """
def log_evidence(x, mean, W, noise):
    # By Bayes: log p(x | 0) + log p(0) - log p(0 | x).
    m, covariance = posterior(x, mean, W, noise)
    given = -(((x - mean) / noise).square() / 2 + noise.log() + math.log(math.tau) / 2).sum(1)
    quadratic = torch.einsum("nd,de,ne->n", m, torch.linalg.inv(covariance), m)
    return given + quadratic / 2 + torch.linalg.slogdet(covariance).logabsdet / 2

def posterior(x, mean, W, noise):
    whole = W @ W.T + torch.diag_embed(noise.square())
    gain = torch.linalg.solve(whole, W).T
    return (x - mean) @ gain.T, torch.eye(W.size(1), dtype=W.dtype) - gain @ W
""",
    "bound": """
def elbo(x, mean, W, noise, mu, logvar):
    out = []
    for row, m, v in zip(x, mu, logvar.exp()):
        decoded = mean + W @ m
        second_moment = (row - decoded).square() + W.square() @ v
        given = -(second_moment / noise.square() + noise.square().log() + math.log(math.tau)).sum() / 2
        out.append(given - (m.square() + v - v.log() - 1).sum() / 2)
    return torch.stack(out)

def gap(mu, logvar, m, covariance):
    root = torch.linalg.cholesky(covariance)
    out = []
    for first, second, v in zip(mu, m, logvar.exp()):
        white = torch.linalg.solve_triangular(root, torch.cat([torch.diag(v.sqrt()), (first - second)[:, None]], 1), upper=False)
        out.append((white.square().sum() - len(v) - v.log().sum()) / 2 + root.diagonal().log().sum())
    return torch.stack(out)
""",
    "importance": """
def importance_bound(x, mean, W, noise, mu, logvar, eps):
    sigma = logvar.div(2).exp()
    bounds = []
    for n in range(len(x)):
        logs = []
        for e in eps[:, n]:
            z = mu[n] + sigma[n] * e
            given = -(((x[n] - mean - W @ z) / noise).square() / 2 + noise.log() + math.log(math.tau) / 2).sum()
            logs.append(given - z.square().sum() / 2 + e.square().sum() / 2 + sigma[n].log().sum())
        logs = torch.stack(logs)
        bounds.append(logs.max() + (logs - logs.max()).exp().mean().log())
    return torch.stack(bounds)
""",
    "path": """
def pathwise(h, mu, logvar, eps):
    many_mu = mu.repeat(len(eps), 1).requires_grad_()
    many_logvar = logvar.repeat(len(eps), 1).requires_grad_()
    h(many_mu + many_logvar.div(2).exp() * eps).sum().backward()
    return many_mu.grad, many_logvar.grad
""",
    "score": """
def score(h, mu, logvar, eps, baseline):
    z = mu + logvar.div(2).exp() * eps
    with torch.no_grad():
        worth = h(z).clone()
        if baseline:
            count = len(worth)
            worth = (worth - worth.mean()) * count / (count - 1)
    variance = logvar.exp()
    away = z - mu
    by_mu = torch.einsum("s,sd->sd", worth, away / variance)
    by_logvar = torch.einsum("s,sd->sd", worth, away.square() / variance / 2 - 1 / 2)
    return by_mu, by_logvar
""",
    "study": """
def variances(h, mu, logvar, draws, repeats, seed):
    torch.manual_seed(seed)
    sigma = logvar.div(2).exp()
    eps = torch.randn(repeats, draws, len(mu), dtype=mu.dtype)
    z = (mu + sigma * eps).flatten(0, 1).requires_grad_()
    values = h(z)
    slopes = torch.autograd.grad(values.sum(), z)[0].view_as(eps)
    values = values.detach().view(repeats, draws, 1)
    centered = (values - values.mean(1, keepdim=True)) * draws / (draws - 1)
    found = {"score": values * eps / sigma, "baseline": centered * eps / sigma, "pathwise": slopes}
    return {name: float(each.mean(1).var(0).mean()) for name, each in found.items()}
""",
    "cost": """
def collapsed(mu, logvar, least):
    nats = (mu.square() + torch.expm1(logvar) - logvar).mean(0) / 2
    return torch.nonzero(nats < least).flatten().tolist()

def code_cost(kl_terms, step, warm, floor):
    per_dimension = torch.stack([column.mean() for column in kl_terms.T])
    charged = torch.where(per_dimension > floor, per_dimension, torch.full_like(per_dimension, floor))
    return charged.sum() * min(1.0, step / max(warm, 1) if warm else 1.0)
""",
    "train": """
class Halves(torch.nn.Module):
    def __init__(self, length, latent):
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Linear(length, 48), torch.nn.Tanh())
        self.mu, self.logvar = torch.nn.Linear(48, latent), torch.nn.Linear(48, latent)
    def forward(self, x):
        inner = self.body(x)
        return self.mu(inner), self.logvar(inner)

def train_vae(x, latent, noise, seed):
    random = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed + 1)
    center = x.mean(0)
    encode = Halves(x.size(1), latent)
    inner = torch.nn.Sequential(torch.nn.Linear(latent, 48), torch.nn.Tanh(), torch.nn.Linear(48, x.size(1)))
    def decode(z):
        return center + inner(z)
    weights = list(encode.parameters()) + list(inner.parameters())
    adam = torch.optim.Adam(weights, lr=0.02)
    for step in range(320):
        for group in adam.param_groups:
            group["lr"] = 0.02 * (1 - step / 320)
        rows = x[torch.randperm(len(x), generator=random)[:150]]
        mu, logvar = encode(rows)
        sigma = logvar.div(2).exp()
        rest = rows - decode(torch.normal(0.0, 1.0, mu.shape, generator=random) * sigma + mu)
        nats = rest.square().sum() / noise**2 + (mu.square() + sigma.square() - logvar - 1).sum()
        adam.zero_grad()
        (nats / 2 / len(rows)).backward()
        adam.step()
    return encode, decode
""",
}

_DENSITY = """
def log_density(x, mu, logvar):
    squares = (x - mu) ** 2 / logvar.exp()
    constant = math.log(2 * math.pi)
    return -0.5 * (squares + logvar + constant).sum(-1)
"""
_KL = """
def kl(mu, logvar, m, log_s2):
    t = logvar - log_s2
    return 0.5 * ((mu - m) ** 2 / log_s2.exp() + torch.expm1(t) - t).sum(1)
"""
_ESTIMATE = """
def _log_normal(z, mu, logvar):
    return -0.5 * ((z - mu) ** 2 / logvar.exp() + logvar).sum(1)

def estimated_kl(mu, logvar, m, log_s2, eps):
    z = mu + (0.5 * logvar).exp() * eps
    terms = _log_normal(z, mu, logvar) - _log_normal(z, m, log_s2)
    return terms.mean(), terms.std() / len(terms) ** 0.5

def draws_needed(error, draws, wanted):
    return math.ceil(draws * (error / wanted) ** 2)
"""
_MODEL = """
def log_evidence(x, mean, W, noise):
    covariance = W @ W.T + (noise**2).diag()
    away = x - mean
    squares = (away @ torch.linalg.inv(covariance) * away).sum(1)
    half = 0.5 * torch.logdet(covariance)
    return -0.5 * squares - half - 0.5 * x.shape[1] * math.log(2 * math.pi)

def posterior(x, mean, W, noise):
    A = torch.eye(W.shape[1]).double() + W.T @ (W / noise[:, None] ** 2)
    covariance = torch.linalg.inv(A)
    return (x - mean) / noise**2 @ W @ covariance, covariance
"""
_BOUND = """
def elbo(x, mean, W, noise, mu, logvar):
    v = noise**2
    spread = (logvar.exp() * (W**2 / v[:, None]).sum(0)).sum(1)
    constant = (2 * math.pi * v).log().sum()
    given = -0.5 * (((x - mean - mu @ W.T) ** 2 / v).sum(1) + spread + constant)
    rate = 0.5 * (mu**2 + logvar.exp() - logvar - 1).sum(1)
    return given - rate

def gap(mu, logvar, m, covariance):
    A = torch.linalg.inv(covariance)
    trace = (logvar.exp() * A.diagonal()).sum(1)
    away = ((mu - m) @ A * (mu - m)).sum(1)
    return 0.5 * (trace + away - mu.shape[1] + covariance.logdet() - logvar.sum(1))
"""
_IMPORTANCE = """
def importance_bound(x, mean, W, noise, mu, logvar, eps):
    sigma = (0.5 * logvar).exp()
    z = mu + sigma * eps
    given = -0.5 * (((x - mean - z @ W.T) / noise) ** 2 + 2 * noise.log() + math.log(2 * math.pi)).sum(2)
    prior = -0.5 * (z**2 + math.log(2 * math.pi)).sum(2)
    guess = -0.5 * (eps**2 + 2 * sigma.log() + math.log(2 * math.pi)).sum(2)
    log_w = given + prior - guess
    return log_w.logsumexp(0) - math.log(len(eps))
"""
_PATH = """
def pathwise(h, mu, logvar, eps):
    sigma = (0.5 * logvar).exp()
    z = (mu + sigma * eps).requires_grad_()
    slope = torch.autograd.grad(h(z).sum(), z)[0]
    return slope, slope * 0.5 * sigma * eps
"""
_SCORE = """
def score(h, mu, logvar, eps, baseline):
    sigma = (0.5 * logvar).exp()
    values = h(mu + sigma * eps)
    others = (values.sum() - values) / (len(values) - 1)
    if baseline:
        values = values - others
    by_mu = values[:, None] * eps / sigma
    return by_mu, values[:, None] * (eps**2 - 1) / 2
"""
_STUDY = """
def variances(h, mu, logvar, draws, repeats, seed):
    sigma = (0.5 * logvar).exp()
    random = torch.Generator().manual_seed(seed)
    eps = torch.randn(repeats, draws, len(mu), generator=random, dtype=mu.dtype)
    z = (mu + sigma * eps).requires_grad_()
    values = h(z.view(-1, len(mu)))
    slope = torch.autograd.grad(values.sum(), z)[0]
    values = values.detach().view(repeats, draws, 1)
    others = (values.sum(1, keepdim=True) - values) / (draws - 1)
    each = {"score": values * eps / sigma, "baseline": (values - others) * eps / sigma, "pathwise": slope}
    return {way: one.mean(1).var(0).mean().item() for way, one in each.items()}
"""
_COST = """
def collapsed(mu, logvar, least):
    cost = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).mean(0)
    return [d for d in range(mu.shape[1]) if cost[d] < least]

def code_cost(kl_terms, step, warm, floor):
    beta = min(1.0, step / warm) if warm else 1.0
    return beta * kl_terms.mean(0).clamp(min=floor).sum()
"""
_TRAIN = """
def train_vae(x, latent, noise, seed):
    torch.manual_seed(seed)
    M, H = x.shape[1], 64
    e = torch.nn.Sequential(torch.nn.Linear(M, H), torch.nn.SiLU(), torch.nn.Linear(H, 2 * latent))
    d = torch.nn.Sequential(torch.nn.Linear(latent, H), torch.nn.SiLU(), torch.nn.Linear(H, M))
    optimizer = torch.optim.Adam([*e.parameters(), *d.parameters()], lr=0.01)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0.02, 300)
    for step in range(300):
        rows = x[torch.randint(len(x), (128,))]
        mu, logvar = e(rows).chunk(2, 1)
        z = mu + (0.5 * logvar).exp() * torch.randn(mu.shape)
        misfit = ((rows - d(z)) ** 2).sum(1).mean() / (2 * noise**2)
        rate = 0.5 * (mu**2 + logvar.exp() - logvar - 1).sum(1).mean()
        loss = misfit + rate
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return lambda rows: e(rows).chunk(2, 1), d
"""


def _changed(code: str, *changes: tuple[str, str]) -> str:
    for old, new in changes:
        assert old in code, old
        code = code.replace(old, new)
    return code


MISTAKES = [
    Mistake("density", "no constant", _changed(_DENSITY, (" + constant).sum(-1)", ").sum(-1)")), 2, "the constant is missing"),
    Mistake(
        "density",
        "one constant for all dimensions",
        _changed(_DENSITY, (" + constant).sum(-1)", ").sum(-1) - 0.5 * constant")),
        2,
        "the constant is there once",
    ),
    Mistake(
        "density",
        "e^logvar for the standard deviation",
        _changed(_DENSITY, ("/ logvar.exp()", "/ logvar.exp() ** 2"), ("+ logvar +", "+ 2 * logvar +")),
        0,
        "e\\^logvar is taken for the standard deviation",
    ),
    Mistake(
        "density",
        "the logarithm of the product of densities",
        _changed(
            _DENSITY,
            ("return -0.5 * (squares + logvar + constant).sum(-1)", "return (-0.5 * (squares + logvar + constant)).exp().prod(-1).log()"),
        ),
        4,
        "stay with logarithms|Stay with logarithms",
    ),
    Mistake("density", "the mean over the dimensions", _changed(_DENSITY, (".sum(-1)", ".mean(-1)")), 0, "their log densities add"),
    Mistake(
        "kl",
        "the two are exchanged",
        _changed(_KL, ("t = logvar - log_s2", "t = log_s2 - logvar"), ("/ log_s2.exp()", "/ logvar.exp()")),
        3,
        "the two are exchanged",
    ),
    Mistake(
        "kl",
        "sigma for sigma squared",
        _changed(_KL, ("t = logvar - log_s2", "t = 0.5 * (logvar - log_s2)"), ("/ log_s2.exp()", "/ (0.5 * log_s2).exp()")),
        1,
        "sigma stands where sigma squared belongs",
    ),
    Mistake("kl", "exp(t) - 1", _changed(_KL, ("torch.expm1(t)", "t.exp() - 1")), 6, "is only rounding"),
    Mistake("kl", "the -1 is missing", _changed(_KL, ("torch.expm1(t)", "t.exp()")), 0, "the -1 is missing"),
    Mistake(
        "kl",
        "the half is missing",
        _changed(
            _KL,
            ("0.5 * (", "("),
        ),
        0,
        "the half before the sum is missing",
    ),
    Mistake(
        "estimate",
        "draws of the second Gaussian",
        _changed(_ESTIMATE, ("z = mu + (0.5 * logvar).exp() * eps", "z = m + (0.5 * log_s2).exp() * eps")),
        2,
        "a mean over q",
    ),
    Mistake(
        "estimate",
        "e^logvar as standard deviation of the draws",
        _changed(_ESTIMATE, ("(0.5 * logvar).exp() * eps", "logvar.exp() * eps")),
        2,
        "have the standard deviation e\\^logvar",
    ),
    Mistake("estimate", "no root of S", _changed(_ESTIMATE, (" / len(terms) ** 0.5", "")), 4, "standard deviation of one term"),
    Mistake("estimate", "divided by S", _changed(_ESTIMATE, ("len(terms) ** 0.5", "len(terms)")), 4, "divided by S; by its root"),
    Mistake(
        "estimate",
        "draws in proportion to the precision",
        _changed(_ESTIMATE, ("(error / wanted) ** 2", "error / wanted")),
        4,
        "four times the draws",
    ),
    Mistake(
        "model",
        "noise not squared",
        _changed(_MODEL, ("(noise**2).diag()", "noise.diag()"), ("noise[:, None] ** 2", "noise[:, None]"), ("/ noise**2", "/ noise")),
        3,
        "their squares belong on the diagonal",
    ),
    Mistake("model", "no prior in A", _changed(_MODEL, ("torch.eye(W.shape[1]).double() + W.T", "W.T")), 5, "the prior is missing"),
    Mistake(
        "model",
        "the determinant before its logarithm",
        _changed(_MODEL, ("torch.logdet(covariance)", "torch.log(torch.linalg.det(covariance))")),
        10,
        "the determinant of 400 dimensions",
    ),
    Mistake(
        "model", "A for the covariance", _changed(_MODEL, ("@ covariance, covariance", "@ covariance, A")), 9, "this is A, the precision"
    ),
    Mistake("model", "W W^T is missing", _changed(_MODEL, ("W @ W.T + (noise**2).diag()", "(noise**2).diag()")), 7, "the dyes scatter too"),
    Mistake(
        "bound",
        "no price of the spread",
        _changed(_BOUND, (" + spread + constant", " + constant")),
        4,
        "the price of the spread is missing",
    ),
    Mistake("bound", "the rate is added", _changed(_BOUND, ("given - rate", "given + rate")), 4, "the rate is added"),
    Mistake("bound", "no constant", _changed(_BOUND, (" + spread + constant", " + spread")), 4, "the constant is missing"),
    Mistake(
        "bound",
        "the KL the other way round",
        """
def gap(mu, logvar, m, covariance):
    v = logvar.exp()
    return 0.5 * ((covariance.diagonal() + (m - mu) ** 2) / v + logvar).sum(1) - 0.5 * (mu.shape[1] + covariance.logdet())
"""
        + _BOUND.split("def gap")[0],
        7,
        "the two are exchanged",
    ),
    Mistake(
        "bound",
        "only the diagonal of the covariance",
        _changed(
            _BOUND, ("A = torch.linalg.inv(covariance)", "covariance = covariance.diagonal().diag()\n    A = torch.linalg.inv(covariance)")
        ),
        7,
        "only the diagonal of the covariance",
    ),
    Mistake(
        "importance",
        "the mean of the logarithms",
        _changed(_IMPORTANCE, ("log_w.logsumexp(0) - math.log(len(eps))", "log_w.mean(0)")),
        3,
        "this is the mean of the logarithms",
    ),
    Mistake("importance", "the sum instead of the mean", _changed(_IMPORTANCE, (" - math.log(len(eps))", "")), 2, "log S is missing"),
    Mistake(
        "importance",
        "weights that underflow",
        _changed(_IMPORTANCE, ("log_w.logsumexp(0) - math.log(len(eps))", "log_w.exp().mean(0).log()")),
        5,
        "takes the largest out first",
    ),
    Mistake(
        "importance", "q does not divide", _changed(_IMPORTANCE, ("given + prior - guess", "given + prior")), 1, "q\\(z\\) does not divide"
    ),
    Mistake("importance", "p(z) is forgotten", _changed(_IMPORTANCE, ("given + prior - guess", "given - guess")), 1, "p\\(z\\) is missing"),
    Mistake(
        "path",
        "the half in the chain rule",
        _changed(_PATH, ("slope * 0.5 * sigma * eps", "slope * sigma * eps")),
        2,
        "e to \\*half\\* of logvar",
    ),
    Mistake(
        "path",
        "e^logvar as standard deviation",
        _changed(_PATH, ("sigma = (0.5 * logvar).exp()", "sigma = logvar.exp()")),
        0,
        "the standard deviation e\\^logvar; that is the variance|and the chain rule another",
    ),
    Mistake("path", "the slope of the mean", _changed(_PATH, ("h(z).sum()", "h(z).mean()")), 1, "divided by S"),
    Mistake(
        "path",
        "the mean over the draws",
        _changed(_PATH, ("return slope, slope * 0.5 * sigma * eps", "return slope.mean(0), (slope * 0.5 * sigma * eps).mean(0)")),
        0,
        "it should be \\(30, 4\\)",
    ),
    Mistake(
        "path",
        "the noise is missing in the chain rule",
        _changed(_PATH, ("slope * 0.5 * sigma * eps", "slope * 0.5 * sigma")),
        2,
        "the noise is missing in the chain rule",
    ),
    Mistake(
        "score",
        "the score is not divided by sigma",
        _changed(_SCORE, ("values[:, None] * eps / sigma", "values[:, None] * eps")),
        3,
        "not divided by sigma",
    ),
    Mistake("score", "no -1", _changed(_SCORE, ("(eps**2 - 1) / 2", "eps**2 / 2")), 3, "the -1 is missing in the score"),
    Mistake(
        "score",
        "a baseline that knows its own draw",
        _changed(_SCORE, ("(values.sum() - values) / (len(values) - 1)", "values.mean()")),
        6,
        "must not know its own draw",
    ),
    Mistake(
        "score",
        "the pathwise gradient",
        _PATH.replace("pathwise(h, mu, logvar, eps)", "score(h, mu, logvar, eps, baseline)"),
        1,
        "this is the pathwise gradient",
    ),
    Mistake("score", "the baseline always", _changed(_SCORE, ("if baseline:", "if True:")), 4, "although it was not asked for"),
    Mistake(
        "study",
        "the variance of single draws",
        _changed(_STUDY, ("one.mean(1).var(0).mean()", "one.flatten(0, 1).var(0).mean()")),
        1,
        "the variance of single draws",
    ),
    Mistake(
        "study",
        "the standard deviation",
        _changed(_STUDY, ("one.mean(1).var(0).mean()", "one.mean(1).std(0).mean()")),
        0,
        "this is a standard deviation",
    ),
    Mistake(
        "study",
        "the same noise in every repetition",
        _changed(
            _STUDY, ("torch.randn(repeats, draws,", "torch.randn(1, draws,"), ("dtype=mu.dtype)", "dtype=mu.dtype).repeat(repeats, 1, 1)")
        ),
        0,
        "all repetitions have the same noise",
    ),
    Mistake(
        "study",
        "the sum over the dimensions",
        _changed(_STUDY, ("one.mean(1).var(0).mean()", "one.mean(1).var(0).sum()")),
        2,
        "the sum over the dimensions",
    ),
    Mistake(
        "study",
        "the variance of the grand mean",
        _changed(_STUDY, (".mean().item()", ".mean().item() / repeats")),
        2,
        "divided by the number of repetitions",
    ),
    Mistake(
        "cost",
        "the maximum for each picture",
        _changed(_COST, ("kl_terms.mean(0).clamp(min=floor).sum()", "kl_terms.clamp(min=floor).mean(0).sum()")),
        4,
        "the maximum is taken for each picture",
    ),
    Mistake(
        "cost",
        "no end of the warm-up",
        _changed(_COST, ("min(1.0, step / warm) if", "step / warm if")),
        2,
        "beta goes on rising|beta is not 1",
    ),
    Mistake(
        "cost",
        "warm = 0 divides by zero",
        _changed(_COST, ("min(1.0, step / warm) if warm else 1.0", "min(1.0, step / warm)")),
        4,
        "ZeroDivisionError",
    ),
    Mistake("cost", "the dimensions in use", _changed(_COST, ("cost[d] < least", "cost[d] >= least")), 4, "the dimensions that are in use"),
    Mistake(
        "cost",
        "the variance of the means decides",
        _changed(_COST, ("cost = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).mean(0)", "cost = mu.var(0)")),
        4,
        "by the variance of the means",
    ),
    Mistake("train", "no KL in the loss", _changed(_TRAIN, ("loss = misfit + rate", "loss = misfit")), 0, "does the KL weigh too little"),
    Mistake(
        "train",
        "the mean of the squares beside the sum of the KL",
        _changed(_TRAIN, (".sum(1).mean() / (2 * noise**2)", ".mean() / (2 * noise**2)")),
        5,
        "with its full weight",
    ),
    Mistake(
        "train",
        "the draw is cut off",
        _changed(_TRAIN, ("torch.randn(mu.shape)", "torch.randn(mu.shape)\n        z = z.detach()")),
        0,
        "does the likelihood reach the encoder",
    ),
    Mistake(
        "train",
        "the decoder sees the mean only",
        _changed(_TRAIN, ("z = mu + (0.5 * logvar).exp() * torch.randn(mu.shape)", "z = mu")),
        0,
        "was it trained on draws",
    ),
    Mistake(
        "train",
        "the KL averaged over the dimensions",
        _changed(_TRAIN, ("- logvar - 1).sum(1).mean()", "- logvar - 1).mean()")),
        5,
        "are worth it",
    ),
]
