#!/usr/bin/env python3
"""Checks of the PyTorch worker against itself: the ways through a batch (full, rows dropped, smaller lanes, graphs) give the same answers.

    PYTHON ci/peers/test.py         with a Python that has PyTorch; on a machine with an NVIDIA board the board is checked too

On processors the buffers and lanes of a board are checked without one; graphs need one, and the last line says whether they were checked.
Exit code 1: answers differ; 3: nothing worse than graphs that cannot be captured."""

import os
import random
import sys

import peer
import pytorch_worker

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
# How far outputs may lie apart, over the largest: after five steps on one machine, and between processor and board, whose roundings grow from step
# to step (that each step is right is for ergometer's parity to say).
APART = {("cpu", "f32"): 2e-4, ("cpu", "bf16"): 0.1, ("cuda", "f32"): 2e-3, ("cuda", "bf16"): 0.7}


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
        recursive = config["model_type"] in ("trm", "looped")
        worker.np, worker.job, worker.batch, worker.max_steps = np, self.job, batch, 5 if recursive else 1
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


def same(want, got, device, precision, routed):
    import numpy as np

    for a, b in zip(want, got):
        assert (a is None) == (b is None), "one has a halting head, the other has none"
        if a is None:
            continue
        assert np.isfinite(b).all(), "an output is not finite"
        apart = np.abs(a - b).max() / np.abs(a).max()
        # a rounded score sends a token to another expert
        loose = routed and (device, precision) == ("cuda", "bf16")
        assert loose or apart <= APART[device, precision], f"outputs lie {apart:.1e} apart"


def copied(parts):
    return [None if part is None else part.copy() for part in parts]


def fixed(folder, batch, precision, routed, ways):
    """Five steps, or one of a net that has no more."""
    want = copied(Fixed(folder, False, batch, precision, "cpu", **PLAIN).worker.iterate(3)[0])

    def check(device, way):
        got, _ = Fixed(folder, False, batch, precision, device, **way).worker.iterate(3)
        same(want, got, device, precision, routed)

    return [(device, way, check) for device, way in ways]


def halting(folder, batch, ways):
    """Rows stop at unlike steps, and what each gives is what it gives where nobody is dropped."""
    import numpy as np

    reference = Fixed(folder, True, batch, "f32", "cpu", **PLAIN)
    bar = float(np.median(reference.heads())) if batch > 1 else 1e9
    reference.bar, reference.engine.any_rows = bar, False
    want, used = reference.worker.iterate(0)
    want = copied(want)
    assert batch == 1 or len(set(used.tolist())) > 1, f"every row stops after {used[0]} steps: nothing is tested"

    def check(device, way):
        other = Fixed(folder, True, batch, "f32", device, **way)
        other.bar = bar
        got, steps = other.worker.iterate(0)
        # a head within rounding of the bar may stop elsewhere: one row at most, and it is not compared
        alike = steps == used
        assert (~alike).sum() <= 1, f"steps {steps} for {used}"
        same([p[alike] for p in want], [p[alike] for p in got], device, "f32", False)

    return [(device, way, check) for device, way in [("cpu", PLAIN), *ways]]


PLAIN = {"compile": "no", "linear": "plain", "tokens": "left"}
LANES = {"compile": "no", "graph": "no", "tokens": "left", "experts": "all"}


def main():
    import torch

    board = torch.cuda.is_available()
    ways = [("cpu", LANES), ("cpu", {**LANES, "experts": "routed", "tokens": "transposed"})]
    ways += [("cuda", LANES), ("cuda", {**LANES, "graph": "step"})] if board else []
    models = os.environ.get("ERGOMETER_PEERS_MODELS", "suites/models/trm-6x6 suites/models/dense-6x6 suites/models/moe-6x6 suites/models/trm-arc")
    checked, wrong, uncaptured = 0, [], []
    for name in models.split():
        folder = os.path.join(ROOT, name)
        config = peer.Model({"model": folder}).config
        routed = config["model_type"] == "moe-encoder"
        for precision in ("f32", "bf16"):
            for batch in (1, 6):
                checks = [("fixed", *c) for c in fixed(folder, batch, precision, routed, ways)]
                if config["model_type"] in ("trm", "looped") and precision == "f32":
                    checks += [("halting", *c) for c in halting(folder, batch, ways)]
                for rule, device, way, check in checks:
                    checked += 1
                    try:
                        check(device, way)
                    except Exception as error:
                        told = f"{name} {precision} batch {batch} {rule} {device} {way}: {type(error).__name__}: {error}"
                        print(told)
                        captured = way.get("graph") == "step" and not isinstance(error, AssertionError)
                        (uncaptured if captured else wrong).append(told)
    assert checked > 0
    print(f"{checked - len(wrong) - len(uncaptured)} of {checked} ways agree; graphs on a board: {'checked' if board else 'NOT checked, no board here'}")
    return 1 if wrong else 3 if uncaptured else 0


if __name__ == "__main__":
    sys.exit(main())
