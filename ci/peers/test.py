#!/usr/bin/env python3
"""Checks of the PyTorch worker against itself: the ways through a batch (full, rows dropped, smaller lanes, graphs) give the same answers.

    PYTHON ci/peers/test.py         with a Python that has PyTorch; on a machine with an NVIDIA board the board is checked too

On processors the buffers and lanes of a board are checked without one; graphs need one, and the last line says whether they were checked."""

import os
import random
import sys

import peer
import pytorch_worker

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
# How far outputs may lie apart, over the largest.
APART = {"f32": 2e-4, "bf16": 0.1}


class Fixed:
    """A worker in this process, with an engine of our choice."""

    def __init__(self, folder, halt, batch, precision, device, **setting):
        import numpy as np
        import torch

        config = peer.Model({"model": folder}).config
        generator = random.Random(7)
        inputs = [[generator.randrange(config["vocab_size"]) for _ in range(config["seq_len"])] for _ in range(13)]
        self.job = {"model": folder, "halt": halt, "batch": batch, "precision": precision, "threads": 1, "max_steps": 5, "options": {"device": device}}
        self.job.update(inputs=inputs, puzzle_ids=[i % 2 for i in range(13)] if config.get("puzzle_emb_ndim") else [0] * 13)
        self.worker = worker = peer.Worker.__new__(peer.Worker)
        worker.np, worker.job, worker.batch, worker.steps = np, self.job, batch, 5 if "H_cycles" in config else 1
        worker.inputs, worker.ids = np.asarray(inputs, np.int64), np.asarray(self.job["puzzle_ids"], np.int64)
        worker.rule = None
        if halt:
            # whatever the head has learnt, some rows halt and some do not
            worker.rule = lambda q: q[:, 0] > self.bar
        py = pytorch_worker.PyTorch()
        py.device = torch.device("cuda:0" if device == "cuda" else "cpu")
        model = peer.Model(self.job)
        body, on_processor, on_board = pytorch_worker.classes()
        dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[precision]
        torch.set_grad_enabled(False)
        with torch.inference_mode():
            with py.device:
                made = body(model, dtype, batch, setting)
            self.engine = on_board(made, py.device, setting, halt) if "graph" in setting else on_processor(made, setting)
        worker.engine = self.engine
        self.bar = 0.0

    def heads(self):
        """Halting logits of the first step."""
        self.engine.begin(*self.worker.rows(0, self.worker.batch))
        self.engine.step()
        return self.engine.halting()[:, 0].copy()


def same(name, want, got, precision):
    import numpy as np

    for a, b in zip(want, got):
        if a is None or b is None:
            assert a is None and b is None, name
            continue
        apart = np.abs(a - b).max() / np.abs(a).max()
        assert apart <= APART[precision], f"{name}: outputs lie {apart:.1e} apart"


def main():
    import numpy as np
    import torch

    plain = {"compile": "no", "linear": "plain", "tokens": "left"}
    lanes = {"compile": "no", "graph": "no", "tokens": "left", "experts": "all"}
    graphs = {**lanes, "graph": "step"}
    boards = ["cuda"] if torch.cuda.is_available() else []
    ways = [("cpu", lanes), ("cpu", {**lanes, "experts": "routed", "tokens": "transposed"})]
    ways += [("cuda", way) for way in ([lanes, graphs] if boards else [])]
    models = os.environ.get("ERGOMETER_PEERS_MODELS", "suites/models/trm-6x6 suites/models/dense-6x6 suites/models/moe-6x6 suites/models/trm-arc")
    checked = 0
    for name in models.split():
        folder = os.path.join(ROOT, name)
        recursive = "H_cycles" in peer.Model({"model": folder}).config
        for precision in ("f32", "bf16"):
            for batch in (1, 6):
                want = [np.copy(p) if p is not None else None for p in Fixed(folder, False, batch, precision, "cpu", **plain).worker.iterate(3)[0]]
                for device, way in ways:
                    if device == "cuda" and way["graph"] == "step" and way["experts"] == "routed":
                        continue
                    got, used = Fixed(folder, False, batch, precision, device, **way).worker.iterate(3)
                    same(f"{name} {precision} {batch} {device} {way}", want, got, precision)
                    checked += 1
                if not recursive or precision == "bf16":
                    continue
                # halting: rows stop at unlike steps, and what each gives is what it gives without anybody dropped
                reference = Fixed(folder, True, batch, precision, "cpu", **plain)
                bar = float(np.median(reference.heads())) if batch > 1 else 1e9
                reference.bar, reference.engine.any_rows = bar, False
                want, used = reference.worker.iterate(0)
                assert batch == 1 or len(set(used.tolist())) > 1, f"{name}: every row stops after {used[0]} steps, nothing is tested"
                want = [np.copy(p) for p in want]
                for device, way in [("cpu", plain), *ways]:
                    other = Fixed(folder, True, batch, precision, device, **way)
                    other.bar = bar
                    got, steps = other.worker.iterate(0)
                    near = np.abs(steps - used) > 0
                    # a head within rounding of the bar may stop elsewhere: one row at most, and it is not compared
                    assert near.sum() <= 1, f"{name} {device} {way}: steps {steps} for {used}"
                    same(f"{name} halting {batch} {device} {way}", [p[~near] for p in want], [p[~near] for p in got], precision)
                    checked += 1
    assert checked > 0
    print(f"{checked} ways agree; graphs on a board: {'checked' if boards else 'NOT checked, no board here'}")


if __name__ == "__main__":
    sys.exit(main())
