#!/usr/bin/env python3
"""Published differentiable top-k's beside torch.softmax of the same rows: forward and backward, one row of float32.

Wants torch and those of entmax and torchsort that are to be timed:
  apt-get install python3-torch python3-venv
  python3 -m venv --system-site-packages peers
  peers/bin/pip install --no-deps entmax
  peers/bin/pip install --no-deps --no-build-isolation torchsort
  peers/bin/python bench/topk_peers.py build/bench/topk_peers.json
"""
import json
import statistics
import sys
import time

import torch

PAIRS = 5


def seconds(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(work, baseline):
    """Median seconds of `work`, and of its ratio to `baseline`, run in turns."""
    work(), baseline()
    times = [(seconds(work), seconds(baseline)) for _ in range(PAIRS)]
    return statistics.median(a for a, _ in times), statistics.median(a / b for a, b in times)


def peers(n):
    try:
        import entmax
        for k in (32, n // 10, n // 2):
            yield f"entmax.budget_bisect, k = {k}", lambda x, k=k: entmax.budget_bisect(x, budget=k, dim=-1), k
    except ImportError as problem:
        print(f"left out: {problem}")
    try:
        import torchsort
        yield "torchsort.soft_rank", lambda x: torchsort.soft_rank(x), None
    except ImportError as problem:
        print(f"left out: {problem}")


def main():
    torch.set_num_threads(int(sys.argv[2]) if len(sys.argv) > 2 else 2)
    results = []
    for n in (1000, 10_000, 100_000, 1_000_000):
        torch.manual_seed(1)
        row = torch.randn(1, n)
        weights = torch.randn(1, n)
        for name, call, k in peers(n):
            x = row.clone().requires_grad_()

            def both():
                (call(x) * weights).sum().backward()

            with torch.no_grad():
                off = float("nan") if k is None else abs(float(call(row).double().sum()) - k)
                forward, forward_ratio = compare(lambda: call(row), lambda: torch.softmax(row, -1))
            whole, whole_ratio = compare(both, lambda: torch.softmax(row, -1))
            print(f"n = {n:8d}  {name:36} forward {forward * 1e3:9.3f} ms = {forward_ratio:7.1f} softmaxes, "
                  f"with backward {whole * 1e3:9.3f} ms = {whole_ratio:7.1f}, |sum - k| {off:.1e}", flush=True)
            results.append({"columns": n, "what": name, "forward_seconds": forward, "forward_ratio": forward_ratio,
                            "both_seconds": whole, "both_ratio": whole_ratio, "sum_error": None if k is None else off})
    if len(sys.argv) > 1:
        with open(sys.argv[1], "w", encoding="utf-8") as out:
            json.dump({"torch": torch.__version__, "threads": torch.get_num_threads(), "results": results}, out, indent=1)


if __name__ == "__main__":
    main()
