#!/usr/bin/env python3
"""Makes the high-precision cases that the smooth top-k test compares against (needs mpmath; gmpy2 makes it faster).

    python3 make_topk_cases.py [--out topk_cases.json]

Every number is computed with mpmath from the definition, in 150 digits and as many more as exp(-range(x)/tau) has
zeros, and is checked here against closed forms, brute force over all subsets and numeric derivatives.

Definitions, for one row x, k and tau > 0. Entries at -inf get p = 0 and derivative 0 and otherwise leave the row;
n counts the others.

threshold methods (ThreTopK, Scientific Spaces; k real)
    p_i = f((x_i - t) / tau) with t such that sum p = k
    exponential  f(z) = min(1, e^z)
    sigmoid      f(z) = 1 / (1 + e^-z)
    laplace      f(z) = 1 - e^-z / 2 for z >= 0, e^z / 2 below (the Laplace distribution function)
    clip         f(z) = min(max(z, 0), 1) (projection onto the capped simplex; sparsemax at k = 1)
    k = 0 and k = n: p = 0 and p = 1, without a threshold.
gradient (GradTopK, the conditional-Bernoulli law; k integer)
    p_i = P(i in S) for a k-subset S drawn with weight exp(sum_{i in S} x_i / tau);
    log_z = log sum_S exp(sum_{i in S} x_i / tau)
softmax_iterated (k integer)
    z = (x - min x) / tau with the minimum over finite entries, p = 0; k times: p += softmax((1 - p) * z)

A case: name, method, k, tau and
    x           the row, exact doubles, "-inf" for a masked entry; or in its place
    x_formula   {"n", "spread", "checksum"}: m_i = round(spread * sin(i * i * 0.1 + i) * 2^20), x_i = m_i / 2^20 for
                i = 0..n-1 in double, from left to right, each operation rounded (no fused multiply-add);
                checksum = sum i * m_i
    v           the weights of the derivatives, exact doubles; or in its place
    v_formula   {"n"}: v_i = ((37 * i) % 101 - 50) / 32
    p           [[index, value], ...], all indices or (n > 60) some
    threshold   t in units of x; null where there is none or an interval of them
    log_z       null but for gradient
    vjp         [[index, d(sum v_i p_i)/dx_index], ...] at the indices of p, without those where it does not exist: most
                at a kink of clip, and the least entries in softmax_iterated where they are several (k > 1)
    grad_k      d(sum v_i p_i)/dk; null for integer k methods, at k = 0 and k = n, at a kink, and where an interval
                of thresholds serves (clip)
    grad_tau    d(sum v_i p_i)/dtau; null at a kink, and not computed for gradient with n > 60
Values are strings of 25 significant digits, possibly below the range of a double.
"""
import argparse
import itertools
import json
import math
import os
import time
from fractions import Fraction

import numpy as np
from mpmath import mp, mpf

THRESHOLD = ("exponential", "sigmoid", "laplace", "clip")
INTEGER = ("gradient", "softmax_iterated")
METHODS = THRESHOLD + INTEGER
DIGITS = 150  # beyond those that exp(-range(x)/tau) takes
MASKED = -math.inf


def digits_for(x, tau):
    return DIGITS + int((max(x) - min(x)) / tau / math.log(10)) + 1


# Threshold methods

def function(method, z):
    """f(z) and f'(z)."""
    if method == "clip":
        return (z, mpf(1)) if 0 < z < 1 else (mpf(1 if z >= 1 else 0), mpf(0))
    if method == "exponential" and z >= 0:
        return mpf(1), mpf(0)
    e = mp.exp(-abs(z))
    if method == "exponential":
        return e, e
    if method == "laplace":
        return (1 - e / 2 if z >= 0 else e / 2), e / 2
    return (1 if z >= 0 else e) / (1 + e), e / (1 + e) ** 2


def totals(method, x, t, tau):
    pairs = [function(method, (a - t) / tau) for a in x]
    return mp.fsum(f for f, _ in pairs), mp.fsum(d for _, d in pairs)


def solve_threshold(method, x, k, tau):
    """The root t of sum f((x - t) / tau) = k, 0 < k < n, or one of the roots."""
    low, high, step = min(x) - tau, max(x) + tau, tau
    while totals(method, x, low, tau)[0] < k:
        low, step = low - step, 2 * step
    step = tau
    while totals(method, x, high, tau)[0] > k:
        high, step = high + step, 2 * step
    t, last_error, last_step = (low + high) / 2, mp.inf, mp.inf
    for _ in range(20000):
        total, slope = totals(method, x, t, tau)
        error = total - k
        if error == 0 and slope == 0:
            return t
        low, high = (max(low, t), high) if error > 0 else (low, min(high, t))
        newton = tau * error / slope if slope > 0 else mp.inf
        small = abs(newton) < mpf(10) ** -60 * tau
        if small and abs(newton) >= last_step / 2 or newton == 0:
            return t  # the rounding floor is reached
        good = small or high - low < tau / 64 and low < t + newton < high and abs(error) < last_error / 2
        last_error, last_step = abs(error), abs(newton) if good else mp.inf
        t = t + newton if good else (low + high) / 2
    raise RuntimeError("no convergence")


def threshold_method(method, x, k, tau, v):
    """p, t, vjp, grad_k, grad_tau."""
    n = len(x)
    if k in (0, n):
        return [mpf(k != 0)] * n, None, [mpf(0)] * n, None, mpf(0)
    t = solve_threshold(method, x, k, tau)
    tiny = mpf(10) ** (30 - mp.dps)
    z = [(a - t) / tau for a in x]
    kinks = {"exponential": [0], "clip": [0, 1]}.get(method, [])
    # an interval of roots? t may be at an end of it
    flat = any(totals(method, x, t + s * 1024 * tiny * tau, tau) == (k, 0) for s in (-1, 1))
    at_kink = not flat and any(abs(a - point) < tiny for a in z for point in kinks)
    z = [next((mpf(point) for point in kinks if abs(a - point) < tiny), a) for a in z]
    p, d = zip(*[function(method, a) for a in z])
    if flat:  # p does not change with x and tau, and not alike to both sides of k
        return p, None, [mpf(0)] * n, None, mpf(0)
    if at_kink:  # entries that f cuts off still have no effect
        vjp = [mpf(0) if all(abs(a - point) > 0 for point in kinks) and b == 0 else None for a, b in zip(z, d)]
        return p, t, vjp, None, None
    # sum p = k gives dt/dx_j = f'_j / sum f', dt/dk = -tau / sum f', dt/dtau = -sum f' z / sum f'
    total = mp.fsum(d)
    mean_v = mp.fdot(d, v) / total
    mean_z = mp.fdot(d, z) / total
    difference = [b - mean_v for b in v]
    difference = [a if abs(a) > tiny else mpf(0) for a in difference]
    return (p, t, [a * b / tau for a, b in zip(d, difference)], mean_v,
            mp.fsum(a * b * (mean_z - c) for a, b, c in zip(d, v, z)) / tau)


# gradient

def subset_law(weights, k, indices):
    """Z_k and P(i in S) at the indices: sums over the subsets of the entries before and after i, all terms positive."""
    def sums(order):
        e, kept = [mpf(1)] + [mpf(0)] * k, {}
        for count, i in enumerate(order):
            if i in wanted:
                kept[i] = e[:]
            for m in range(min(count + 1, k), 0, -1):
                e[m] += weights[i] * e[m - 1]
        return e[k], kept

    wanted, n = set(indices), len(weights)
    z, before = sums(range(n))
    _, after = sums(range(n - 1, -1, -1))
    return z, {i: weights[i] * mp.fsum(before[i][m] * after[i][k - 1 - m] for m in range(k)) / z for i in indices}


def gradient(x, k, tau, v, indices):
    """p, log_z, vjp: the Jacobian is symmetric (a Hessian of log Z), so vjp is the derivative of p along v."""
    step = mpf(10) ** -25
    weights = [mp.exp(a / tau) for a in x]
    z, p = subset_law(weights, k, indices)
    if k in (0, len(x)):
        return p, mp.log(z), {i: mpf(0) for i in indices}
    sides = [subset_law([w * mp.exp(s * step * b / tau) for w, b in zip(weights, v)], k, indices)[1] for s in (1, -1)]
    vjp = {i: (sides[0][i] - sides[1][i]) / (2 * step) for i in indices}
    return p, mp.log(z), vjp


# softmax_iterated

def softmax(u):
    top = max(u)
    e = [mp.exp(a - top) for a in u]
    total = mp.fsum(e)
    return [a / total for a in e]


def softmax_iterated(x, k, tau, v):
    """p, vjp, grad_tau, the derivatives backwards through the steps. Where the minimum does not matter (k = 1) the
    derivatives of the least entries exist even if they are several."""
    n, least = len(x), min(x)
    z = [(a - least) / tau for a in x]
    p, steps = [mpf(0)] * n, []
    for _ in range(k):
        s = softmax([(1 - a) * b for a, b in zip(p, z)])
        steps.append((p, s))
        p = [a + b for a, b in zip(p, s)]
    grad_p, grad_z = list(v), [mpf(0)] * n
    for before, s in reversed(steps):
        mean = mp.fdot(s, grad_p)
        grad_u = [a * (b - mean) for a, b in zip(s, grad_p)]
        grad_z = [a + (1 - b) * c for a, b, c in zip(grad_z, before, grad_u)]
        grad_p = [a - b * c for a, b, c in zip(grad_p, z, grad_u)]
    grad_tau = -mp.fdot(grad_z, z) / tau
    shift = mp.fsum(grad_z)
    if n == 1 or k == 0:
        return p, [mpf(0)] * n, mpf(0)
    if x.count(least) > 1 and abs(shift) > mpf(10) ** (30 - mp.dps):
        return p, [None if a == least else g / tau for g, a in zip(grad_z, x)], grad_tau
    return p, [(g - (shift if a == least else 0)) / tau for g, a in zip(grad_z, x)], grad_tau


def evaluate(method, x, k, tau, v, indices=None):
    """p, threshold, log_z, vjp, grad_k, grad_tau; p and vjp by index. x has no masked entries."""
    n = len(x)
    indices = range(n) if indices is None else indices
    threshold = log_z = grad_k = None
    if method == "gradient":
        p, log_z, vjp = gradient(x, k, tau, v, indices)
        # p depends on x / tau alone, so grad_tau = -vjp . x / tau
        grad_tau = -mp.fsum(x[i] * vjp[i] for i in indices) / tau if len(indices) == n else None
        return p, threshold, log_z, vjp, grad_k, grad_tau
    if method == "softmax_iterated":
        p, vjp, grad_tau = softmax_iterated(x, k, tau, v)
    else:
        p, threshold, vjp, grad_k, grad_tau = threshold_method(method, x, k, tau, v)
    check_sum(p, k, mpf(10) ** (DIGITS - 60 - mp.dps))
    if None not in vjp:
        close(grad_tau, -mp.fdot(vjp, x) / tau, mpf(10) ** -60)
    return {i: p[i] for i in indices}, threshold, log_z, {i: vjp[i] for i in indices}, grad_k, grad_tau


# Checks

def close(a, b, tolerance=mpf(10) ** -60):
    assert abs(a - b) <= tolerance * max(1, abs(a), abs(b)), (mp.nstr(a, 30), mp.nstr(b, 30))


def check_sum(p, k, tolerance=mpf(10) ** -60):
    assert abs(mp.fsum(p) - k) < tolerance


def check_brute_force(x, k, tau, v, p, log_z, vjp):
    weights = {s: mp.exp(mp.fsum(x[i] for i in s) / tau) for s in itertools.combinations(range(len(x)), k)}
    total = mp.fsum(weights.values())
    mean = mp.fsum(w * mp.fsum(v[i] for i in s) for s, w in weights.items()) / total
    close(log_z, mp.log(total))
    for i in range(len(x)):
        close(p[i], mp.fsum(w for s, w in weights.items() if i in s) / total)
        covariance = mp.fsum(w * (mp.fsum(v[j] for j in s) - mean) for s, w in weights.items() if i in s) / total
        close(vjp[i], covariance / tau, mpf(10) ** -40)


def check_closed_form(method, x, k, tau, threshold, p):
    """Thresholds after a sort; they must be the same to 60 digits."""
    n = len(x)
    y = sorted((a / tau for a in x), reverse=True)
    edge = [mp.inf] + y + [-mp.inf]
    found = []
    if method == "exponential":
        for m in range(int(mp.ceil(k))):
            t = mp.log(mp.fsum(mp.exp(a) for a in y[m:])) - mp.log(k - m)
            found += [t] if edge[m] >= t >= edge[m + 1] else []
    elif method == "laplace":
        for m in range(n + 1):
            a, b = mp.fsum(mp.exp(-c) for c in y[:m]), mp.fsum(mp.exp(c) for c in y[m:])
            root = mp.sqrt((k - m) ** 2 + a * b)
            t = mp.log(b) - mp.log(root + (k - m)) if k >= m else mp.log(root + (m - k)) - mp.log(a)
            found += [t] if edge[m] >= t >= edge[m + 1] else []
    elif method == "sigmoid" and n == 2:  # k u^2 + (k - 1)(a + b) u + (k - 2) a b = 0 for u = e^t
        a, b = mp.exp(y[0]), mp.exp(y[1])
        q = (k - 1) * (a + b)
        found = [mp.log((mp.sqrt(q * q + 4 * k * (2 - k) * a * b) - q) / (2 * k))]
    elif method == "clip":  # in rational numbers
        tau_q, k_q, y = Fraction(float(tau)), Fraction(float(k)), [Fraction(float(a)) for a in x]
        total = lambda t: sum(min(max((a - t) / tau_q, Fraction(0)), Fraction(1)) for a in y)
        ends = sorted({a for a in y} | {a - tau_q for a in y})
        low, high = max(e for e in ends if total(e) >= k_q), min(e for e in ends if total(e) <= k_q)
        if low > high:  # an interval of roots
            assert threshold is None
            t = (low + high) / 2
        else:
            t = low if low == high else low + (high - low) * (total(low) - k_q) / (total(low) - total(high))
            found = [mpf(t.numerator) / t.denominator / tau]
            assert threshold is not None
        for a, b in zip(y, p):
            exact = min(max((a - t) / tau_q, Fraction(0)), Fraction(1))
            close(b, mpf(exact.numerator) / exact.denominator)
    else:
        return
    assert found or threshold is None
    for t in found:
        close(threshold / tau, t)


def check_derivatives(method, x, k, tau, v, vjp, grad_k, grad_tau):
    """One-sided numeric derivatives: equal to each other and to the given one, or different where there is none."""
    step = mpf(10) ** -80

    def value(x, k, tau):
        return sum(b * c for b, c in zip(evaluate(method, x, k, tau, v)[0].values(), v))

    def both(change):
        here = value(x, k, tau)
        return (value(*change(step)) - here) / step, (here - value(*change(-step))) / step

    def agree(sides, given):
        for side in sides:
            close(side, given, mpf(10) ** -28)

    along = [both(lambda h, j=j: ([a + h * (i == j) for i, a in enumerate(x)], k, tau)) for j in range(len(x))]
    for j, sides in enumerate(along):
        if vjp[j] is None:
            assert abs(sides[0] - sides[1]) > mpf(10) ** -60
        else:
            agree(sides, vjp[j])
    if grad_tau is not None:
        agree(both(lambda h: (x, k, tau + h)), grad_tau)
    if method in THRESHOLD and 0 < k < len(x):
        sides = both(lambda h: (x, k + h, tau))
        if grad_k is None:
            assert abs(sides[0] - sides[1]) > 1e-6
        else:
            agree(sides, grad_k)


def self_test():
    with mp.workdps(DIGITS):
        row = lambda *values: [mpf(a) for a in values]
        one = mpf(1)
        x = row(2, 0, 0)
        for method in METHODS:
            p = evaluate(method, x, 1, one, x)[0]
            close(p[0], {"laplace": mpf("0.740"), "sigmoid": p[0], "clip": one}.get(method, softmax(x)[0]),
                  1e-3 if method == "laplace" else mpf(10) ** -60)
        p = evaluate("softmax_iterated", row(12, 8, 4, 0), 2, one, row(0, 0, 0, 0))[0]
        assert p[0] < p[1] and abs(p[0] - 0.982) < 1e-3 and abs(p[1] - 0.996) < 1e-3
        p = evaluate("softmax_iterated", row(1200, 800, 400, 0), 2, one, row(0, 0, 0, 0))[0]
        assert abs(p[0] - 1) < 1e-3 and abs(p[1] - 1) < 1e-3


# Cases

def formula_row(n, spread):
    """(x, checksum). A product that lands near one half could be rounded either way by another sine: none does."""
    raw = [spread * math.sin(float(i) * float(i) * 0.1 + float(i)) * 2.0 ** 20 for i in range(n)]
    for a in raw:
        assert abs(abs(a - math.floor(a)) - 0.5) > 16 * math.ulp(a)
    whole = [math.floor(a + 0.5) for a in raw]
    return [m / 2.0 ** 20 for m in whole], sum(i * m for i, m in enumerate(whole))


def formula_v(n):
    return [((37 * i) % 101 - 50) / 32 for i in range(n)]


def chosen(x, k, rng):
    order = sorted(range(len(x)), key=lambda i: -x[i])
    ranks = {*range(8), *range(len(x) - 8, len(x)), *range(int(k) - 6, int(k) + 6), *rng.integers(0, len(x), 12).tolist()}
    return sorted(order[r] for r in ranks if 0 <= r < len(x))


def requests():
    """(name of the row, row or formula, methods, ks, taus)."""
    rng = np.random.default_rng(20240919)
    normal = lambda n, std: (std * rng.standard_normal(n)).tolist()
    both, real = METHODS, THRESHOLD
    out = []
    add = lambda name, x, ks, real_ks=(), taus=(1.0,): out.extend(
        [(name, x, both, ks, taus)] + ([(name, x, real, real_ks, taus)] if real_ks else []))

    for n, std in ((40, 1), (24, 10), (24, 1000)):
        add(f"normal_std{std}", normal(n, std), (1, 5, n // 2, n - 1), (2.5, n - 0.5, 0.1))
    add("normal_n60", normal(60, 3), (10,))
    add("normal_n12", normal(12, 2), (1, 4, 6, 11), (2.5, 7.25))
    cauchy = np.clip(rng.standard_cauchy(30), -3000, 3000).tolist()
    add("cauchy", cauchy, (1, 7, 15, 29), (2.5,))
    for gap in (80, 2000):
        x = [a + gap for a in normal(5, 1)] + normal(13, 1)
        add(f"gap{gap}", rng.permutation(x).tolist(), (4, 5, 6), (4.5, 5.5))
        add(f"gap{gap}_tied", [0.0, gap, 0.0, gap, gap, 0.0, 0.0, 0.0], (2, 3, 4), (3.5,))
    add("all_equal", [0.7] * 10, (1, 3, 5, 9), (2.5, 9.5, 0.1))
    add("all_equal_negative", [-1234.5] * 6, (2,))
    add("ties", [1.0, 3.0, 2.0, 2.0, 0.0, 2.0, -1.0], (2, 3, 4), (2.5,))
    add("ties_quarter", [0.25, 0.5, 0.25, 0.25, 0.5, -2.0], (2, 3, 4), (4.5,))
    add("kink", [1.0, 0.0, 1.0, 0.0], (2,))
    add("two_zero_zero", [2.0, 0.0, 0.0], (1, 2), (0.5,))
    add("near_thirty", [30.0, 30.1, 30.2, -30.0], (1, 2, 3), (2.5,))
    add("twelve_eight", [12.0, 8.0, 4.0, 0.0], (2,), taus=(1.0, 100.0))
    add("n1", [3.7], (0, 1), (0.5, 0.1, 0.999))
    add("n2", [1.3, -0.4], (0, 1, 2), (1.5, 0.1), taus=(0.01, 1.0, 100.0))
    add("edges", normal(5, 2), (0, 5), (4.999, 0.001))
    x = normal(20, 1)
    add("tau_std1", x, (1, 6, 19), (2.5,), (0.01, 100.0))
    add("offset", [a + 1e4 for a in x], (1, 6, 19), (2.5, 19.5))
    add("offset_down", [a - 1e4 for a in x[:10]], (3,), (2.5,), (0.01, 1.0, 100.0))
    add("offset_two_zero_zero", [10002.0, 10000.0, 10000.0], (1,))
    add("tau_std10", normal(20, 10), (1, 6, 10), (2.5,), (0.01, 100.0))
    add("tau_std1000", normal(20, 1000), (6, 10), (2.5,), (100.0,))
    add("tau_gap80", [80.0 + a for a in normal(4, 1)] + normal(8, 1), (3, 4, 5), (4.5,), (0.01, 100.0))
    x = normal(18, 3)
    for i in (0, 3, 4, 11, 17):
        x[i] = MASKED
    add("masked", x, (1, 4, 12, 13), (2.5, 12.5), (1.0,))
    x = [a + (80 if i < 6 else 0) for i, a in enumerate(normal(14, 1))]
    x[2] = x[9] = MASKED
    add("masked_gap80", x, (4, 5, 6), (5.5,))
    add("masked_all_equal", [5.0, MASKED, 5.0, 5.0, MASKED, 5.0], (1, 2), (2.5,))
    add("masked_but_one", [MASKED, 1.5, MASKED], (1,), (0.5,))
    for spread in (1.0, 10.0):
        large = {"n": 10000, "spread": spread}
        name = f"large_spread{spread:g}"
        out += [(name, large, THRESHOLD, (1, 100, 5000, 9990), (1.0,)), (name, large, ("gradient",), (3, 50), (1.0,)),
                (name, large, ("softmax_iterated",), (3,), (1.0,))]
    return out


def text(value):
    """25 digits; below what the working precision resolves it is the rounding of an exact 0."""
    return None if value is None else mp.nstr(value if abs(value) > mpf(10) ** (30 - mp.dps) else mpf(0), 25)


def make_case(name, row, method, k, tau, rng):
    case = {"name": f"{name}_{method}_k{k:g}_tau{tau:g}", "method": method}
    if isinstance(row, dict):
        x, checksum = formula_row(**row)
        case["x_formula"] = {**row, "checksum": checksum}
        v, case["v_formula"] = formula_v(len(x)), {"n": len(x)}
        indices = chosen(x, k, rng)
    else:
        x, indices = row, None
        v = (np.round(64 * rng.standard_normal(len(x))) / 64).tolist()
        case.update(x=["-inf" if a == MASKED else a for a in x], v=v)
    case.update(k=k, tau=tau)
    place = [i for i, a in enumerate(x) if a > MASKED]
    masked = [i for i, a in enumerate(x) if a == MASKED]
    finite = [x[i] for i in place]
    with mp.workdps(digits_for(finite, tau)):
        exact, v, k, tau = [mpf(a) for a in finite], [mpf(v[i]) for i in place], k if k == int(k) else mpf(k), mpf(tau)
        p, threshold, log_z, vjp, grad_k, grad_tau = evaluate(method, exact, k, tau, v, indices)
        if indices is None:
            check_sum(p.values(), k)
            small = len(exact) <= 12 and mp.dps < DIGITS + 45
            if method == "gradient" and len(exact) <= 12:
                check_brute_force(exact, k, tau, v, p, log_z, vjp)
            if method in THRESHOLD and 0 < k < len(exact):
                check_closed_form(method, exact, k, tau, threshold, list(p.values()))
            if small:
                check_derivatives(method, exact, k, tau, v, vjp, grad_k, grad_tau)
        if k == 1 and method in ("exponential", "gradient", "softmax_iterated"):
            s = softmax([a / tau for a in exact])
            for i in p:
                close(p[i], s[i])
        for key, values in (("p", p), ("vjp", vjp)):
            values = {**{place[i]: a for i, a in values.items()}, **dict.fromkeys(masked, mpf(0))}
            case[key] = [[i, text(values[i])] for i in sorted(values) if values[i] is not None]
        case.update(threshold=text(threshold), log_z=text(log_z), grad_k=text(grad_k), grad_tau=text(grad_tau))
    return case


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "topk_cases.json"))
    arguments = parser.parse_args()

    start = time.time()
    self_test()
    rng = np.random.default_rng(1)
    cases = []
    for name, row, methods, ks, taus in requests():
        before, count = time.time(), len(cases)
        cases += [make_case(name, row, method, k, tau, rng) for method in methods for k in ks for tau in taus]
        print(f"{name:22} {len(cases) - count:3} cases {time.time() - before:6.1f} s", flush=True)
    names = [case["name"] for case in cases]
    assert len(set(names)) == len(names)
    with open(arguments.out, "w", encoding="utf-8") as file:
        file.write("[\n" + ",\n".join(json.dumps(case, allow_nan=False) for case in cases) + "\n]\n")
    for method in METHODS:
        own = [case for case in cases if case["method"] == method]
        print(f"{method:17} {len(own):3} cases, without some of vjp {sum(len(case['vjp']) < len(case['p']) for case in own)}, "
              f"without threshold {sum(case['threshold'] is None for case in own)}")
    print(f"{len(cases)} cases, {os.path.getsize(arguments.out)} bytes, {time.time() - start:.0f} s")


if __name__ == "__main__":
    main()
