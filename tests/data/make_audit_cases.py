#!/usr/bin/env python3
"""Makes audit_cases.json: small output layers with verdicts by HiGHS and NNLS, which share nothing with the audit.

Made with Python 3.11, numpy 2.4.6 and scipy 1.17.1:  make_audit_cases.py > audit_cases.json

Letters: a argmaxable, t tie_only, u unargmaxable; T within rounding of an edge that only exact arithmetic tells (t or u
in a ball), ? too near the edge of a ball for float64.
"""
import json
import sys

import numpy as np
from scipy.optimize import linprog, nnls

EDGE = 1e-7


def solve(c, a, b, bounds):
    answer = linprog(c, A_ub=a, b_ub=b, bounds=bounds, method="highs")
    return -answer.fun if answer.status == 0 else None


def free_letter(delta, bias):
    """Rows of differences x_k - x_i and of biases (None without); z is free."""
    n, d = delta.shape
    if bias is None:
        box = [(-1, 1)] * d
        t = solve(np.r_[np.zeros(d), -1], np.c_[-delta, np.ones(n)], np.zeros(n), box + [(None, 1)])
        if t > EDGE:
            return "a"
        total = solve(-delta.sum(axis=0), -delta, np.zeros(n), box)
        return "t" if total > EDGE else "u"
    free = [(None, None)] * d
    t = solve(np.r_[np.zeros(d), -1], np.c_[-delta, np.ones(n)], bias, free + [(None, 1)])
    if t > EDGE:
        return "a"
    if t < -EDGE:
        return "u"
    # Margins m_i = delta.z + bias >= 0, counted up to 1 each.
    total = solve(np.r_[np.zeros(d), -np.ones(n)], np.c_[-delta, np.eye(n)], bias + 1e-9, free + [(0, 1)] * n)
    return "t" if total is not None and total > 1e-5 else "u"


def least_length(delta, least):
    """min |z| with delta z >= least, by Lawson and Hanson's least distance programming; inf where there is none."""
    e = np.vstack([delta.T, least])
    f = np.zeros(e.shape[0])
    f[-1] = 1
    y, norm = nnls(e, f, maxiter=10000)
    r = e @ y - f
    if norm < 1e-9:
        return np.inf
    return np.linalg.norm(-r[:-1] / r[-1])


def ball_letter(delta, bias, radius):
    free = free_letter(delta, bias)
    if free == "u":
        return "u"
    if free == "t":
        return "T"
    if least_length(delta, -bias + EDGE) < radius * (1 - 1e-6):
        return "a"
    if least_length(delta, -bias - EDGE) > radius * (1 + 1e-6):
        return "u"
    return "?"


def effective(case):
    rows = np.array(case["rows"], float)
    bias = np.array(case["bias"], float) if case.get("bias") else np.zeros(len(rows))
    gain = np.array(case.get("gain") or np.ones(rows.shape[1]), float)
    radius = case.get("radius")
    if case["norm"] != "none":
        radius = np.sqrt(rows.shape[1])
    if case["norm"] == "layer":
        bias = bias + rows @ np.array(case.get("shift") or np.zeros(rows.shape[1]), float)
    if case["norm"] != "none":
        rows = rows * gain
    if case["norm"] == "layer":
        rows = rows - rows.mean(axis=1, keepdims=True)
    return rows, (None if np.all(bias == bias[0]) else bias), radius


def letters(case):
    rows, bias, radius = effective(case)
    count = len(rows)
    key = np.c_[rows, bias if bias is not None else np.zeros(count)]
    text = ""
    for k in range(count):
        twins = [i for i in range(count) if i != k and np.allclose(key[i], key[k], atol=1e-12, rtol=0)]
        rivals = [i for i in range(count) if i != k and i not in twins]
        if not rivals:
            letter = "a"
        else:
            delta = rows[k] - rows[rivals]
            db = None if bias is None else bias[k] - bias[rivals]
            letter = free_letter(delta, db) if db is None or radius is None else ball_letter(delta, db, radius)
        text += "t" if letter == "a" and twins else letter
    return text


def made(random):
    d = int(random.integers(1, 13))
    count = int(random.integers(1, 8 + 2 * d))
    kind = random.choice(["integers", "few", "floats", "collinear", "flat", "midpoints", "duplicates", "lattice"])
    if kind == "integers":
        rows = random.integers(-4, 5, (count, d))
    elif kind in ("few", "lattice"):
        rows = random.integers(-1, 2, (count, d)) * (1 if kind == "few" else 2)
    elif kind == "floats":
        rows = np.round(random.normal(size=(count, d)) * 64) / 64
    elif kind == "collinear":
        rows = random.integers(-5, 6, (count, 1)) * random.integers(-2, 3, (1, d)) + random.integers(-1, 2, (1, d))
    elif kind == "flat":
        rank = max(1, d // 2)
        rows = random.integers(-3, 4, (count, rank)) @ random.integers(-1, 2, (rank, d))
    else:
        rows = random.integers(-3, 4, (count, d)) * 2
        for _ in range(count // 3):
            a, b, to = random.integers(0, count, 3)
            rows[to] = rows[a] if kind == "duplicates" else (rows[a] + rows[b]) / 2
    case = {"rows": rows.tolist(), "norm": str(random.choice(["none", "none", "rms", "layer"]))}
    if random.random() < 0.45:
        case["bias"] = (random.integers(-3, 4, count) / random.choice([1, 2, 8])).tolist()
    if case["norm"] != "none" and random.random() < 0.7:
        case["gain"] = (random.integers(0 if random.random() < 0.3 else 1, 5, d) / 2).tolist()
    if case["norm"] == "layer" and random.random() < 0.5:
        case["shift"] = (random.integers(-2, 3, d) / 4).tolist()
    if case["norm"] == "none" and "bias" in case and random.random() < 0.5:
        case["radius"] = float(random.choice([0.25, 0.5, 1, 2, 5]))
    return case


def main():
    random = np.random.default_rng(20240607)
    lines = []
    for _ in range(int(sys.argv[1]) if len(sys.argv) > 1 else 2500):
        case = made(random)
        case["verdicts"] = letters(case)
        lines.append(json.dumps(case, separators=(",", ":")).replace(".0,", ",").replace(".0]", "]"))
    print("[" + ",\n".join(lines) + "]")


main()
