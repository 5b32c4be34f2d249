"""One training: the step on the device, its course in time, evaluations and checkpoints.

In: the command's arguments. Out: a model folder. Must not: wait for the device more often than the log needs.
"""

import json
import math
import os
import sys
import time

import config as configs
import data
import folder
import torch
from evaluate import LEAST_ENTROPY, evaluate
from meter import Meter
from nets import Net
from problem import Fault, Refusal, write_atomically
from step import STATISTICS, Step

PEAKS = {"H100": 989e12, "H200": 989e12}  # dense bf16 products, by the maker's data sheet


def say(text):
    print(text, file=sys.stderr, flush=True)


class DeviceLost(Exception):
    """Nothing more can be computed in this process."""


class Job:
    def __init__(self, args, began, writes=True):
        self.args, self.began = args, began
        self.config = configs.load(args.config, args.set)
        config = self.config
        self.net = Net(config.model, config.path, config.torch["q_bias"])
        net = self.net
        self.check_curriculum()
        self.device = self.choose(args.device)
        torch.set_num_threads(config.top["threads"])
        torch.manual_seed(config.top["seed"])
        # router and halting head are f32 products, and small; flash attention is the one that a graph has been seen to take
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cuda.enable_cudnn_sdp(False)
        training = data.load(args.data, config, net, "train")
        self.examples = len(training)
        self.held_out = [data.load(path, config, net, "test") for path in args.eval.split(",")]
        try:
            if writes:
                os.makedirs(args.out, exist_ok=True)
        except OSError as error:
            raise Refusal(f"{args.out}: cannot be made: {error.strerror}", "name another folder with --out") from error
        self.source = data.Source(training, config.torch, self.device)
        self.step = Step(config, net, self.source, self.device)
        self.steps, self.seconds_before, self.step_seconds, self.flops, self.trained_before = 0, 0.0, 0.0, 0.0, 0.0
        self.energy_before = {"joules_counter": 0.0, "joules_integrated": 0.0}
        self.log = ",".join(folder.LOG) + "\n"
        self.notes, self.meter, self.compile_seconds, self.last, self.first_step = [], None, 0.0, None, None
        if args.resume:
            self.resume()

    def check_curriculum(self):
        config, net, before = self.config, self.net, -1.0
        depths = 2 if net.family == "trm" else 1
        for stage in config.torch["curriculum"]:
            numbers = isinstance(stage, list) and len(stage) == depths + 1 and all(isinstance(v, int) and 1 <= v <= 256 for v in stage[1:])
            if not net.recursive or not numbers or not isinstance(stage[0], (int, float)) or not before < stage[0] < 1:
                raise Refusal(f"{config.path}: `torch.curriculum` has {stage!r}; a stage is [share of the run from which it holds, {'H_cycles, L_cycles' if depths == 2 else 'loops'}], in rising order",
                              "correct it, or leave it out")
            before = stage[0]

    def choose(self, asked):
        if asked != "cpu" and torch.cuda.is_available():
            return torch.device("cuda")
        if asked == "cuda":
            raise Refusal("--device cuda: PyTorch sees no CUDA device here", "give --device cpu, or run it where there is a GPU")
        return torch.device("cpu")

    # -- checkpoints

    def save_checkpoint(self):
        if not bool(torch.isfinite(self.step.optimiser.flat).all()):
            return
        rng = {"rng": torch.get_rng_state()}
        if self.device.type == "cuda":
            rng["rng_cuda"] = torch.cuda.get_rng_state()
        energy = self.energy()
        progress = {"step": self.steps, "seconds": self.seconds(), "step_seconds": self.step_seconds, "flops": self.flops, "trained": self.trained(), "log": self.log,
                    "energy": {k: energy[k] for k in self.energy_before}, "learned_from": self.config.learned_from(), "notes": self.notes}
        folder.save_checkpoint(self.args.out, {**self.step.optimiser.state(), **rng}, progress)

    def resume(self):
        tensors, progress, hint = folder.load_checkpoint(self.args.out)
        path = os.path.join(self.args.out, folder.CHECKPOINT)
        if json.loads(json.dumps(self.config.learned_from())) != progress["learned_from"]:
            raise Refusal(f"{path}: it was made by a training file with another model, task, loss, seed or optimiser", "leave --resume out, or name that training file")
        for name, mine in self.step.optimiser.state().items():
            if name not in tensors or tensors[name].shape != mine.shape:
                raise Refusal(f"{path}: tensor `{name}` is missing or has another size", hint)
            mine.copy_(tensors[name])
        torch.set_rng_state(tensors["rng"])
        if self.device.type == "cuda" and "rng_cuda" in tensors:
            torch.cuda.set_rng_state(tensors["rng_cuda"])
        self.steps, self.seconds_before, self.step_seconds, self.flops = progress["step"], progress["seconds"], progress["step_seconds"], progress["flops"]
        self.trained_before, self.log, self.energy_before, self.notes = progress["trained"], progress["log"], progress["energy"], progress["notes"]
        self.step.optimiser.step_count.fill_(self.steps)
        self.notes.append(f"went on at step {self.steps} after {self.seconds_before:.0f} s; rows began anew")

    # -- time

    def seconds(self):
        return self.seconds_before + time.perf_counter() - self.began

    def trained(self):
        return self.trained_before + (time.perf_counter() - self.first_step if self.first_step else 0.0)

    def progress(self):
        """Share of the run: by steps, or by time, whichever is further."""
        by_steps = self.steps / self.config.top["steps"]
        if self.first_step is None:  # compiling: the clock of the schedule stands still
            return min(1.0, max(by_steps, self.trained_before / max(self.trained_before + self.args.seconds, 1e-9)))
        whole = self.trained_before + self.ends - self.first_step
        return min(1.0, max(by_steps, self.trained() / max(whole, 1e-9)))

    def rate(self):
        """Of the schedule, as a share of the file's rate."""
        o = self.config.optimiser
        warm = min(1.0, (self.steps + 1) / o["warmup"]) if o["warmup"] else 1.0
        return warm * (o["final_share"] + (1 - o["final_share"]) * 0.5 * (1 + math.cos(math.pi * self.progress())))

    def stage(self):
        depth = None
        for share, *cycles in self.config.torch["curriculum"]:
            if self.progress() >= share:
                depth = tuple(cycles)
        return depth

    def energy(self):
        now = self.meter.read() if self.meter else {}
        add = lambda k: None if now.get(k) is None or self.energy_before.get(k) is None else now[k] + self.energy_before[k]
        return {**now, **{k: add(k) for k in self.energy_before}}

    # -- training

    def make_step(self):
        """Compiled and captured where that works; what did not is said."""
        step, began = self.step, time.perf_counter()
        cuda = self.device.type == "cuda"
        step.graph = None

        def tried(what, attempt, otherwise):
            try:
                return attempt()
            except Refusal:
                raise
            except Exception as error:
                text = f"{what} failed, going on without it: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:400]
                self.notes.append(text)
                say(text)
                return otherwise()

        def once():
            step()
            if cuda:
                torch.cuda.synchronize()
            self.steps += 1

        def plainly():
            step.plain()
            once()

        self.set_rates()
        tried("torch.compile", once, plainly) if step.compiled else once()
        function = step
        if cuda and self.config.torch["graph"]:
            def capture():
                function = step.capture()
                self.steps += 1
                return function

            function = tried("the CUDA graph", capture, lambda: self.without_graph())
        self.graphed = function is not step
        self.compile_seconds += time.perf_counter() - began
        return function

    def without_graph(self):
        """A capture that failed may leave the device's random numbers unusable, for this process."""
        try:
            torch.cuda.synchronize()
            torch.rand(1, device=self.device)
            torch.cuda.synchronize()
        except Exception as error:
            raise DeviceLost(f"the CUDA graph failed, and after it the device: {error}") from error
        return self.step

    def evaluated(self, held, steps, **limits):
        """With the compiled blocks, or where they fail on it without."""
        step = self.step
        weights = step.average(self.args.weights)
        of = lambda: evaluate(self.net, step.run, weights, step.dtype, held, step.rows, self.device, steps, **limits)
        try:
            return of()
        except Exception as error:
            if not step.compiled:
                raise
            self.notes.append(f"torch.compile failed in an evaluation, evaluating without it: {type(error).__name__}: {error}"[:400])
            say(self.notes[-1])
            kept = step.run
            step.run = (self.net.stack, self.net.injected)
            try:
                return of()
            finally:
                step.run = kept

    def set_rates(self):
        rate = self.rate()
        self.step.optimiser.lr.fill_(rate * self.config.optimiser["lr"])
        self.step.optimiser.muon_lr.fill_(rate * self.config.torch["muon_lr"])
        return rate * self.config.optimiser["lr"]

    def train(self):
        args, config, net, step = self.args, self.config, self.net, self.step
        cuda = self.device.type == "cuda"
        deadline = self.began + args.seconds
        new_meter = lambda: Meter(f"GPU-{torch.cuda.get_device_properties(0).uuid}") if cuda else Meter(reason="no GPU: NVML meters NVIDIA boards alone")
        compiling = new_meter()
        step.depth = self.stage()
        function = self.make_step()
        self.energy_compiling = compiling.about()
        compiling.stop()
        self.meter = new_meter()
        # until the first evaluation has been timed: a tenth for the last one
        self.first_step, self.ends = time.perf_counter(), deadline - 0.1 * args.seconds
        fence = [torch.cuda.Event() for _ in range(8)] if cuda else None
        per_step, window = self.flops_of_step(), (time.perf_counter(), self.steps)
        step.statistics.zero_()
        next_log, saved = self.steps + config.top["eval_every"], time.perf_counter()
        evaluated = False
        while True:
            lr = self.set_rates()
            began = time.perf_counter()
            function()
            self.steps += 1
            self.flops += per_step
            if fence:
                # the host stays at most eight steps ahead, so that its clock is the device's
                event = fence[self.steps % 8]
                event.synchronize()
                event.record()
            self.step_seconds += time.perf_counter() - began
            now = time.perf_counter()
            over = now >= self.ends or self.steps >= config.top["steps"]
            if over or self.steps >= next_log or (not evaluated and now - self.first_step > 0.05 * args.seconds):
                next_log = self.steps + config.top["eval_every"]
                evaluated = True
                self.evaluate_in_between(lr, window, deadline, over)
                window = (time.perf_counter(), self.steps)
            if over:
                break
            if time.perf_counter() - saved > args.checkpoint_seconds:
                try:
                    self.save_checkpoint()
                except Refusal as error:  # a full disk, say: the one before is kept, and the training may still end well
                    say(f"error: {error}\nhint: {error.hint}")
                saved = time.perf_counter()
            depth = self.stage()
            if depth != step.depth:
                step.depth = depth
                if self.graphed:
                    # its memory goes before the next one takes its own
                    function = None
                    function = self.make_step()
                per_step = self.flops_of_step()
        self.finish(deadline)

    def flops_of_step(self):
        return self.net.train_flops(self.step.depth) * self.step.rows * (self.config.torch["through"] if self.net.recursive else 1)

    def evaluate_in_between(self, lr, window, deadline, over):
        step, config = self.step, self.config
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        seen = dict(zip(STATISTICS, step.statistics.tolist()))
        n = max(seen["steps"], 1)
        skipped = round(seen["steps"] - seen["finite"])
        if skipped:
            self.notes.append(f"{skipped} of {n:.0f} steps before step {self.steps} had a gradient that is no number, and moved nothing")
            say(self.notes[-1])
        if skipped > 0.1 * n:
            raise Fault(f"the loss or the gradient is not a number any more, before step {self.steps}",
                        f"lower `optimiser.lr` (or `torch.muon_lr`), or set `optimiser.clip`; the last good checkpoint is in {self.args.out}")
        step.statistics.zero_()
        passed = time.perf_counter() - window[0]
        rate = (self.steps - window[1]) / max(passed, 1e-9)
        held = self.held_out[0]
        # cheap: one or two batches; the whole set comes at the end
        most = min(len(held), 2 * step.rows)
        e = self.evaluated(held, self.net.max_steps, most=most)
        batches = sum(-(-len(h) // step.rows) for h in self.held_out)
        self.batch_step = e.seconds / -(-most // step.rows) / (self.net.max_steps if self.net.recursive else 1)
        deepest = max([self.net.max_steps, *config.torch["eval_steps"]]) if self.net.recursive else 1
        self.ends = deadline - min(0.25 * self.args.seconds, 1.5 * batches * deepest * self.batch_step + 0.02 * self.args.seconds + 0.3)
        self.row = {"step": self.steps, "seconds": self.seconds(), "flops": float(self.flops), "learning_rate": lr, "loss_cells": seen["loss_cells"] / n,
                    "loss_halting": seen["loss_halting"] / n if self.net.recursive else None, "train_exact": seen["train_exact"] / n, "gradient_norm": seen["gradient_norm"] / n,
                    "exact_full": float(e.full_exact.mean()), "cells_full": float(e.full_cells.mean()), "exact_halting": float(e.halting_exact.mean()), "cells_halting": float(e.halting_cells.mean()),
                    "steps_halting": e.halting_steps, "n": most, "gflop_per_s": rate * self.flops_of_step() / 1e9, **self.energy()}
        self.log += folder.log_row(self.row)
        r = self.row
        say(f"step {self.steps} ({100 * self.progress():.0f} %): loss {r['loss_cells']:.4f}, train exact {100 * r['train_exact']:.1f} %, held out exact {100 * r['exact_full']:.1f} % cells {100 * r['cells_full']:.1f} %, "
            f"halting {100 * r['exact_halting']:.1f} % in {r['steps_halting']:.1f} steps, {self.seconds():.0f} s, {rate:.1f} steps/s, {r['gflop_per_s'] / 1e3:.2f} TFLOP/s"
            + (f", depth {step.depth}" if step.depth else ""))
        try:
            folder.save_model(self.args.out, config, self.net, step.stored(), self.args.weights.upper(), self.steps)
            write_atomically(os.path.join(self.args.out, "log.csv"), self.log)
        except Refusal as error:
            if over:
                raise
            say(f"error: {error}")

    def finish(self, deadline):
        args, config, net, step = self.args, self.config, self.net, self.step
        energy, trained = self.meter.about(), self.trained()
        if self.trained_before:
            energy["before_this_process"] = self.energy_before
        self.meter.stop()
        unsaved = None
        try:
            self.save_checkpoint()
        except Refusal as error:
            unsaved = error
        deepest = max([net.max_steps, *config.torch["eval_steps"]]) if net.recursive else 1
        reports = []
        for i, held in enumerate(self.held_out):
            left = deadline - time.perf_counter() - 0.5
            until = time.perf_counter() + max(left, 0.0) / (len(self.held_out) - i)
            e = self.evaluated(held, deepest, until=until)
            if len(e.exact) < len(held):
                self.notes.append(f"{os.path.basename(held.path)}: {len(e.exact)} of {len(held)} examples evaluated, the first ones: the seconds were over")
            reports.append({"file": os.path.basename(held.path), "parameters": held.parameters, "all": len(e.exact) == len(held), **e.report(config.torch["eval_steps"])})
            self.last = self.last or e
        name = next((n for n in PEAKS if self.device.type == "cuda" and n in torch.cuda.get_device_name(0)), None)
        flop_rate = self.flops / max(trained, 1e-9)
        device = torch.cuda.get_device_name(0) if self.device.type == "cuda" else f"a processor, {torch.get_num_threads()} threads"
        report = {
            "format": "ergometer-training-1", "family": net.family, "parameters": net.parameters(), "active_parameters": net.active_parameters(), "steps": self.steps, "batch": step.rows,
            "seconds": self.seconds(), "seconds_training": trained, "seconds_compiling": self.compile_seconds, "budget_seconds": args.seconds,
            "flops": self.flops, "flops_per_row": net.train_flops(), "flops_step": net.step_flops(), "flops_counted": "forward, and twice the differentiated part for backward; of experts those chosen",
            "flop_per_s": flop_rate, "share_of_peak": flop_rate / PEAKS[name] if name else None, "peak_flop_per_s": PEAKS.get(name),
            "peak_of": "dense bf16 products, the maker's data sheet" if name else None, "steps_per_s": self.steps / max(trained, 1e-9),
            "memory_bytes": torch.cuda.max_memory_allocated() if self.device.type == "cuda" else None, "compiled": step.compiled, "cuda_graph": self.graphed,
            "torch": torch.__version__, "device": device, "precision": str(step.dtype).removeprefix("torch."), "weights": args.weights, "changed": args.set, "notes": self.notes,
            "energy_compiling": self.energy_compiling, "data": {"train": os.path.basename(args.data), "examples": self.examples}, "energy": energy, "evaluation": reports[0], "evaluations": reports,
        }
        if net.experts:
            report["flops_executed_note"] = f"all {net.experts[0]} experts run on all tokens, {net.experts[1]} are counted"
        folder.save_model(args.out, config, net, step.stored(), args.weights.upper(), self.steps)
        write_atomically(os.path.join(args.out, "log.csv"), self.log)
        write_atomically(os.path.join(args.out, "training.json"), json.dumps(report, indent=1) + "\n")
        figures = {"energy": energy, "device": device, "precision": report["precision"], "stored": args.weights, "steps": self.steps, "examples": self.examples, "symmetric": self.source.symmetric,
                   "flops": self.flops, "seconds": self.seconds(), "compile_seconds": self.compile_seconds}
        held = f"{os.path.basename(self.held_out[0].path)}"
        write_atomically(os.path.join(args.out, "README.md"), folder.card(configs.name_of(config, args.out), config, net, report, figures, held))
        e = reports[0]
        say(f"done: {folder.percent(e['full'])} exact after {net.max_steps} steps, halting {folder.percent(e['halting']['exact'])} in {e['halting']['mean_steps']:.2f} steps, "
            f"{self.steps} steps in {self.seconds():.0f} s, {flop_rate / 1e12:.2f} TFLOP/s")
        if unsaved:
            raise unsaved
        low = [v for v in self.last.entropies() if v < LEAST_ENTROPY]
        if low:
            raise Fault(f"a router spreads its tokens at {min(low):.3f} of the greatest entropy, {LEAST_ENTROPY} is the least", f"raise `loss.balance`; the model and its log are in {args.out}")
        required = config.top["require_accuracy"]
        if required is not None and e["halting"]["exact"]["value"] < required:
            raise Fault(f"{e['halting']['exact']['value']:.4f} of what is held out is right, the file asks for {required}", f"train for more seconds; the model and its log are in {args.out}")
