#!/usr/bin/env python3
"""Makes audit_qhull.json: which rows of some clouds are no vertices of their hull, by Qhull.

Made with Python 3.11, numpy 2.4.6 and scipy 1.17.1:  make_audit_qhull.py > audit_qhull.json

Rows are whole numbers from a generator that the test repeats.
"""
import json

import numpy as np
from scipy.spatial import ConvexHull

MASK = (1 << 64) - 1


def rows_of(seed, count, columns):
    state = seed
    rows = []
    for _ in range(count * columns):
        entry = 0
        for _ in range(3):  # a sum, so that some rows lie inside
            state = (state * 6364136223846793005 + 1442695040888963407) & MASK
            entry += (state >> 40) % 2001 - 1000
        rows.append(entry)
    return np.array(rows, float).reshape(count, columns)


def main():
    lines = []
    for columns in range(2, 9):
        for seed, count in ((1, 30), (2, 60), (3, 120), (4, 600))[: 4 if columns < 5 else 3 if columns < 7 else 2]:
            hull = ConvexHull(rows_of(seed, count, columns))
            inside = sorted(set(range(count)) - set(hull.vertices.tolist()))
            lines.append(json.dumps({"seed": seed, "rows": count, "columns": columns, "inside": inside},
                                    separators=(",", ":")))
    print("[" + ",\n".join(lines) + "]")


main()
