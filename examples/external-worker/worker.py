#!/usr/bin/env python3
"""An external backend for ergometer in one file, and the pattern for yours. Plain Python 3, no packages.

It solves Sudoku by the rules of Sudoku: no model is run, and it says so in its name and its version. README.md beside this file has
the table of all messages, the rules that a worker must keep and the tokens of each task; suite.toml runs this worker.

A worker reads one JSON object a line from stdin and writes one a line to stdout; logs go to stderr. In this order:

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

# Tokens of a puzzle -> side, rows and columns of a box.
SIZES = {16: (4, 2, 2), 36: (6, 2, 3), 81: (9, 3, 3)}


class Worker:
    name, version = "sudoku-by-rules", "1.0 (search, no model)"

    def say(self, kind, /, **body):
        sys.stdout.write(json.dumps({kind: body}) + "\n")
        sys.stdout.flush()

    def run(self):
        self.say("hello", protocol=1, name=self.name, version=self.version)
        for line in sys.stdin:
            self.heard = time.monotonic_ns()
            ((command, body),) = json.loads(line).items()
            if command == "job":
                self.load(body)
            else:
                getattr(self, body["mode"])(body)

    # The modes of `go`, and `job`.

    def load(self, job):
        """Get ready for job["inputs"]: one list of tokens an example. The time is from the job line to here. `isa`, `weight_bytes` ... may be told here; what is left out
        becomes Unavailable."""
        refusal = self.refusal(job["inputs"])
        if refusal:
            hint = "ask for a task of kind `sudoku` with this backend"
            self.say("unavailable", what="case", reason=refusal, hint=hint)
            sys.exit(0)
        self.job, self.inputs, self.next = job, job["inputs"], 0
        seconds = (time.monotonic_ns() - self.heard) / 1e9
        self.say("loaded", seconds=seconds, versions={"python": sys.version.split()[0]})

    def refusal(self, inputs):
        """Why this worker can do nothing here; None if it can. Saying so is no failure, guessing would be wrong answers."""
        for tokens in inputs:
            if len(tokens) not in SIZES or not all(1 <= t <= SIZES[len(tokens)][0] + 1 for t in tokens):
                return "these examples are no Sudoku puzzles, and this program solves nothing else"

    def warm(self, go):
        """The first iteration, then as many as fit into `seconds`."""
        began = time.monotonic_ns()
        self.iterate(0)
        first = time.monotonic_ns() - began
        while time.monotonic_ns() - began < go["seconds"] * 1e9:
            self.iterate(0)
        self.say("ready", first_seconds=first / 1e9)

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
        `measured`, where the meters stop. `t_ns` is the system's monotonic clock, which the harness reads too."""
        samples, answers = [], {}
        end = time.monotonic_ns() + go["seconds"] * 1e9
        while len(samples) < MAX_ITERATIONS and (len(samples) < go["n"] or time.monotonic_ns() < end):
            first, batch = self.next, self.job["batch"]
            began = time.monotonic_ns()
            rows = self.iterate(first)
            ended = time.monotonic_ns()
            self.next = (first + batch) % len(self.inputs)
            samples.append((began, first, len(rows), (ended - began) / 1e9))
            for i, answer in enumerate(rows):
                answers.setdefault((first + i) % len(self.inputs), answer)
        self.say("measured", block=go["block"])
        for i, (t_ns, first, rows, latency) in enumerate(samples):
            # one step a row: a search has no supervision steps
            sample = {"t_ns": t_ns, "example": first, "rows": rows, "latency": latency, "steps": rows}
            self.say("sample", block=go["block"], iteration=i, **sample)
        self.say("unavailable", what="flops_executed", reason="a search counts no floating-point operations")
        rows = [{"example": e, "depth": 1, "last": True, "answer": a} for e, a in answers.items()]
        self.say("predictions", block=go["block"], rows=rows)
        self.say("done", block=go["block"])

    # What is timed.

    def iterate(self, first):
        """Answers to the `batch` examples from `first` on, wrapping round."""
        return [self.solve(self.inputs[(first + i) % len(self.inputs)]) for i in range(self.job["batch"])]

    def solve(self, tokens):
        """Token 1 is a blank and d + 1 the digit d, in the puzzle and in the answer."""
        return search(list(tokens), *SIZES[len(tokens)])


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
