"""The algorithms once more, slowly and by hand: one Python float at a time, from the published equations.

An equation takes one element of the parameter and of the gradient, what it remembers (None at the start), the count of
this update from 1, the rate and the settings, and returns the new element and what it remembers next. One that needs
the norm of a whole parameter is a generator: it yields what this element is of that, and is sent the norm.
"""

import functools
import inspect
import itertools
import math
import struct
from fractions import Fraction


def sgd(p, g, memory, t, lr):
    return p - lr * g, ()


def sgd_momentum(p, g, memory, t, lr, momentum):
    """update(t) = momentum * update(t-1) + lr(t) * grad; the parameter moves by -update(t)."""
    (update,) = memory or (0.0,)
    update = momentum * update + lr * g
    return p - update, (update,)


def sgd_nesterov(p, g, memory, t, lr, momentum):
    """Sutskever et al., eqs. 3 and 4, v' = mu v - lr f'(x + mu v) and x' = x + v', told of the point x + mu v."""
    v = -memory[0] if memory else 0.0
    x = p - momentum * v
    v = momentum * v - lr * g
    return x + v + momentum * v, (-v,)


def sgd_dampened(p, g, memory, t, lr, momentum, dampening):
    """As `sgd_momentum`, of 1 - dampening of each gradient but the first."""
    update = lr * g if memory is None else momentum * memory[0] + lr * ((1 - dampening) * g)
    return p - update, (update,)


def sgd_outside(p, g, memory, t, lr, momentum, dampening=0.0):
    """torch.optim.SGD, as its documentation has it: b = g at first, then b = momentum b + (1 - dampening) g."""
    b = g if memory is None else momentum * memory[0] + (1 - dampening) * g
    return p - lr * b, (b,)


def sgd_outside_nesterov(p, g, memory, t, lr, momentum):
    """The same with nesterov: g + momentum b takes the place of b."""
    b = g if memory is None else momentum * memory[0] + g
    return p - lr * (g + momentum * b), (b,)


def adagrad(p, g, memory, t, lr, eps):
    """cache(t) = cache(t-1) + grad**2; update = lr * grad / (sqrt(cache(t)) + eps)."""
    (cache,) = memory or (0.0,)
    cache = cache + g**2
    return p - lr * g / (math.sqrt(cache) + eps), (cache,)


def adagrad_initial(p, g, memory, t, lr, eps, initial):
    """The same with cache(0) = initial."""
    return adagrad(p, g, memory or (initial,), t, lr, eps)


def adagrad_decaying(p, g, memory, t, lr, eps, lr_decay):
    """The same with the rate of torch.optim.Adagrad, clr = lr / (1 + (t - 1) lr_decay)."""
    return adagrad(p, g, memory, t, lr / (1 + (t - 1) * lr_decay), eps)


def rmsprop(p, g, memory, t, lr, decay, eps):
    """cache(t) = decay * cache(t-1) + (1 - decay) * grad**2; update = lr * grad / (sqrt(cache(t)) + eps)."""
    (cache,) = memory or (0.0,)
    cache = decay * cache + (1 - decay) * g**2
    return p - lr * g / (math.sqrt(cache) + eps), (cache,)


def rmsprop_centered(p, g, memory, t, lr, decay, eps):
    """Graves, eqs. 38 to 41, without his momentum: n and g decay, and the root is of n - g^2 + eps."""
    n, mean = memory or (0.0, 0.0)
    n, mean = decay * n + (1 - decay) * g**2, decay * mean + (1 - decay) * g
    return p - lr * g / math.sqrt(max(n - mean**2, 0.0) + eps), (n, mean)


def rmsprop_centered_momentum(p, g, memory, t, lr, decay, eps, momentum):
    """The same with it, and eps outside the root."""
    n, mean, velocity = memory or (0.0, 0.0, 0.0)
    n, mean = decay * n + (1 - decay) * g**2, decay * mean + (1 - decay) * g
    delta = momentum * -velocity - lr * g / (math.sqrt(max(n - mean**2, 0.0)) + eps)
    return p + delta, (n, mean, -delta)


def rmsprop_momentum(p, g, memory, t, lr, decay, eps, momentum):
    """The same with n alone, and eps inside."""
    n, velocity = memory or (0.0, 0.0)
    n = decay * n + (1 - decay) * g**2
    delta = momentum * -velocity - lr * g / math.sqrt(n + eps)
    return p + delta, (n, -delta)


def adam(p, g, memory, t, lr, decay1, decay2, eps):
    """Kingma and Ba, Algorithm 1, line by line."""
    m, v = memory or (0.0, 0.0)
    m = decay1 * m + (1 - decay1) * g
    v = decay2 * v + (1 - decay2) * g**2
    m_hat = m / (1 - decay1**t)
    v_hat = v / (1 - decay2**t)
    return p - lr * m_hat / (math.sqrt(v_hat) + eps), (m, v)


def adam_uncorrected(p, g, memory, t, lr, decay1, decay2, eps):
    """Kingma and Ba, end of section 2: alpha_t = alpha sqrt(1 - b2^t) / (1 - b1^t), and eps beside sqrt(v)."""
    m, v = memory or (0.0, 0.0)
    m = decay1 * m + (1 - decay1) * g
    v = decay2 * v + (1 - decay2) * g**2
    return p - lr * math.sqrt(1 - decay2**t) / (1 - decay1**t) * m / (math.sqrt(v) + eps), (m, v)


def adamw(p, g, memory, t, lr, decay1, decay2, eps, weight_decay=0.01):
    """Loshchilov and Hutter, Algorithm 2, with the schedule multiplier in the rate: the decay is beside Adam's step."""
    new, memory = adam(p, g, memory, t, lr, decay1, decay2, eps)
    return new - lr * weight_decay * p, memory


def amsgrad(p, g, memory, t, lr, decay1, decay2, eps):
    """Reddi, Kale and Kumar, Algorithm 2, line by line, and of Adam what it leaves out: both corrections and eps."""
    m, v, v_hat = memory or (0.0, 0.0, 0.0)
    m = decay1 * m + (1 - decay1) * g
    v = decay2 * v + (1 - decay2) * g**2
    v_hat = max(v_hat, v)
    return p - lr * (m / (1 - decay1**t)) / (math.sqrt(v_hat / (1 - decay2**t)) + eps), (m, v, v_hat)


def lion(p, g, memory, t, lr, decay1, decay2):
    """Chen et al., Algorithm 2, without weight decay."""
    (m,) = memory or (0.0,)
    c = decay1 * m + (1 - decay1) * g
    return p - lr * sign(c), (decay2 * m + (1 - decay2) * g,)


def radam(p, g, memory, t, lr, decay1, decay2, eps, threshold):
    """Liu et al., Algorithm 2, line by line, with Adam's eps; rho in fractions: it is a difference of large ones."""
    m, v = memory or (0.0, 0.0)
    m = decay1 * m + (1 - decay1) * g
    v = decay2 * v + (1 - decay2) * g**2
    m_hat = m / (1 - decay1**t)
    rho, longest, correction = radam_length(decay2, t)
    if rho <= threshold:
        return p - lr * m_hat, (m, v)
    r = math.sqrt((rho - 4) * (rho - 2) * longest / ((longest - 4) * (longest - 2) * rho))
    return p - lr * r * m_hat / (math.sqrt(v / correction) + eps), (m, v)


@functools.cache
def radam_length(decay2, t):
    """rho(t), rho(infinity), and 1 - decay2**t."""
    decay2 = Fraction(decay2)
    longest = 2 / (1 - decay2) - 1
    return float(longest - 2 * t * decay2**t / (1 - decay2**t)), float(longest), float(1 - decay2**t)


def adamax(p, g, memory, t, lr, decay1, decay2, eps):
    """Kingma and Ba, Algorithm 2, line by line, with eps added to the magnitude of the gradient."""
    m, u = memory or (0.0, 0.0)
    m = decay1 * m + (1 - decay1) * g
    u = max(decay2 * u, abs(g) + eps)
    return p - lr / (1 - decay1**t) * m / u, (m, u)


def adabelief(p, g, memory, t, lr, decay1, decay2, eps):
    """Zhuang et al., Algorithm 2, line by line."""
    m, s = memory or (0.0, 0.0)
    m = decay1 * m + (1 - decay1) * g
    s = decay2 * s + (1 - decay2) * (g - m) ** 2 + eps
    m_hat, s_hat = m / (1 - decay1**t), s / (1 - decay2**t)
    return p - lr * m_hat / (math.sqrt(s_hat) + eps), (m, s)


def adadelta(p, g, memory, t, lr, decay, eps):
    """Zeiler, Algorithm 1, line by line, with a rate before the update."""
    of_g, of_x = memory or (0.0, 0.0)
    of_g = decay * of_g + (1 - decay) * g**2
    x = -math.sqrt(of_x + eps) / math.sqrt(of_g + eps) * g
    of_x = decay * of_x + (1 - decay) * x**2
    return p + lr * x, (of_g, of_x)


def signum(p, g, memory, t, lr, momentum):
    """Bernstein et al., Algorithm 2."""
    (m,) = memory or (0.0,)
    m = momentum * m + (1 - momentum) * g
    return p - lr * sign(m), (m,)


def adan(p, g, memory, t, lr, decay1, decay2, decay3, eps):
    """Xie et al., Algorithm 1, with b = 1 - decay, means that start at 0, and its authors' corrections."""
    b1, b2, b3 = 1 - decay1, 1 - decay2, 1 - decay3
    m, v, n, before = memory or (0.0, 0.0, 0.0, g)
    m = (1 - b1) * m + b1 * g
    v = (1 - b2) * v + b2 * (g - before)
    n = (1 - b3) * n + b3 * (g + (1 - b2) * (g - before)) ** 2
    rate = lr / (math.sqrt(n / (1 - decay3**t)) + eps)
    return p - rate * (m / (1 - decay1**t) + (1 - b2) * v / (1 - decay2**t)), (m, v, n, g)


def adopt(p, g, memory, t, lr, decay1, decay2, eps):
    """Taniguchi et al., Algorithm 2, clipped at the fourth root of its count, which is 0 where v begins."""
    if memory is None:
        return p, (0.0, g**2)
    m, v = memory
    c = (t - 1) ** 0.25
    m = decay1 * m + (1 - decay1) * max(-c, min(g / max(math.sqrt(v), eps), c))
    return p - lr * m, (m, decay2 * v + (1 - decay2) * g**2)


def ademamix(p, g, memory, t, lr, decay1, decay2, decay3, alpha, eps, alpha_steps=0.0, decay3_steps=0.0):
    """Pagliardini, Ablin and Grangier, Algorithm 1, line by line, with the schedules of section 3."""
    m1, m2, v = memory or (0.0, 0.0, 0.0)
    if t < alpha_steps:
        alpha = t * alpha / alpha_steps
    if t < decay3_steps:
        x, start, end = t / decay3_steps, math.log(decay1) if decay1 else -math.inf, math.log(decay3)
        decay3 = min(math.exp(end / ((1 - x) * end / start + x)), decay3)  # numerator and denominator over ln(start)
    m1 = decay1 * m1 + (1 - decay1) * g
    m2 = decay3 * m2 + (1 - decay3) * g
    v = decay2 * v + (1 - decay2) * g**2
    m1_hat, v_hat = m1 / (1 - decay1**t), v / (1 - decay2**t)
    return p - lr * (m1_hat + alpha * m2) / (math.sqrt(v_hat) + eps), (m1, m2, v)


def yogi(p, g, memory, t, lr, decay1, decay2, eps, initial):
    """Zaheer et al., Algorithm 2, line by line, with Adam's corrections."""
    m, v = memory or (0.0, initial)
    m = decay1 * m + (1 - decay1) * g
    v = v - (1 - decay2) * sign(v - g**2) * g**2
    return p - lr * (m / (1 - decay1**t)) / (math.sqrt(v / (1 - decay2**t)) + eps), (m, v)


def nadam(p, g, memory, t, lr, decay1, decay2, eps, momentum_decay):
    """Dozat, Algorithm 2, line by line, with mu_t = decay1 (1 - 0.96^(t psi) / 2) and the product of all of them."""
    m, v, product = memory or (0.0, 0.0, 1.0)
    mu, ahead = (decay1 * (1 - 0.5 * 0.96 ** (k * momentum_decay)) for k in (t, t + 1))
    product *= mu
    m, v = decay1 * m + (1 - decay1) * g, decay2 * v + (1 - decay2) * g * g
    m_hat = ahead * m / (1 - product * ahead) + (1 - mu) * g / (1 - product)
    return p - lr * m_hat / (math.sqrt(v / (1 - decay2**t)) + eps), (m, v, product)


def ftrl(p, g, memory, t, lr, l1=0.0, l2=0.0, beta=1.0, initial=0.0):
    """McMahan et al., Algorithm 1, its z times alpha; it begins where it gives the first parameter."""
    w, n = memory or (p, initial)
    z = -(beta + math.sqrt(n)) * w
    sigma = math.sqrt(n + g * g) - math.sqrt(n)
    z, n = z + lr * g - sigma * p, n + g * g
    new = 0.0 if abs(z) <= lr * l1 else -(z - sign(z) * lr * l1) / (beta + math.sqrt(n) + lr * l2)
    return new, (-z / (beta + math.sqrt(n)), n)


def schedule_free(p, g, memory, t, lr, momentum, weight_decay=0.0):
    """Defazio et al., eqs. 3 to 5, told of y; the weights are the authors', the square of the largest rate."""
    z, weights, top = memory or (p, 0.0, 0.0)
    x = (p - (1 - momentum) * z) / momentum
    z = z - lr * (g + weight_decay * p)
    weights, top = weights * top**2, max(top, lr)
    weights = (weights + top**2) / top**2 if top else 1.0
    x = (1 - 1 / weights) * x + 1 / weights * z
    return (1 - momentum) * z + momentum * x, (z, weights, top)


def schedule_free_adamw(p, g, memory, t, lr, momentum, decay2, eps, weight_decay=0.0):
    """The same with the gradient that AdamW divides by the root of its mean square, of which the decay is none."""
    v, *free = memory or (0.0,)
    v = decay2 * v + (1 - decay2) * g**2
    step = g / (math.sqrt(v / (1 - decay2**t)) + eps)
    new, free = schedule_free(p, step, free or None, t, lr, momentum, weight_decay)
    return new, (v, *free)


def fista(p, g, memory, t, lr, bounds=None, prox=None):
    """Beck and Teboulle, eqs. 4.1 to 4.3, told of y: it remembers x, and t of the paper."""
    x, pace = memory or (p, 1.0)
    new = mapped(p - lr * g, lr, bounds, prox)
    faster = (1 + math.sqrt(1 + 4 * pace**2)) / 2
    return new + (pace - 1) / faster * (new - x), (new, faster)


def mapped(x, lr, bounds=None, prox=None):
    """The nearest number between two bounds; or what soft thresholding by rate times weight leaves."""
    low, high = bounds or (None, None)
    x = x if low is None else max(low, x)
    x = x if high is None else min(x, high)
    return x if prox is None else sign(x) * max(abs(x) - lr * prox.weight, 0.0)


def sign(x):
    return float(x > 0) - float(x < 0)


def rprop(p, g, memory, t, lr, down, up, least, most):
    """Igel and Huesken, iRprop-, line by line."""
    before, size = memory or (0.0, lr)
    if g * before > 0:
        size = min(size * up, most)
    elif g * before < 0:
        size = max(size * down, least)
        g = 0.0
    return p - sign(g) * size, (sign(g), size)


def lookback(p, g, memory, t, lr):
    """No published method: it moves along this gradient and the one before."""
    (before,) = memory or (0.0,)
    return p - lr * (g + before), (g,)


def norm(values):
    """The L2 norm; hypot neither overflows nor underflows on the way, and errs by less than one ulp."""
    return math.hypot(*values)


def clipped(gradient, clip_norm):
    """Pascanu, Mikolov and Bengio, Algorithm 1: scaled down to a norm of `clip_norm` where it is above."""
    # in digits and exponents of two, so that no quotient or product leaves the numbers before the end
    largest = max(map(abs, gradient), default=0.0)
    shift = math.frexp(largest)[1]
    length = norm([math.ldexp(g, -shift) for g in gradient])
    if largest == 0 or Fraction(length) * Fraction(2) ** shift <= clip_norm:
        return list(gradient)
    (a, up), (b, down) = math.frexp(clip_norm), math.frexp(length)
    return [math.ldexp(digits * (a / b), k + up - down - shift) for digits, k in map(math.frexp, gradient)]


def lamb(p, g, memory, t, lr, decay1, decay2, eps, weight_decay=0.0):
    """You et al., Algorithm 2, with phi(z) = z; of a norm of 0 the ratio is 1."""
    m, v = memory or (0.0, 0.0)
    m, v = decay1 * m + (1 - decay1) * g, decay2 * v + (1 - decay2) * g**2
    r = m / (1 - decay1**t) / (math.sqrt(v / (1 - decay2**t)) + eps) + weight_decay * p
    norm = yield p
    length = yield r
    ratio = norm / length if norm > 0 and length > 0 else 1.0
    return p - lr * ratio * r, (m, v)


def lars(p, g, memory, t, lr, momentum, trust, weight_decay=0.0):
    """You, Gitman and Ginsburg, Algorithm 1; of a norm of 0 the local rate is 1."""
    norm = yield p
    size = yield g
    local = trust * norm / (size + weight_decay * norm) if norm > 0 and size > 0 else 1.0
    v = momentum * (memory or (0.0,))[0] + lr * local * (g + weight_decay * p)
    return p - v, (v,)


def novograd(p, g, memory, t, lr, decay1, decay2, eps, weight_decay=0.0):
    """Ginsburg et al., Algorithm 1."""
    norm = yield g
    m, v = memory or (0.0, None)
    v = norm**2 if v is None else decay2 * v + (1 - decay2) * norm**2
    m = decay1 * m + (g / (math.sqrt(v) + eps) + weight_decay * p)
    return p - lr * m, (m, v)


def seen(p, g, *, loss_scale=1.0, maximize=False, bounds=None, clip_value=None, **others):
    """An element of the gradient with what comes before its norm is taken, in the documented order."""
    g = g / loss_scale
    g = -g if maximize else g
    low, high = bounds or (None, None)
    if (low is not None and p <= low and g > 0) or (high is not None and p >= high and g < 0):
        g = 0.0
    return g if clip_value is None else max(-clip_value, min(g, clip_value))


def looking_ahead(equation, every, pull):
    """Zhang et al., Algorithm 1, around an equation of which the state is maintained: it remembers that, and phi."""

    def step(p, g, memory, t, lr, **settings):
        inner, slow = memory or (None, p)
        new, inner = yield from started(equation(p, g, inner, t, lr, **settings))
        if t % every == 0:
            new = slow = slow + pull * (new - slow)
        return new, (inner, slow)

    return step


def around(
    equation,
    *,
    lr_scale=1.0,
    l2=0.0,
    cautious=False,
    weight_decay=0.0,
    lookahead=None,
    bounds=None,
    prox=None,
    **others,
):
    """An equation with what goes with it, in the documented order."""

    def rate(t, lr, lr_decay=0.0, **settings):
        return lr / (1 + (t - 1) * lr_decay)

    def decayed(p, g, memory, t, lr, **settings):
        lr, g = lr * lr_scale, g + l2 * p
        new, memory = yield from started(equation(p, g, memory, t, lr, **settings))
        new = p if cautious and (p - new) * g <= 0 else new
        return new - rate(t, lr, **settings) * weight_decay * p, memory

    ahead = decayed if lookahead is None else looking_ahead(decayed, lookahead.every, lookahead.pull)

    def step(p, g, memory, t, lr, **settings):
        new, memory = yield from ahead(p, g, memory, t, lr, **settings)
        return mapped(new, rate(t, lr * lr_scale, **settings), bounds, prox), memory

    return step


def started(result):
    """Pass on what an equation yields, if it is a generator, and return what it returns."""
    return (yield from result) if inspect.isgenerator(result) else result


def together(elements):
    """Return what the equations of all elements of a parameter return; each is sent the norm of what they yield."""
    elements, sent = [started(of) for of in elements], itertools.repeat(None)
    while True:
        asked, results = [], []
        for of, norm in zip(elements, sent, strict=False):
            try:
                asked.append(of.send(norm))
            except StopIteration as stopped:
                results.append(stopped.value)
        if not asked:
            return results
        sent = itertools.repeat(math.sqrt(math.fsum(x * x for x in asked)))


def walk(equation, start, gradients, rates, clip_norm=None, *, options=None, places=None, **settings):
    """Take a step per gradient; return, after each, the elements and what is remembered of each."""
    # options go around the equation, and so does the decay of one that has it; with places, each step begins there
    if options and equation is adamw:
        equation, options = adam, {"weight_decay": 0.01, **options}
    options = options or {}
    within = inspect.signature(equation).parameters  # what an equation takes itself does not go around it
    settings |= {name: value for name, value in options.items() if name in within}
    options = {name: value for name, value in options.items() if name not in within}
    equation = around(equation, **options)
    elements, memories, path = list(start), [None for _ in start], []
    for t, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        if places is not None:
            elements = list(places[t - 1])
        gradient = [seen(p, g, **options) for p, g in zip(elements, gradient, strict=True)]
        if clip_norm is not None:
            gradient = clipped(gradient, clip_norm)
        pairs = together(
            equation(p, g, memory, t, rate, **settings)
            for p, g, memory in zip(elements, gradient, memories, strict=True)
        )
        elements, memories = [p for p, _ in pairs], [memory for _, memory in pairs]
        path.append((elements, memories))
    return path


def to_float32(x):
    """The nearest float32."""
    return struct.unpack("f", struct.pack("f", x))[0]


def ulp(x, dtype):
    """The distance between neighbouring numbers of a dtype at `x`."""
    digits, smallest = {"float16": (11, -24), "bfloat16": (8, -133), "float32": (24, -149), "float64": (53, -1074)}[
        dtype
    ]
    return math.ldexp(1.0, max(math.frexp(x)[1] - digits, smallest))
