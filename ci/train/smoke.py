#!/usr/bin/env python3
"""Thirty steps of every net of a plan on the device, before the seconds are spent: step rates, compile seconds, memory, and whether the
CUDA graph works. All nets are compiled at once first, so that the trainings that follow on this machine find them compiled.

    ci/train/smoke.py CONFIG.toml... --data TRAIN --eval TEST [--device cuda|cpu] [--steps 30] [--set TABLE.KEY=VALUE]... [--warm]

`--warm`: compile only. Exit code 1 where a net failed.
"""

import argparse
import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))


def one(args, path, steps):
    """Compiles and captures a net, and times some steps. Gives what was seen, as text."""
    import job
    import torch

    began = time.perf_counter()
    own = argparse.Namespace(config=path, data=args.data, eval=args.eval, seconds=3600.0, out=os.devnull, resume=False, device=args.device, weights="bf16", checkpoint_seconds=1e9, set=args.set)
    run = job.Job(own, began, writes=False)
    out, cuda = [], run.device.type == "cuda"
    depths = [tuple(cycles) for _, *cycles in run.config.torch["curriculum"]] or [None]
    if depths[-1] is not None and steps == 0:
        depths = depths[-1:]
    for depth in depths:
        run.step.depth = depth
        before = run.compile_seconds
        function = run.make_step()
        compiling = run.compile_seconds - before
        run.evaluated(run.held_out[0], 2, most=1)
        if cuda:
            torch.cuda.synchronize()
        run.step.statistics.zero_()
        began = time.perf_counter()
        for _ in range(steps):
            function()
        if cuda:
            torch.cuda.synchronize()
        each = (time.perf_counter() - began) / max(steps, 1)
        seen = run.step.statistics.tolist()
        memory = f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if cuda else "-"
        rate = f"{1e3 * each:.2f} ms a step, {run.flops_of_step() / each / 1e12:.1f} TFLOP/s, " if steps else ""
        out.append(f"{os.path.basename(path)}{f' depth {depth}' if depth else ''}: {rate}compiled in {compiling:.1f} s{'' if run.step.compiled else ' (NOT COMPILED)'}, "
                   f"graph {'yes' if run.graphed else 'NO'}, {memory}, loss {seen[0] / max(seen[4], 1):.3f}, finite {seen[5] == seen[4]}")
    out += [f"  note: {note}" for note in run.notes]
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="+")
    parser.add_argument("--data", required=True)
    parser.add_argument("--eval", required=True)
    parser.add_argument("--device", choices=["cuda", "cpu"])
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--warm", action="store_true")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    from problem import Refusal

    failed = 0
    if not args.child:
        began = time.perf_counter()
        common = [sys.executable, os.path.abspath(__file__), "--child", "--data", args.data, "--eval", args.eval, "--steps", "0", "--set", "torch.graph=false"]
        common += ["--device", args.device] if args.device else []
        for change in args.set:
            common += ["--set", change]
        children = [(path, subprocess.Popen([*common, path], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)) for path in args.configs]
        for path, child in children:
            text = child.communicate()[0]
            if child.returncode:
                failed += 1
                print(f"{path}: compiling beside the others failed:\n{text[-3000:]}", flush=True)
            elif args.warm:
                print(text, end="", flush=True)
        print(f"compiled {len(children) - failed} of {len(children)} nets at once in {time.perf_counter() - began:.1f} s", flush=True)
        if args.warm:
            return 1 if failed else 0
        failed = 0
    for path in args.configs:
        try:
            print("\n".join(one(args, path, args.steps)), flush=True)
        except Refusal as error:
            print(f"error: {error}\nhint: {error.hint}", file=sys.stderr)
            return 2
        except Exception as error:
            import traceback

            traceback.print_exc()
            print(f"{path}: FAILED: {type(error).__name__}: {error}", flush=True)
            failed += 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
