#!/usr/bin/env python3
"""llama-bench's numbers (`pp512`, `tg128`) by llama.cpp's C API alone, so that the worker's can be held against them.

    PYTHON ci/peers/llama_bench.py MODEL.gguf [--threads 1] [--prompt 512] [--generate 128] [--repetitions 5] [--worker]

As llama-bench does it: random tokens (the first the one that begins a text, where the model has one), batches of at most n_batch by
llama_batch_get_one, one llama_synchronize at the end of a prompt and after each token, a warm-up before, an empty cache before each repetition, a
thread pool that polls at 50. No token is chosen and no logits are read. `--worker` adds the same lengths by the worker's own loop (llama_cpp_worker.py),
in turns with these, which chooses tokens too."""

import argparse
import ctypes
import json
import random
import statistics
import sys
import time

import llama_cpp


class Bench:
    def __init__(self, model, args, begin):
        self.args, self.random, self.begin, self.vocabulary = args, random.Random(1), begin, model.vocabulary
        self.context = llama_cpp.Context(model, args.prompt + args.generate, 1, args.threads)
        self.lib = self.context.lib

    def token(self, first=False):
        return self.begin if first and self.begin is not None else self.random.randrange(self.vocabulary)

    def decode(self, tokens):
        array = (ctypes.c_int32 * len(tokens))(*tokens)
        self.context.decode(self.lib.llama_batch_get_one(array, len(tokens)))

    def prompt(self, n):
        done = 0
        while done < n:
            part = min(n - done, self.context.n_batch)
            self.decode([self.token(done == 0 and i == 0) for i in range(part)])
            done += part
        self.lib.llama_synchronize(self.context.handle)

    def generate(self, n):
        token = self.token(True)
        for _ in range(n):
            self.decode([token])
            self.lib.llama_synchronize(self.context.handle)
            token = self.token()

    def timed(self, work, n):
        self.lib.llama_memory_clear(self.context.memory, False)
        began = time.perf_counter()
        work(n)
        return n / (time.perf_counter() - began)


def of_worker(model, args, scenario):
    """Tokens a second of one iteration of the worker, as a function."""
    import llama_cpp_worker

    generator = random.Random(2)
    prompt = [generator.randrange(model.vocabulary) for _ in range(args.prompt if scenario == "prefill-b1" else 1)]
    output = 1 if scenario == "prefill-b1" else args.generate + 1
    language = {"context": len(prompt) + output, "output": [output], "ignore_end": True}
    job = {"inputs": [prompt], "batch": 1, "threads": args.threads, "scenario": scenario, "language": language}
    engine = llama_cpp_worker.Engine(llama_cpp, model, job, llama_cpp_worker.settings(job)[0])
    return lambda: (len(prompt) if scenario == "prefill-b1" else args.generate) / llama_cpp_worker.once(engine)


def main():
    parser = argparse.ArgumentParser(description="llama-bench's pp and tg by the C API")
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--generate", type=int, default=128)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--worker", action="store_true")
    args = parser.parse_args()
    try:
        library = llama_cpp.Library()
        model = llama_cpp.Model(library, args.model)
    except (llama_cpp.Missing, ValueError) as error:
        print(f"error: {error}\nhint: {llama_cpp.INSTALL}", file=sys.stderr)
        return 2
    bench = Bench(model, args, model.begin)
    ways = {f"pp{args.prompt}": lambda: bench.timed(bench.prompt, args.prompt), f"tg{args.generate}": lambda: bench.timed(bench.generate, args.generate)}
    if args.worker:
        ways[f"pp{args.prompt} worker"] = of_worker(model, args, "prefill-b1")
        ways[f"tg{args.generate} worker"] = of_worker(model, args, "decode-b1")
    # warm-up: a whole prompt and one token
    bench.prompt(args.prompt)
    bench.generate(1)
    if args.worker:
        ways[f"pp{args.prompt} worker"]()
        ways[f"tg{args.generate} worker"]()
    found = {name: [] for name in ways}
    for _ in range(args.repetitions):
        for name, way in ways.items():
            found[name].append(way())
    print(json.dumps(library.versions(), indent=1), file=sys.stderr)
    for name, values in found.items():
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        print(f"{name:14} {statistics.mean(values):9.2f} ± {spread:.2f} tokens/s   {' '.join(f'{v:.1f}' for v in values)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
