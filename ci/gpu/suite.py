#!/usr/bin/env python3
"""A suite for nets at hand on a machine with a board: one batch, and one row at a time, in few seconds.

    python3 ci/gpu/suite.py short|long SECONDS NET... >SUITE        each NET a model folder for 6x6 or 9x9 Sudoku

In: model folders. Out: a suite on stdout: PyTorch on CUDA, one-shot nets in bf16, others in f32: a recursion adds up what bf16 rounds away, and a
rounded score sends a token to another expert, both beyond what parity allows (ERGOMETER_GPU_GRAPH is its option `graph`); native on all
processors; `long`: also one row at a time on the board. Must not: measure for more than twice SECONDS a net."""

import json
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
SIZES = {36: (6, "clues = [12, 16]"), 81: (9, "minimal = true")}
BATCH = 1024


def main():
    if len(sys.argv) < 4 or sys.argv[1] not in ("short", "long"):
        sys.exit(f"{__doc__}\nerror: `short` or `long`, SECONDS and a NET are needed")
    seconds, nets, tasks = float(sys.argv[2]), [], {}
    for folder in sys.argv[3:]:
        folder = os.path.abspath(folder)
        with open(os.path.join(folder, "config.json")) as file:
            config = json.load(file)
        if config.get("seq_len") not in SIZES:
            print(f"{folder} is no net for 6x6 or 9x9 Sudoku: left out", file=sys.stderr)
            continue
        size = SIZES[config["seq_len"]][0]
        tasks[size] = SIZES[config["seq_len"]][1]
        nets.append((os.path.basename(folder), folder, size, "bf16" if config["model_type"] == "encoder" else "f32"))
    if not nets:
        sys.exit("error: none of these is a net for 6x6 or 9x9 Sudoku")
    threads = len(os.sched_getaffinity(0))
    text = ['about = "Nets on an NVIDIA board (PyTorch, CUDA) beside native on the processor"', "# a board has one program at a time", "together = 1"]
    for name, folder, _, _ in nets:
        text += ["", "[[model]]", f"name = {json.dumps(name)}", f"path = {json.dumps(folder)}"]
    for size, more in tasks.items():
        for examples in (256, 32):
            text += ["", "[[task]]", f'name = "sudoku-{size}x{size}-{examples}"', 'kind = "sudoku"', f"size = {size}", 'split = "test"']
            text += [f"examples = {examples}", "seed = 1", more]
    graph = os.environ.get("ERGOMETER_GPU_GRAPH")
    options = 'device = "cuda"' + (f", graph = {json.dumps(graph)}" if graph else "")
    command = json.dumps([os.path.join(HERE, "..", "peers", "run.sh"), "pytorch"])
    text += ["", "[[backend]]", 'name = "pytorch-cuda"', 'kind = "external"', f"command = {command}", f"options = {{ {options} }}"]
    # what only a board can tell comes first: whoever ends a run keeps what is finished. Few examples for the processor: 9x9 nets take it long
    cases = [("pytorch-cuda", 256, net, f"offline-b{BATCH}", 1, seconds) for net in nets]
    if sys.argv[1] == "long":
        cases += [("pytorch-cuda", 256, net, "single-stream", 1, seconds / 2) for net in nets]
    cases += [("native", 32, net, "single-stream", threads, seconds / 2) for net in nets]
    for backend, examples, (name, _, size, precision), scenario, count, time in cases:
        precision = "f32" if backend == "native" else precision
        text += ["", "[[cases]]", f"models = [{json.dumps(name)}]", f'tasks = ["sudoku-{size}x{size}-{examples}"]']
        text += [f'backends = ["{backend}"]', f'precisions = ["{precision}"]', f'scenarios = ["{scenario}"]', f"threads = [{count}]"]
        text += [f"seconds = {time:g}"]
    print("\n".join(text))


if __name__ == "__main__":
    main()
