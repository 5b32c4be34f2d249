#!/usr/bin/env python3
"""Trains a net on a GPU (or a processor) within a number of seconds, from the training files that `ergometer train` reads.

    ci/train/train.py CONFIG.toml --data TRAIN.safetensors --eval TEST.safetensors --seconds N --out FOLDER [--resume] [--device cuda|cpu] [--weights bf16|f32]

The data come from `ergometer dataset`. The folder is that of `ergometer train`, and training.json beside it. Exit codes: 0, 1 (trained and
fell short, or the loss is no number), 2 (bad input: nothing is lost), 130 (interrupted: the checkpoint is written).
"""

import time

BEGAN = time.perf_counter()

import argparse
import os
import signal
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from problem import Fault, Refusal


def arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("--data", required=True)
    parser.add_argument("--eval", required=True, help="held-out files, with commas between; the first decides `require_accuracy`")
    parser.add_argument("--seconds", type=float, required=True, help="of this process, compiling and the last evaluation included")
    parser.add_argument("--out", required=True)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--device", choices=["cuda", "cpu"])
    parser.add_argument("--weights", choices=["bf16", "f32"], default="f32", help="as model.safetensors holds them")
    parser.add_argument("--checkpoint-seconds", type=float, default=60.0)
    parser.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=VALUE", help="another value than the file has, in TOML; told in training.json")
    return parser.parse_args(argv)


class Interrupted(BaseException):
    pass


def main(argv=None):
    args = arguments(argv)
    try:
        if not 1 <= args.seconds <= 1e7:
            raise Refusal(f"--seconds is {args.seconds}; it must lie between 1 and 1e7", "give the seconds that may pass")
        from job import Job

        job = Job(args, BEGAN)

        def stop(number, frame):
            raise Interrupted

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        try:
            job.train()
        except Interrupted:
            job.save_checkpoint()
            print(f"interrupted at step {job.steps}\nhint: the same command with --resume goes on from there", file=sys.stderr)
            return 130
        return 0
    except (Refusal, Fault) as error:
        print(f"error: {error}\nhint: {error.hint}", file=sys.stderr)
        return 2 if isinstance(error, Refusal) else 1


if __name__ == "__main__":
    sys.exit(main())
