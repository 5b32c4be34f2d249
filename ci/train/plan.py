#!/usr/bin/env python3
"""Trains the nets of a plan in order of worth, in one process: PyTorch is started, data are read and nets are compiled once. See gpu.sh.

    ci/train/plan.py PLAN SECONDS OUT --data TRAIN --eval TEST [--from FOLDER] [--device cuda|cpu] [--no-warm] [--set TABLE.KEY=VALUE]...

What a net that was begun and not finished left behind is known by OUT/begun.txt: a second call with the same OUT goes on with the next one.
"""

import time

BEGAN = time.perf_counter()

import argparse
import gc
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, HERE)

import config as configs
import folder
from problem import Fault, Refusal

LEAST_SECONDS = 5  # of a net
WITHOUT_GRAPHS = 4  # exit code for gpu.sh
MOST_CHECKPOINTS = 6  # eight files come back; models.tar and log.txt are two of them


class Tee:
    """What is said goes to the terminal and the log."""

    def __init__(self, path, stream):
        self.file, self.stream = open(path, "a"), stream

    def write(self, text):
        self.stream.write(text)
        self.file.write(text)

    def flush(self):
        self.stream.flush()
        self.file.flush()


def say(text):
    print(text, file=sys.stderr, flush=True)


def read_plan(path):
    """[(name, training file, share, settings)]. A line: TRAINING-FILE SHARE [name=NAME] [TABLE.KEY=VALUE]..."""
    try:
        with open(path) as file:
            lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise Refusal(f"{path}: cannot be read: {error}", "name a plan; the shipped one is suites/train/gpu.plan") from error
    nets = []
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        hint = "a line is TRAINING-FILE SHARE [name=NAME] [TABLE.KEY=VALUE]..., the share a whole number above 0"
        if len(words) < 2 or not words[1].isdigit() or int(words[1]) == 0 or any("=" not in w for w in words[2:]):
            raise Refusal(f"{path}: line {number}: `{line.strip()}` is not a net and its share", hint)
        file = words[0] if os.path.isfile(words[0]) else os.path.join(ROOT, words[0])
        name = next((w[5:] for w in words[2:] if w.startswith("name=")), os.path.basename(file).removesuffix(".toml"))
        if not name or not all(c.isalnum() or c in "._-" for c in name) or name in [n[0] for n in nets]:
            raise Refusal(f"{path}: line {number}: the name `{name}` is there twice, or no name of a folder", "give it another one with name=NAME")
        settings = [w for w in words[2:] if not w.startswith("name=")]
        configs.load(file, settings)
        nets.append((name, file, int(words[1]), settings))
    if not nets:
        raise Refusal(f"{path}: it names no net", "a line is TRAINING-FILE SHARE")
    return nets


def warm(nets, args, seconds):
    """All nets compiled at once, each in a process of its own: the compilers' results are found again by the trainings."""
    say("== compiling all nets at once")
    began, children = time.perf_counter(), []
    for name, file, _, settings in nets:
        command = [sys.executable, os.path.join(HERE, "smoke.py"), "--child", "--steps", "0", "--data", args.data, "--eval", args.eval, "--set", "torch.graph=false", file]
        command += ["--device", args.device] if args.device else []
        for change in args.set + settings:
            command += ["--set", change]
        with open(os.path.join(args.out, "models", f"{name}.warm.tmp"), "w+") as log:
            children.append((name, subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)))
    import job  # PyTorch starts meanwhile

    for name, child in children:
        path = os.path.join(args.out, "models", f"{name}.warm.tmp")
        try:
            child.wait(max(1.0, began + seconds - time.perf_counter()))
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)  # with its compilers
            child.wait()
            say(f"{name}: compiling beforehand took longer than {seconds:.0f} s; it compiles by itself")
        with open(path) as log:
            text = log.read()
        if child.returncode >= 0:
            say(text[-1500:].rstrip() if child.returncode == 0 else f"{name}: compiling beforehand failed:\n{text[-1500:].rstrip()}")
        os.unlink(path)
    say(f"== compiled in {time.perf_counter() - began:.0f} s")
    return job


def pack(out):
    """What was trained so far, for the way back: after every net, so that it comes back even if the next one takes the machine down."""
    aside = os.path.join(out, "models.tar.new")
    with tarfile.open(aside, "w") as tar:
        tar.add(os.path.join(out, "models"), "models", filter=lambda f: None if "checkpoint" in f.name or f.name.endswith(".tmp") else f)
    os.replace(aside, os.path.join(out, "models.tar"))


def begun(out, name=None):
    path = os.path.join(out, "models", "begun.tmp")
    if name:
        with open(path, "a") as file:
            file.write(name + "\n")
    try:
        with open(path) as file:
            names = file.read().split()
            return [n for n in names if names.count(n) > names.count("-" + n)]
    except OSError:
        return []


def train(job, net, args, seconds, checkpoints):
    """One net; gives its exit code."""
    name, file, _, settings = net
    model = os.path.join(args.out, "models", name)
    os.makedirs(model, exist_ok=True)
    earlier = os.path.join(args.from_, f"{name}.{folder.CHECKPOINT}") if args.from_ else None
    resume = bool(earlier) and os.path.isfile(earlier)
    if resume:
        shutil.copyfile(earlier, os.path.join(model, folder.CHECKPOINT))
    say(f"== {name}: {seconds:.0f} s{', going on' if resume else ''}{' with ' + ' '.join(settings) if settings else ''}")
    own = argparse.Namespace(config=file, data=args.data, eval=args.eval, seconds=seconds, out=model, resume=resume, device=args.device, weights="bf16", checkpoint_seconds=60.0, set=args.set + settings)
    # a device that hangs cannot be interrupted: this process ends, and gpu.sh goes on with the next net
    watch = threading.Timer(seconds + 25, lambda: (say(f"{name}: hangs; its last checkpoint is kept"), os._exit(3)))
    watch.daemon = True
    watch.start()
    begun(args.out, name)
    code = 1
    try:
        job.Job(own, time.perf_counter()).train()
        code = 0
    except (Refusal, Fault) as error:
        say(f"error: {error}\nhint: {error.hint}")
        code = 2 if isinstance(error, Refusal) else 1
    except job.DeviceLost as error:
        say(f"{name}: {error}; a new process begins it again without graphs")
        code = WITHOUT_GRAPHS
    except Exception as error:
        say("".join(traceback.format_exception(error))[-3000:])
    finally:
        watch.cancel()
    if code == WITHOUT_GRAPHS:
        begun(args.out, "-" + name)
    left = os.path.join(model, folder.CHECKPOINT)
    if os.path.isfile(left) and checkpoints < MOST_CHECKPOINTS:
        shutil.copyfile(left, os.path.join(args.out, f"{name}.{folder.CHECKPOINT}"))
    return code


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan")
    parser.add_argument("seconds", type=float)
    parser.add_argument("out")
    parser.add_argument("--data", required=True)
    parser.add_argument("--eval", required=True)
    parser.add_argument("--from", dest="from_")
    parser.add_argument("--device", choices=["cuda", "cpu"])
    parser.add_argument("--no-warm", action="store_true")
    parser.add_argument("--set", action="append", default=[])
    args = parser.parse_args()
    try:
        nets = read_plan(args.plan)
        if not 10 <= args.seconds <= 1e6:
            raise Refusal(f"{args.seconds} s; at least 10 are needed", "give more seconds")
        if args.from_ and not os.path.isdir(args.from_):
            raise Refusal(f"{args.from_}: no such folder", "name the folder of an earlier run, or leave --from out")
        try:
            os.makedirs(os.path.join(args.out, "models"), exist_ok=True)
        except OSError as error:
            raise Refusal(f"{args.out}: cannot be made: {error.strerror}", "name another folder") from error
    except Refusal as error:
        print(f"error: {error}\nhint: {error.hint}", file=sys.stderr)
        return 2
    sys.stderr = Tee(os.path.join(args.out, "log.txt"), sys.stderr)
    say(f"== {time.strftime('%FT%TZ', time.gmtime())}, {args.seconds:.0f} s, {args.plan}")
    before = begun(args.out)
    nets = [net for net in nets if net[0] not in before]
    if args.no_warm or before:
        import job
    else:
        job = warm(nets, args, args.seconds / 4)
    import torch

    reserve, codes = 3 + args.seconds / 100, []
    for i, net in enumerate(nets):
        left = args.seconds - reserve - (time.perf_counter() - BEGAN)
        seconds = left * net[2] / sum(n[2] for n in nets[i:])
        if seconds < LEAST_SECONDS:
            say(f"== {net[0]}: {seconds:.0f} s are left for it, too few")
            codes.append(1)
            continue
        code = train(job, net, args, seconds, len(before) + i)
        if code == WITHOUT_GRAPHS:
            return code
        codes.append(code)
        pack(args.out)
        gc.collect()
        torch._dynamo.reset()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    say(f"== done in {time.perf_counter() - BEGAN:.0f} s, {sum(c != 0 for c in codes)} of {len(nets)} failed or fell short")
    return max(codes, default=0)


if __name__ == "__main__":
    sys.exit(main())
