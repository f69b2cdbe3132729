"""Each two of algorithm, option, dtype, engine, `out=` and way to call: numbers, bits, errors, copies."""

import numpy as np
import pytest
from _kit import low_precision, oracles, pairwise
from _kit.bits import cast, dyadic, normal, same_bits
from _kit.engines import needs_llvmlite
from _kit.table import BY_RULE
from _kit.trajectories import UNIT, assert_close
from _kit.variants import AROUND, LEAVES_OUT, VARIANTS, settings_of

import xpopt

SHAPES = {"matrix": (5, 3), "number": (), "vector": (7,)}
STEPS = 4
LR = 0.1


COMBINATIONS = [
    pytest.param(row, id=",".join(row.values()), marks=[needs_llvmlite] if row["engine"] == "compiled" else [])
    for row in pairwise.read()
]


def test_every_pair_is_there():
    rows = pairwise.read()
    covered = set().union(*map(pairwise.pairs_of, rows))
    assert covered == pairwise.all_pairs(), (
        "tests/_kit/pairs.csv is not of this table: cd tests && python -m _kit.pairwise"
    )


def test_what_is_missing_is_seen():
    axes = {"a": ["1", "2", "3"], "b": ["1", "2"], "c": ["1", "2"]}
    rows = pairwise.generate(axes)
    assert 6 <= len(rows) < 12
    assert set().union(*map(pairwise.pairs_of, rows)) == pairwise.all_pairs(axes)
    assert set().union(*map(pairwise.pairs_of, rows[:-1])) < pairwise.all_pairs(axes)


def draw(dtype, of):
    """Draw the start, and a gradient for each step by `of`."""
    rng = np.random.default_rng(20170814)
    start = {name: cast(0.3 * normal(rng, shape), dtype) for name, shape in SHAPES.items()}
    return start, [{name: cast(of(rng, shape), dtype) for name, shape in SHAPES.items()} for _ in range(STEPS)]


def places(row, params):
    """Return the arrays that results go to, by name."""
    apart = {name: np.full_like(x, 7) for name, x in params.items()}
    return {"new": {}, "in place": params, "apart": apart}[row["out"]]


def update(row, opt, params, grads, out=None):
    """Update the model as the row says; return the results."""
    out = places(row, params) if out is None else out
    if row["way"] == "update_all":
        return opt.update_all(params, grads, out=out or None)
    return {name: opt.update(x, grads[name], name, out=out.get(name)) for name, x in params.items()}


def step(row, opt, params, grads):
    """Update the model, and go on to the next step."""
    new = update(row, opt, params, grads)
    if row["way"] == "update":
        opt.step()
    return new


def bytes_of(values):
    return {name: x.tobytes() for name, x in values.items()}


def held(opt):
    """Return all that an optimizer holds."""
    state = opt.state_dict()
    return state["header"], {key: (x.dtype, x.shape, x.tobytes()) for key, x in state["arrays"].items()}


def assert_as_the_equation_says(row, case, options, start, grads, got):
    """Of float64, one element at a time; what 16 bits hold is rounded from that, once at each step or of a copy."""
    narrow = row["dtype"] in low_precision.LOST
    for name, shape in SHAPES.items():
        gradients = [g[name].astype(np.float64).ravel().tolist() for g in grads]
        own = settings_of(options, name)
        size, clip_norm = len(gradients[0]), own.get("clip_norm")
        roundings = case.roundings + (0 if clip_norm is None else size + 5)
        begin = start[name].astype(np.float64).ravel()
        rates = [own.get("lr", LR)] * len(grads)
        values = np.array([x[name].astype(np.float64).reshape(size) for x in got])
        before = np.vstack([begin, values[:-1]])
        around = {option: own[option] for option in AROUND if option in own}
        # of 16 bits without a copy, each step starts from what the dtype made of the one before
        places = before if narrow and not options.get("master") else None
        path = oracles.walk(
            case.equation, begin, gradients, rates, clip_norm, options=around, places=places, **case.arguments
        )
        exact = np.array([p for p, _ in path])
        if "slots_dtype" in options:  # whose last bit is a part of 2**-11 at each step, and not the square of it
            moves = np.diff(np.vstack([begin, exact]), axis=0)
            ulps = np.vectorize(lambda x: oracles.ulp(x, row["dtype"]))(exact)
            assert np.all(np.abs(values - exact) <= 2.0**-9 * STEPS * np.max(np.abs(moves)) + ulps * STEPS), name
            continue
        if not narrow:
            assert_close(values, exact, begin, row["dtype"], roundings, f"{name} {shape}")
            continue
        moves = exact - (before if places is not None else np.vstack([begin, exact[:-1]]))
        ulps = np.vectorize(lambda x: oracles.ulp(x, row["dtype"]))(exact) / (2 - ("rounding" in options))
        float32 = UNIT["float32"] * STEPS * (np.abs(exact) + roundings * np.max(np.abs(moves)))
        assert np.all(np.abs(values - exact) <= ulps + float32), f"{name} {shape}"


@pytest.mark.parametrize("row", COMBINATIONS)
def test_a_combination(row):
    case, options = BY_RULE[row["algorithm"]], VARIANTS[row["option"]]
    clipped = any("clip_norm" in settings_of(options, name) for name in SHAPES)
    start, grads = draw(row["dtype"], dyadic if clipped else normal)
    opt = case.make(lr=LR, **options)
    eager = opt.copy()

    # numbers and bits
    params, want, got = {name: x.copy() for name, x in start.items()}, start, []
    with xpopt.engine(row["engine"]):
        for k, g in enumerate(grads):
            if k == 2 and row["option"] in LEAVES_OUT:
                params = left_out(row, opt, params, g)
            params = step(row, opt, params, g)
            got.append({name: x.copy() for name, x in params.items()})
            with xpopt.engine("eager"):
                want = eager.update_all(want, g)
            assert same_bits(params, want)
        assert same_bits(opt.cache, eager.cache)
    assert_as_the_equation_says(row, case, options, start, grads, got)

    # an error at the last parameter, of a wrong shape
    out = places(row, params)
    before, values = held(opt), [bytes_of(params), bytes_of(out)]
    wrong = {**grads[0], "vector": cast(np.ones(3), row["dtype"])}
    with xpopt.engine(row["engine"]):
        with pytest.raises(ValueError, match="shape"):
            update({**row, "way": "update_all"}, opt, params, wrong, out)
        with pytest.raises(ValueError, match="shape"):
            opt.update(params["vector"], wrong["vector"], "vector", out=out.get("vector"))
        assert held(opt) == before
        assert [bytes_of(params), bytes_of(out)] == values

        # copies go on alike
        again = case.make()
        again.load_state_dict(opt.state_dict(), like=params)
        ways = [opt.copy(), opt, again]
        ends = []
        for one in ways:
            mine = {name: x.copy() for name, x in params.items()}
            ends.append(step(row, one, mine, grads[1]))
    with xpopt.engine("eager"):
        want = eager.update_all(want, grads[1])
    assert all(same_bits(end, want) for end in ends)
    assert all(str(one) == str(eager) for one in ways)


def left_out(row, opt, params, grads):
    """Try a step whose gradients are not finite; it changes nothing."""
    bad = {name: np.full_like(x, np.nan) for name, x in grads.items()}
    values, before = bytes_of(params), held(opt)
    if row["option"] == "raise":
        with pytest.raises(FloatingPointError):
            update(row, opt, params, bad)
        assert held(opt) == before
    else:
        params = update(row, opt, params, bad)
        assert opt.skipped == {"update": len(SHAPES), "update_all": 1}[row["way"]]
    assert bytes_of(params) == values
    return params
