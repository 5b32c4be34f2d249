#!/usr/bin/env python3
"""What can be told of the trainer without training: data, symmetric copies, costs, the optimisers, the meter on a scripted NVML.

    ci/train/test.py        run by check.sh
"""

import math
import os
import sys
import time
import types
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import numpy as np
import torch
from data import FREE, GOAL, PATH, START, Dataset, Source, boxes, pack, pack_mazes, unpack, unpack_mazes
from evaluate import wilson
from nets import Net, Param
from optim import Optimiser, orthogonal

OPTIONS = {"reveal": [3, 3], "reveal_share": 1.0, "symmetric": True}


def grid(side):
    """A solved grid, as tokens."""
    rows, columns = boxes(side)
    return np.array([[(c + r % rows * columns + r // rows) % side + 2 for c in range(side)] for r in range(side)], np.uint8).reshape(-1)


def solved(tokens, side):
    rows, columns = boxes(side)
    g, whole = tokens.reshape(side, side), set(range(2, side + 2))
    units = [g[r] for r in range(side)] + [g[:, c] for c in range(side)]
    units += [g[r : r + rows, c : c + columns].reshape(-1) for r in range(0, side, rows) for c in range(0, side, columns)]
    return all(set(u.tolist()) == whole for u in units)


class Tests(unittest.TestCase):
    def test_packed_puzzles_come_out_as_they_went_in(self):
        rng = np.random.default_rng(1)
        for side in (4, 6, 9):
            answer = np.stack([grid(side)] * 5)
            tokens = np.where(rng.random(answer.shape) < 0.3, answer, 1).astype(np.uint8)
            words, clues = pack(answer, tokens, side)
            again = unpack(words, clues, side)
            self.assertTrue(np.array_equal(again[0], tokens) and np.array_equal(again[1], answer))

    def test_symmetric_copies_are_solved_differ_and_keep_their_clues(self):
        for side in (4, 6, 9):
            answer = grid(side)[None]
            tokens = answer.copy()
            tokens[:, :: 2] = 1
            source = Source(Dataset("", "sudoku", "train", {"size": side}, tokens, answer, None), OPTIONS, torch.device("cpu"))
            t, a = source.draw(200)
            self.assertTrue(all(solved(row.numpy(), side) for row in a))
            self.assertGreater(len({tuple(row.tolist()) for row in a}), 100)
            shown = t != 1
            self.assertTrue(bool((t[shown] == a[shown]).all()))
            # about three blanks are filled in beside the clues that were there
            more = shown.sum(1).double().mean().item() - (tokens > 1).sum()
            self.assertTrue(2 < more < 4, more)

    def test_packed_mazes_come_out_as_they_went_in_and_copies_are_the_same_maze_turned(self):
        answer = np.array([["_# SGo".index(c) for c in "S#   " "o# # " "ooo# " "##o# " "  ooG"]], np.uint8)
        tokens = np.where(answer == PATH, FREE, answer).astype(np.uint8)
        three = np.repeat(answer, 3, 0), np.repeat(tokens, 3, 0)
        again = unpack_mazes(*pack_mazes(*three), 25)
        self.assertTrue(np.array_equal(again[1], three[0]) and np.array_equal(again[0], three[1]))
        source = Source(Dataset("", "maze", "train", {"side": 5}, tokens, answer, None), OPTIONS, torch.device("cpu"))
        self.assertTrue(source.symmetric)
        copies = set()
        for t, a in zip(*(v.numpy() for v in source.draw(300))):
            copies.add(tuple(a.tolist()))
            # nothing but the path was added, and who follows it comes from one end to the other in as many steps
            self.assertTrue(np.array_equal(np.where(a == PATH, FREE, a), t))
            at, before, steps = int(np.flatnonzero(a == START)[0]), None, 0
            while a[at] != GOAL:
                inside = ((-5, at >= 5), (5, at < 20), (-1, at % 5 > 0), (1, at % 5 < 4))
                ways = [at + d for d, there in inside if there and a[at + d] in (PATH, GOAL) and at + d != before]
                self.assertEqual(len(ways), 1)
                before, at, steps = at, ways[0], steps + 1
            self.assertEqual(steps, 8)
        self.assertEqual(len(copies), 16)

    def test_parameters_and_costs_are_the_published_ones(self):
        base = {"model_type": "trm", "seq_len": 97, "vocab_size": 11, "hidden_size": 512, "num_heads": 8, "expansion": 4, "H_cycles": 3, "L_cycles": 6, "L_layers": 2}
        mlp, attention = Net({**base, "mlp_t": True, "pos_encodings": "none"}), Net(base)
        # arXiv 2510.04871's code, with its grid of 97 positions
        self.assertEqual((mlp.parameters(), attention.parameters()), (5_028_866, 6_828_034))
        self.assertAlmostEqual(mlp.stack_flops() / 1e9, 1.221, 3)
        self.assertAlmostEqual(attention.stack_flops() / 1e9, 1.361, 3)

    def test_adamw_takes_the_step_of_the_rust_trainer(self):
        params = [Param("w", [1, 1], 1.0), Param("b", [1], 1.0), Param("embed_tokens", [1, 1], 1.0)]
        start = {p.name: torch.full(p.shape, 2.0) for p in params}
        o = Optimiser(params, start, {"clip": None, "betas": [0.9, 0.99], "weight_decay": 0.5, "ema": 0.9}, None, torch.device("cpu"))
        o.lr.fill_(0.1)
        length, finite = o.step([torch.tensor([[3.0]]), torch.tensor([-4.0]), torch.tensor([[1.0]])])
        self.assertTrue(finite)
        self.assertAlmostEqual(length.item(), math.sqrt(26), 5)
        for got, want in zip(o.flat.tolist(), [2 - 0.1 - 0.1 * 0.5 * 2, 2.1, 1.9]):
            self.assertAlmostEqual(got, want, 5)
        # the average looks back no further than the run: (1 + 1) / (1 + 10)
        self.assertAlmostEqual(o.average[1].item(), 2 * 2 / 11 + 2.1 * 9 / 11, 5)
        before = o.flat.clone()
        _, finite = o.step([torch.tensor([[math.nan]]), torch.tensor([1.0]), torch.tensor([[1.0]])])
        self.assertFalse(finite)
        self.assertTrue(torch.equal(o.flat, before))

    def test_muon_moves_a_matrix_by_one_that_is_nearly_orthogonal(self):
        g = torch.randn(3, 16, 40, generator=torch.Generator().manual_seed(1))
        values = torch.linalg.svdvals(orthogonal(g))
        self.assertTrue(bool(((values > 0.6) & (values < 1.3)).all()), values)

    def test_wilson_is_the_published_interval(self):
        # Newcombe 1998, table I: 81 of 263, and 0 of 20
        low, high = wilson(81, 263)
        self.assertAlmostEqual(low, 0.2553, 4)
        self.assertAlmostEqual(high, 0.3662, 4)
        self.assertEqual(wilson(0, 20)[0], 0.0)
        self.assertAlmostEqual(wilson(0, 20)[1], 0.1611, 4)


class Nvml(types.ModuleType):
    """A board of 300 W whose counter moves every 100 ms; `broken`: what answers with an error."""

    NVML_TEMPERATURE_GPU = NVML_CLOCK_SM = NVML_CLOCK_MEM = 0

    def __init__(self, *broken):
        super().__init__("pynvml")
        self.broken, self.began = broken, time.perf_counter()

    def __getattr__(self, name):
        if name in self.__dict__.get("broken", ()):
            def fails(*_):
                raise RuntimeError("Not Supported")

            return fails
        if not name.startswith("nvml"):
            raise AttributeError(name)
        ticks = lambda: math.floor((time.perf_counter() - self.began) * 10) / 10
        field = types.SimpleNamespace(nvmlReturn=0, value=types.SimpleNamespace(uiVal=300_000))
        answers = {"nvmlDeviceGetTotalEnergyConsumption": lambda *_: int(1e9 + 300_000 * ticks()), "nvmlDeviceGetFieldValues": lambda *_: [field],
                   "nvmlDeviceGetPowerUsage": lambda *_: 290_000, "nvmlDeviceGetName": lambda *_: "board", "nvmlSystemGetDriverVersion": lambda *_: "1"}
        return answers.get(name, lambda *_: 50)


class Meters(unittest.TestCase):
    def reading(self, *broken, seconds=1.0):
        from meter import Meter

        sys.modules["pynvml"] = Nvml(*broken)
        try:
            meter = Meter("GPU-1", period=0.02)
            time.sleep(seconds)
            meter.stop()
            return meter.about()
        finally:
            del sys.modules["pynvml"]

    def test_both_paths_are_kept_and_agree(self):
        seen = self.reading()
        for path in ("joules_counter", "joules_integrated"):
            # a loaded machine may wake the sampler late; what it integrates over grows with it
            self.assertAlmostEqual(seen[path] / seen["seconds"] / 300, 1, delta=0.25)
        self.assertEqual(seen["power_source"], "instant power (field 186)")

    def test_what_is_unavailable_is_not_zero(self):
        seen = self.reading("nvmlDeviceGetTotalEnergyConsumption", seconds=0.2)
        self.assertIn("Not Supported", seen["joules_counter"]["unavailable"])
        self.assertGreater(seen["joules_integrated"], 0)
        seen = self.reading("nvmlDeviceGetFieldValues", "nvmlDeviceGetPowerUsage", seconds=0.2)
        self.assertIn("unavailable", seen["joules_integrated"])
        seen = self.reading("nvmlInit", seconds=0.0)
        self.assertIn("Not Supported", seen["joules_counter"]["unavailable"])
        self.assertIn("unavailable", seen["board"])


if __name__ == "__main__":
    unittest.main()
