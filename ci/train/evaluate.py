"""Accuracy on held-out examples: the anytime curve, halting, by difficulty.

In: weights, examples. Out: an `Evaluation`. Must not: train, or give a share without its interval.
"""

import math
import time

import numpy as np
import torch

# by task: name, least and most difficulty
CLASSES = {
    "sudoku": [("0 guesses", 0, 0), ("1 to 10 guesses", 1, 10), ("11 guesses and more", 11, None)],
    "maze": [("up to 20 steps", 0, 20), ("21 to 40 steps", 21, 40), ("41 steps and more", 41, None)],
}
LEAST_ENTROPY = 0.8


def wilson(right, n, z=1.959963984540054):
    """The 95 % Wilson interval of a share."""
    if n == 0:
        return None
    p, zz = right / n, z * z / n
    middle, half = (p + zz / 2) / (1 + zz), z * math.sqrt(p * (1 - p) / n + zz / 4 / n) / (1 + zz)
    return [max(0.0, middle - half) if right else 0.0, min(1.0, middle + half) if right < n else 1.0]


def share(flags):
    right, n = int(flags.sum()), len(flags)
    return {"value": right / n if n else None, "right": right, "n": n, "interval": wilson(right, n)}


class Evaluation:
    def __init__(self, kind, exact, cells, q, difficulty, depth, halts, loads, seconds):
        """`kind` of the task; `exact` [N, steps], `cells` [N, steps] right cells as a share, `q` [N, steps] or None; `depth`: the trained number of steps."""
        self.kind = kind
        self.exact, self.cells, self.q, self.difficulty, self.depth, self.loads, self.seconds = exact, cells, q, difficulty, depth, loads, seconds
        n, steps = exact.shape
        last = min(depth, steps) - 1
        self.full_exact, self.full_cells = exact[:, last], cells[:, last]
        if halts:
            says = q[:, : last + 1] > 0
            says[:, last] = True
            self.stopped = says.argmax(1)
        else:
            self.stopped = np.full(n, last)
        rows = np.arange(n)
        self.halting_exact, self.halting_cells = exact[rows, self.stopped], cells[rows, self.stopped]
        self.halting_steps = float((self.stopped + 1).mean())

    def entropies(self):
        """Of the experts' load, over its maximum, a mixture each."""
        out = []
        for load in self.loads if self.loads is not None else ():
            p = load / max(load.sum(), 1)
            out.append(float(-(p[p > 0] * np.log(p[p > 0])).sum() / math.log(len(load))))
        return out

    def classes(self):
        if self.difficulty is None:
            return []
        out = []
        for name, least, most in CLASSES.get(self.kind, ()):
            of = (self.difficulty >= least) & ((self.difficulty <= most) if most is not None else True)
            if of.any():
                out.append({"class": name, "full": share(self.full_exact[of]), "halting": share(self.halting_exact[of]), "last": share(self.exact[of, -1]),
                            "mean_halting_steps": float((self.stopped[of] + 1).mean())})
        return out

    def report(self, at):
        """For training.json; `at`: the numbers of steps of the anytime curve."""
        n, steps = self.exact.shape
        curve = [{"steps": k, "exact": share(self.exact[:, k - 1]), "cells": float(self.cells[:, k - 1].mean())} for k in at if k <= steps]
        out = {"examples": n, "seconds": self.seconds, "trained_steps": self.depth, "full": share(self.full_exact), "cells_full": float(self.full_cells.mean()),
               "halting": {"exact": share(self.halting_exact), "cells": float(self.halting_cells.mean()), "mean_steps": self.halting_steps}, "anytime": curve, "by_difficulty": self.classes()}
        if self.q is not None:
            said = self.q[:, self.depth - 1] > 0
            out["halting"]["head_right_at_the_last_step"] = share(said == self.full_exact)
        if self.loads is not None:
            out["experts"] = [{"load": load.tolist(), "entropy_over_maximum": e} for load, e in zip(self.loads, self.entropies())]
        return out


@torch.no_grad()
def evaluate(net, run, weights, dtype, dataset, rows, device, steps, most=None, until=None):
    """`rows`: of a batch; the last one is filled up with examples that are not counted. `most`: examples, from the beginning.
    `until`: no batch is begun that would not end by then, but for the first one."""
    began = time.perf_counter()
    n = min(len(dataset), most or len(dataset))
    blocks = net.prepare(weights)
    steps = steps if net.recursive else 1
    exact, cells, q_all, loads = [], [], [], None
    for first in range(0, n, rows):
        each = (time.perf_counter() - began) / (first // rows) if first else 0.0
        if until is not None and first and time.perf_counter() + each > until:
            n = first
            break
        at = np.arange(first, first + rows) % len(dataset)
        tokens, answer = (torch.from_numpy(v[at].astype(np.int64)).to(device) for v in (dataset.tokens, dataset.answer))
        counted = answer != 0
        x = net.embed(tokens, weights).to(dtype)
        state = net.initial(weights, rows, dtype)
        batch = [], [], []
        for _ in range(steps):
            state, logits, q, extra = net.step(run, state, x, weights, blocks)
            right = (logits.argmax(-1) == answer) & counted
            batch[0].append((right | ~counted).all(1))
            batch[1].append(right.sum(1) / counted.sum(1).clamp(min=1))
            if q is not None:
                batch[2].append(q.float())
            if extra:
                loads = extra[0] if loads is None else loads + extra[0]
        live = min(rows, n - first)
        exact.append(torch.stack(batch[0], 1)[:live].cpu().numpy())
        cells.append(torch.stack(batch[1], 1)[:live].float().cpu().numpy())
        if batch[2]:
            q_all.append(torch.stack(batch[2], 1)[:live].cpu().numpy())
    difficulty = None if dataset.difficulty is None else dataset.difficulty[:n].astype(np.int64)
    return Evaluation(dataset.kind, np.concatenate(exact), np.concatenate(cells), np.concatenate(q_all) if q_all else None, difficulty, net.max_steps, bool(q_all),
                      None if loads is None else loads.cpu().numpy(), time.perf_counter() - began)
