#!/usr/bin/env python3
"""An external backend for ergometer in one file, and the pattern for yours: it solves Sudoku by search, without any model.

A worker reads one JSON object a line from stdin and writes one a line to stdout; logs go to stderr. In a suite:

    [[backend]]
    name = "search"
    kind = "external"
    command = ["python3", "{suite}/honest.py"]

In this order:

    worker                                         ergometer
    {"hello": {protocol, name, version}}        ->
                                                <- {"job": {model, inputs, batch, threads, max_steps, ...}}
    {"loaded": {seconds}}                       ->
                                                <- {"go": {"mode": "warm", "seconds": s}}
    {"ready": {first_seconds}}                  ->
                                                <- {"go": {"mode": "compare" | "answer" | "time", "block": b, ...}}
    what the mode asks for, {"done": {block}}   ->    ... more `go` lines, then the end of input: leave with 0

Accuracy, memory, processor time and energy are none of the worker's business: ergometer scores and meters from outside.
"""

import json
import sys
import time

# The most samples of one block.
MAX_ITERATIONS = 10_000


class Worker:
    name, version = "search", "1.0"

    def say(self, kind, /, **body):
        sys.stdout.write(json.dumps({kind: body}) + "\n")
        sys.stdout.flush()

    def run(self):
        self.say("hello", protocol=1, name=self.name, version=self.version)
        for line in sys.stdin:
            ((command, body),) = json.loads(line).items()
            if command == "job":
                self.load(body)
            else:
                getattr(self, body["mode"])(body)

    # The modes of `go`, and `job`.

    def load(self, job):
        """Get ready for job["inputs"]: one list of tokens an example. `isa`, `weight_bytes` ... may be told here; what is left out
        becomes Unavailable."""
        self.job, self.inputs = job, job["inputs"]
        self.say("loaded", seconds=0.0, versions={"python": sys.version.split()[0]})

    def warm(self, go):
        """The first iteration, then as many as fit into `seconds`."""
        began = time.perf_counter()
        self.iterate(0)
        first = time.perf_counter() - began
        while time.perf_counter() - began < go["seconds"]:
            self.iterate(0)
        self.say("ready", first_seconds=first)

    def compare(self, go):
        """Outputs for the inputs of the file go["vectors"], one `outputs` line a step; or a refusal, as here: there are only answers."""
        self.say("unavailable", what="outputs", reason="a search has no logits")
        self.say("done", block=go["block"])

    def answer(self, go):
        """Every example once, after every step that it took; `last` marks the answer of record."""
        for example in range(len(self.inputs)):
            row = {"example": example, "depth": 1, "last": True, "answer": self.solve(self.inputs[example])}
            self.say("predictions", block=go["block"], rows=[row])
        self.say("done", block=go["block"])

    def time(self, go):
        """At least `n` iterations and `seconds`. Nothing is said while the clock runs: samples and answers are kept, and told after
        `measured`, where the meters stop."""
        samples, answers = [], {}
        end = time.perf_counter() + go["seconds"]
        while len(samples) < MAX_ITERATIONS and (len(samples) < go["n"] or time.perf_counter() < end):
            first = len(samples) * self.job["batch"] % len(self.inputs)
            t_ns, began = time.monotonic_ns(), time.perf_counter()
            rows = self.iterate(first)
            latency = time.perf_counter() - began
            samples.append(
                {"iteration": len(samples), "t_ns": t_ns, "example": first, "rows": len(rows), "latency": latency, "steps": len(rows)}
            )
            for i, answer in enumerate(rows):
                answers.setdefault((first + i) % len(self.inputs), answer)
        self.say("measured", block=go["block"])
        for sample in samples:
            self.say("sample", block=go["block"], **sample)
        rows = [{"example": e, "depth": 1, "last": True, "answer": a} for e, a in answers.items()]
        self.say("predictions", block=go["block"], rows=rows)
        self.say("done", block=go["block"])

    # What is timed.

    def iterate(self, first):
        """Answers to the `batch` examples from `first` on, wrapping round."""
        return [self.solve(self.inputs[(first + i) % len(self.inputs)]) for i in range(self.job["batch"])]

    def solve(self, tokens):
        """Token 1 is a blank and d + 1 the digit d, in the puzzle and in the answer."""
        side = {16: 4, 36: 6, 81: 9}[len(tokens)]
        return search(list(tokens), side, (2 if side < 9 else 3), (2 if side == 4 else 3))


def search(cells, side, box_rows, box_columns):
    """Fills the blank with the fewest candidates first; None if there is no solution."""
    best = None
    for at, token in enumerate(cells):
        if token != 1:
            continue
        row, column = divmod(at, side)
        top, left = row - row % box_rows, column - column % box_columns
        seen = set(cells[row * side : row * side + side]) | set(cells[column::side])
        for r in range(top, top + box_rows):
            seen.update(cells[r * side + left : r * side + left + box_columns])
        candidates = [t for t in range(2, side + 2) if t not in seen]
        if best is None or len(candidates) < len(best[1]):
            best = (at, candidates)
    if best is None:
        return cells
    for token in best[1]:
        cells[best[0]] = token
        if search(cells, side, box_rows, box_columns):
            return cells
    cells[best[0]] = 1
    return None


if __name__ == "__main__":
    Worker().run()
