#!/usr/bin/env python3
"""Makes the stored rows and expected results that the pooling test compares against.

    python3 make_pooling_cases.py ROWS.npy [--out DIRECTORY] [--steps 0,1,2,3,4,5] [--seed 1]

ROWS: (steps, 6, V) scores of a real model, row 0 without context. Of the steps named, each keeps a vocabulary of its
own: the 600 most probable tokens of each row and random others, 4096 in all, in order of token id. A column therefore
means another token at another step, which pooling does not see. Writes into DIRECTORY (default: beside this file):

pooling_rows.npy      float32 (steps, 6, 4096): raw scores
pooling_expected.npy  float32 (cases, steps, 4096): pooled log-probabilities of pooling_reference.walk on those rows,
                      -inf kept
pooling_expected.json a list of cases in that order: name, options (every field of PoolingOptions; beta is a number or
                      "auto"), and for each step context, entropies (of 5), beta and fallback; `margins` holds how far
                      the closest decision lay from going the other way: nucleus (mass against top_p) and choice
                      (nats of lowered entropy between the best two; null for other poolings)
"""
import argparse
import json
import os
import sys

import numpy as np

import pooling_reference as reference

CONTEXTS, KEPT, VOCABULARY = 5, 600, 4096
SCORES = [0.0, -0.7, 0.4, -1.5, 0.9]

CASES = [
    ("nbce", {}),
    ("nbce_plain", {"top_p": 1, "eta": 0}),
    ("nbce_auto", {"beta": "auto"}),
    ("nbce_negative_beta", {"beta": -0.5, "eta": 0}),
    ("leens", {"pooling": "entropy_weighted"}),
    ("leens_auto", {"pooling": "entropy_weighted", "beta": "auto", "top_p": 1, "eta": 0}),
    ("naive_bayes", {"pooling": "mean", "beta": CONTEXTS - 1, "top_p": 1}),
    ("mean", {"pooling": "mean"}),
    ("mean_fallback", {"pooling": "mean", "top_p": None}),  # top_p is found below
    ("max", {"pooling": "max"}),
    ("pced", {"pooling": "max", "beta": "auto", "top_p": 1, "scores": SCORES, "gamma": 2.5}),
    ("replug", {"pooling": "mixture", "beta": 0, "top_p": 1, "scores": SCORES}),
    ("mixture", {"pooling": "mixture"}),
    ("mixture_auto", {"pooling": "mixture", "beta": "auto", "scores": SCORES}),
    ("cad", {"pooling": "weights", "beta": 1, "top_p": 1, "weights": [1, 0, 0, 0, 0]}),
    ("weights", {"pooling": "weights", "weights": [0.5, 0, -0.25, 0.75, 0.125]}),
]


def reduce_rows(rows, seed):
    """(steps, n + 1, V) to (steps, n + 1, at most VOCABULARY), float32."""
    rng = np.random.default_rng(seed)
    out = []
    for step in rows:
        step = np.asarray(step, dtype=np.float32)
        size = min(VOCABULARY, step.shape[1])
        best = np.unique(np.argsort(-step, axis=1, kind="stable")[:, :KEPT])
        others = np.setdiff1d(np.arange(step.shape[1]), best)
        ids = np.sort(np.concatenate([best, rng.choice(others, size - len(best), replace=False)]))
        out.append(step[:, ids])
    return np.ascontiguousarray(np.stack(out))


def fallback_top_p(rows):
    """The largest top_p tried at which mean pooling falls back at some step, best one at which it does not at all."""
    some = None
    for top_p in (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.01):
        fallback = reference.walk(rows, {"pooling": "mean", "top_p": top_p})["fallback"]
        if fallback.any() and not fallback.all():
            return top_p
        if fallback.any() and some is None:
            some = top_p
    if some is None:
        sys.exit("no fallback at any top_p: every step's contexts agree on the best token; name other --steps")
    return some


def margins(rows, options, result):
    """Distance of the closest decision from going the other way."""
    nucleus = choice = None
    if options["top_p"] < 1:
        gaps = []
        for row in reference.log_softmax(rows).reshape(-1, rows.shape[-1]):
            values, counts = np.unique(-row, return_counts=True)
            gaps.append(np.min(np.abs(np.cumsum(np.exp(-values) * counts) - options["top_p"])))
        nucleus = float(min(gaps))
    if options["pooling"] == "min_entropy":
        lowered = result["entropies"].copy()
        for step in range(1, len(lowered)):
            lowered[step, result["context"][step - 1]] -= options["eta"]
        best = np.sort(lowered, axis=1)
        choice = float(np.min(best[:, 1] - best[:, 0]))
    return {"nucleus": nucleus, "choice": choice}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows")
    parser.add_argument("--out", default=os.path.dirname(os.path.abspath(__file__)))
    parser.add_argument("--steps", default="0,1,2,3,4,5")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()

    reference.self_test()
    source = np.load(arguments.rows, mmap_mode="r")
    if source.ndim != 3 or source.shape[1] != CONTEXTS + 1:
        sys.exit(f"rows of shape (steps, {CONTEXTS + 1}, V) are needed, not {source.shape}")
    rows = reduce_rows([source[int(step)] for step in arguments.steps.split(",")], arguments.seed)

    expected, cases = [], []
    for name, given in CASES:
        options = {**reference.DEFAULTS, **given}
        if options["top_p"] is None:
            options["top_p"] = fallback_top_p(rows)
        result = reference.walk(rows, options)
        expected.append(result["pooled"].astype(np.float32))
        distance = margins(rows, options, result)
        finite = result["pooled"][result["pooled"] > -np.inf]
        print(f"{name:20} contexts {result['context'].tolist()} beta {np.round(result['beta'], 3).tolist()} "
              f"fallback {result['fallback'].astype(int).tolist()} least {finite.min():.1f} margins {distance}")
        if min(x for x in (*distance.values(), 1) if x is not None) < 1e-6:
            print(f"warning: {name}: a decision is too close for other arithmetic to be sure of; name other --steps")
        cases.append({"name": name, "options": options, "margins": distance,
                      **{key: result[key].tolist() for key in ("context", "entropies", "beta", "fallback")}})

    os.makedirs(arguments.out, exist_ok=True)
    np.save(os.path.join(arguments.out, "pooling_rows.npy"), rows)
    np.save(os.path.join(arguments.out, "pooling_expected.npy"), np.stack(expected))
    with open(os.path.join(arguments.out, "pooling_expected.json"), "w", encoding="utf-8") as file:
        file.write("[\n" + ",\n".join(json.dumps(case, allow_nan=False) for case in cases) + "\n]\n")


if __name__ == "__main__":
    main()
