#!/usr/bin/env python3
"""Float64 reference for the pooling of naive-Bayes context extension (Scientific Spaces 9617, 9632).

    python3 pooling_reference.py ROWS.npy OPTIONS.json OUT.npz
    python3 pooling_reference.py --self-test

ROWS: (steps, n + 1, V) raw scores, row 0 without context. OPTIONS: the fields of PoolingOptions by name, those absent
at their default; beta is a number or "auto". OUT: pooled (steps, V), context (steps), entropies (steps, n), beta
(steps), fallback (steps).

Written from the description alone, apart from the C++ code, so that the two can be compared. Comments that begin with
"Choice:" mark what the description leaves open.
"""
import json
import math
import sys

import numpy as np

DEFAULTS = {"pooling": "min_entropy", "beta": 0.25, "eta": 0.1, "top_p": 0.95, "scores": [], "gamma": 1.0, "weights": []}
POOLINGS = ("min_entropy", "entropy_weighted", "mean", "max", "mixture", "weights")
FLOOR = -100.0  # an empty row not above this leaves the pooled value as it is


def log_sum_exp(x, axis=-1):
    """log(sum(exp(x))); -inf where all x are -inf."""
    top = np.max(x, axis=axis, keepdims=True)
    top = np.where(np.isneginf(top), 0.0, top)
    with np.errstate(divide="ignore"):
        return np.squeeze(top, axis) + np.log(np.sum(np.exp(x - top), axis=axis))


def log_softmax(x):
    x = np.asarray(x, dtype=np.float64)
    return x - log_sum_exp(x)[..., None]


def nucleus(row, top_p):
    """Mask of the tokens with less than top_p mass strictly above them; tokens of probability 0 never belong."""
    if top_p >= 1:
        return row > -np.inf
    values, group, count = np.unique(-row, return_inverse=True, return_counts=True)  # best first, ties in one group
    mass = np.exp(-values) * count
    above = np.concatenate([[0.0], np.cumsum(mass)[:-1]])
    return (above < top_p)[group.ravel()] & (row > -np.inf)


def entropy(row):
    """-sum p log p in nats, log p clipped to [-100, 0]; the row need not sum to 1 (it does not after top-p)."""
    return float(-np.sum(np.exp(row) * np.clip(row, FLOOR, 0.0)))


def jensen_shannon_bits(a, b):
    """Jensen-Shannon divergence, base 2, of two normalised rows of log-probabilities."""
    middle = np.logaddexp(a, b) - math.log(2)

    def relative_entropy(row):
        on = row > -np.inf
        return np.sum(np.exp(row[on]) * (row[on] - middle[on])) / math.log(2)

    return float(min(1.0, max(0.0, 0.5 * relative_entropy(a) + 0.5 * relative_entropy(b))))


def complete(options, n):
    """The options with defaults, checked. Raises ValueError outside their domain."""
    unknown = set(options) - set(DEFAULTS)
    if unknown:
        raise ValueError(f"unknown options {sorted(unknown)}")
    o = {**DEFAULTS, **options}
    if o["pooling"] not in POOLINGS:
        raise ValueError(f"unknown pooling {o['pooling']}")
    if o["beta"] != "auto" and not (math.isfinite(o["beta"]) and o["beta"] >= -1):
        raise ValueError("beta must be 'auto' or at least -1")
    if not 0 < o["top_p"] <= 1:
        raise ValueError("top_p must lie in (0, 1]")
    # Choice: eta must be finite and not negative, gamma finite (the description names no domain).
    if not (math.isfinite(o["eta"]) and o["eta"] >= 0 and math.isfinite(o["gamma"])):
        raise ValueError("eta must be at least 0 and gamma finite")
    # Choice: scores must be finite, and are checked only where they are used.
    if o["pooling"] in ("max", "mixture"):
        if len(o["scores"]) not in (0, n) or not np.all(np.isfinite(o["scores"])):
            raise ValueError("scores: one finite number a context, or none")
    if o["pooling"] == "weights":
        if len(o["weights"]) != n or not np.all(np.isfinite(o["weights"])):
            raise ValueError("weights: one finite number a context")
    return o


def pool_log_linear(raw, kept, weights):
    """sum_k w_k log p_k over the tokens in the nucleus of every context of non-zero weight: (row, fallback)."""
    used = weights != 0
    # Choice: with every weight 0 no context restricts anything: the pooled row is 0 (uniform), no fallback.
    inside = np.all(kept[used], axis=0)
    fallback = not np.any(inside)
    if fallback:
        # Choice: the union over the contexts of non-zero weight; others have no say.
        inside = np.any(kept[used], axis=0)
        # Choice: a token that some used context gives probability 0 even unfiltered stays out, whatever the sign of
        # the weight (a negative one would make it +inf).
        inside &= np.all(raw[used] > -np.inf, axis=0)
    pooled = np.full(raw.shape[1], -np.inf)
    pooled[inside] = weights[used] @ raw[used][:, inside]
    return pooled, bool(fallback)


def pool(rows, options, previous=-1):
    """One step. rows: (n + 1, V) raw scores. Returns (pooled_row, context, entropies, beta, fallback)."""
    rows = np.asarray(rows, dtype=np.float64)
    n = len(rows) - 1
    if n < 1 or not -1 <= previous < n:
        raise ValueError("no context, or previous is not one of them")
    if np.any(np.isnan(rows)) or np.any(rows == np.inf) or np.any(np.all(np.isneginf(rows), axis=1)):
        raise ValueError("scores must be finite or -inf, not all -inf")
    o = complete(options, n)

    raw = log_softmax(rows)
    kept = np.stack([nucleus(row, o["top_p"]) for row in raw])
    filtered = np.where(kept, raw, -np.inf)  # not renormalised
    empty, contexts = filtered[0], filtered[1:]
    entropies = np.array([entropy(row) for row in contexts])
    lowered = entropies.copy()
    if previous >= 0:
        lowered[previous] -= o["eta"]

    # P. Choice: P is not normalised before the contrast. It matters: where the empty row lies below the floor, P itself
    # stands beside (1 + beta) P - beta log p_0, so a constant in P does not cancel.
    # Of contexts with equal weights the one of least entropy is named; of equals there the first.
    def heaviest(weights):
        return int(np.lexsort((np.arange(n), entropies, -np.asarray(weights)))[0])

    fallback = False
    kind = o["pooling"]
    scores = np.array(o["scores"], dtype=np.float64) if len(o["scores"]) else np.zeros(n)
    if kind == "min_entropy":
        context = int(np.argmin(lowered))
        pooled = contexts[context]
    elif kind == "max":
        raised = contexts + o["gamma"] * scores[:, None]
        pooled = np.max(raised, axis=0)
        context = None  # known once the result is
    elif kind == "mixture":
        # Choice: gamma has no part here; filtered rows are mixed without renormalising.
        log_weights = log_softmax(scores)
        pooled = log_sum_exp(contexts + log_weights[:, None], axis=0)
        context = heaviest(log_weights)
    else:
        # Choice: in a fallback the weights still come from the filtered rows' entropies.
        weights = {"entropy_weighted": lambda: np.exp(log_softmax(-lowered)),
                   "mean": lambda: np.full(n, 1.0 / n),
                   "weights": lambda: np.array(o["weights"], dtype=np.float64)}[kind]()
        pooled, fallback = pool_log_linear(raw[1:], kept[1:], weights)
        # Choice: "most weight" is the largest with its sign, not in magnitude.
        context = heaviest(weights)
    if np.all(np.isneginf(pooled)):
        # Choice: contexts without a common token even unfiltered are an error.
        raise ValueError("no token has positive probability in every context")

    beta = o["beta"]
    if beta == "auto":
        # Choice: the divergence is taken to the empty row as given (normalised, before top-p), from the pooled row
        # normalised, before the contrast.
        beta = jensen_shannon_bits(pooled - log_sum_exp(pooled), raw[0])

    # Choice: the empty row keeps its filter in a fallback too, and the floor holds with top_p = 1 as well.
    # Choice: with beta = -1 a token that P excludes stays excluded (0 * -inf is read as -inf).
    contrast = (empty > FLOOR) & (pooled > -np.inf)
    result = pooled.copy()
    result[contrast] = (1 + beta) * pooled[contrast] - beta * empty[contrast]
    result = result - log_sum_exp(result)
    if kind == "max":
        # Choice: the context that gave the maximum at the most probable token of the result.
        context = int(np.argmax(raised[:, np.argmax(result)]))
    return result, context, entropies, float(beta), fallback


def walk(rows_by_step, options):
    """pool() over steps, each told the context of the step before. Arrays by name, as in OUT."""
    previous, steps = -1, []
    for rows in rows_by_step:
        steps.append(pool(rows, options, previous))
        previous = steps[-1][1]
    names = ("pooled", "context", "entropies", "beta", "fallback")
    return {name: np.array(column) for name, column in zip(names, zip(*steps))}


def self_test():
    def run(probabilities, previous=-1, **options):
        with np.errstate(divide="ignore"):
            rows = np.log(np.array(probabilities, dtype=np.float64)) + 3.0  # scores need not be normalised
        return pool(rows, {"beta": 0, "eta": 0, "top_p": 1, **options}, previous)

    def expect(what, found, wanted):
        assert np.allclose(found, wanted, rtol=0, atol=1e-12), (what, found, wanted)

    e, a, b = [.25, .25, .5], [.5, .25, .25], [.25, .5, .25]
    # Context-aware decoding: a^2 / e = 1, 1/4, 1/8.
    for kind in ("min_entropy", "mean", "max", "mixture", "entropy_weighted"):
        expect("n = 1 " + kind, np.exp(run([e, a], pooling=kind, beta=1)[0]), [8 / 11, 2 / 11, 1 / 11])
    # Naive Bayes: a b / e = 1/2, 1/2, 1/8.
    expect("naive Bayes", np.exp(run([e, a, b], pooling="mean", beta=1)[0]), [4 / 9, 4 / 9, 1 / 9])
    rng = np.random.default_rng(1)
    p = rng.dirichlet(np.ones(50), size=5)
    product = np.prod(p[1:], axis=0) / p[0] ** 3
    expect("naive Bayes, n = 4", np.exp(run(p, pooling="mean", beta=3)[0]), product / product.sum())

    expect("mixture", np.exp(run([e, a, b], pooling="mixture")[0]), [3 / 8, 3 / 8, 1 / 4])
    r = run([e, a, b], pooling="mixture", scores=[0, math.log(3)])
    expect("mixture, scores", np.exp(r[0]), [5 / 16, 7 / 16, 1 / 4])
    assert r[1] == 1
    # Maximum 1/2, 1/2, 1/4; with the second doubled 1/2, 1, 1/2.
    expect("max", np.exp(run([e, a, b], pooling="max")[0]), [.4, .4, .2])
    r = run([e, a, b], pooling="max", scores=[0, math.log(4)], gamma=.5)
    expect("max, scores", np.exp(r[0]), [.25, .5, .25])
    assert r[1] == 1
    expect("max, gamma 0", np.exp(run([e, a, b], pooling="max", scores=[0, 9], gamma=0)[0]), [.4, .4, .2])
    # a^2 / b = 1, 1/8, 1/4; a context of weight 0 may exclude a token without effect.
    expect("weights", np.exp(run([e, a, b], pooling="weights", weights=[2, -1])[0]), [8 / 11, 1 / 11, 2 / 11])
    expect("weight 0", np.exp(run([e, a, [1, 0, 0]], pooling="weights", weights=[1, 0])[0]), a)

    # Entropies 3/2 and 7/4 log 2: weights w, 1 - w with 2w - 1 = (1 - 2^-1/4) / (1 + 2^-1/4) = 0.0864275...
    r = run([[.25] * 4, [.5, .25, .25, 0], [.25, .5, .125, .125]], pooling="entropy_weighted")
    expect("entropies", r[2], [1.5 * math.log(2), 1.75 * math.log(2)])
    tilt = (1 - 2 ** -.25) / (1 + 2 ** -.25)
    assert abs(tilt - 0.0864275) < 1e-6
    expect("entropy weights", r[0][0] - r[0][1], tilt * math.log(2))
    r = run([[.25] * 4, [.5, .25, .25, 0], [.25, .5, .125, .125]], 1, pooling="entropy_weighted", eta=.25 * math.log(2))
    expect("entropy weights evened by eta", r[0][0] - r[0][1], 0)

    # Least entropy: a tie goes to the lowest index without eta and to the context before with it.
    assert run([e, a, a], 1)[1] == 0 and run([e, a, a], 1, eta=.1)[1] == 1
    # Entropies log 2 = 0.6931 and h(.6) = 0.6730: closer than eta = 0.1; h(.9) = 0.3251 is not.
    near, sharp = [[.5, .5], [.5, .5], [.6, .4]], [[.5, .5], [.5, .5], [.9, .1]]
    assert run(near, -1, eta=.1)[1] == 1 and run(near, 0, eta=.1)[1] == 0 and run(sharp, 0, eta=.1)[1] == 1
    steps = walk(np.log([near, sharp, [near[0], near[2], near[1]]]), {"eta": .1, "top_p": 1})
    assert steps["context"].tolist() == [1, 1, 1], steps["context"]
    steps = walk(np.log([near, sharp, [near[0], near[2], near[1]]]), {"eta": 0, "top_p": 1})
    assert steps["context"].tolist() == [1, 1, 0], steps["context"]

    # Nucleus: ties at the edge stay; what is left keeps its mass 0.6 in the entropy.
    assert nucleus(np.log(a), .4).tolist() == [True, False, False] and np.all(nucleus(np.log(a), .6))
    r = run([[.1, .6, .3], [.6, .3, .1]], top_p=.5)
    expect("entropy after top-p", r[2], [-.6 * math.log(.6)])
    # Empty row outside its nucleus: (1 + beta) P - beta log p_0 only at token 0. .4^2/.5 = .32 against .4 and .2.
    r = run([[.5, .3, .2], [.4, .4, .2]], top_p=.45, beta=1)
    expect("floor by top-p", np.exp(r[0]), [.32 / .72, .4 / .72, 0])

    # Disjoint nuclei {0} and {1}: geometric means .4 and .32 over the union; the empty nucleus is {0}.
    disjoint = [[.6, .3, .1], [.64, .16, .2], [.25, .64, .11]]
    r = run(disjoint, pooling="mean", top_p=.5)
    expect("disjoint", np.exp(r[0]), [5 / 9, 4 / 9, 0])
    assert r[4] and np.isneginf(r[0][2]) and not run(disjoint, pooling="mean")[4]
    # beta = 1: .4^2 / .6 = 4/15 beside .32 = 4.8/15.
    expect("disjoint, beta", np.exp(run(disjoint, pooling="mean", top_p=.5, beta=1)[0]), [5 / 11, 6 / 11, 0])
    assert not run(disjoint, pooling="max", top_p=.5)[4] and not run(disjoint, pooling="mixture", top_p=.5)[4]

    # Jensen-Shannon: (1, 0) to (1/2, 1/2) has middle (3/4, 1/4): 3/4 log2(4/3) = 0.3112781.
    r = run([[.5, .5], [1, 0]], beta="auto")
    expect("divergence", r[3], .75 * math.log2(4 / 3))
    assert abs(r[3] - 0.3112781) < 1e-7
    expect("divergence of equals", run([a, a], beta="auto")[3], 0)
    expect("divergence of disjoint rows", run([[0, 1], [1, 0]], beta="auto")[3], 1)
    expect("beta = -1 is the empty row", np.exp(run([e, a], beta=-1)[0]), e)
    expect("beta = -1 keeps P's support", np.exp(run([e, [.5, .5, 0]], beta=-1)[0]), [.5, .5, 0])
    for bad in ({"top_p": 0}, {"beta": -2}, {"pooling": "median"}, {"pooling": "weights"}, {"temperature": 1}):
        try:
            run([e, a], **bad)
        except ValueError:
            continue
        raise AssertionError(bad)
    print("pooling_reference: self-test passed")


def main(arguments):
    if arguments == ["--self-test"]:
        return self_test()
    if len(arguments) != 3:
        sys.exit(__doc__)
    with open(arguments[1], encoding="utf-8") as file:
        options = json.load(file)
    np.savez(arguments[2], **walk(np.load(arguments[0], mmap_mode="r"), options))


if __name__ == "__main__":
    main(sys.argv[1:])
