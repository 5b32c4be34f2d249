"""A backend of ergometer in Python: this one file, Python 3.8 or newer, no packages. docs/external.md has the protocol on one page.

    from ergometer_worker import Worker, Refusal

    class Mine(Worker):
        name, version = "mine", "1.0"
        def prepare(self, job):             # load the model of job["model"]; refuse what cannot be done
            self.net = load(job["model"], threads=job["threads"])
            return {"versions": {"mylib": mylib.__version__}, "options": {"device": "cpu"}}
        def solve(self, tokens):            # the answer to one example: what is timed
            return self.net(tokens)

    sys.exit(Mine().run())

A program that computes batches overrides `iterate` (and `predictions`, `steps`, where a result is no list of answers of one step each); one
that has outputs to show, `compare`. `ergometer external check CMD` says what is wrong.
"""

import json
import os
import sys
import time
import traceback

MAX_ITERATIONS = 10_000


class Refusal(Exception):
    """This cannot be had here: why, and the remedy. No failure."""

    def __init__(self, reason, hint=None):
        super().__init__(reason)
        self.hint = hint


class Failure(Exception):
    """It was tried and failed; kind: out-of-memory, model, backend or protocol."""

    def __init__(self, kind, message):
        super().__init__(message)
        self.kind = kind


class Worker:
    """Down to `answer` yours to override; the rest is the protocol."""

    name, version = "unnamed", "0"
    own_stdout = True  # what is printed goes to stderr

    def prepare(self, job):
        """Load; the fields of `loaded` that you know: versions, options, isa, weight_bytes, state_bytes, seconds (if not all of it)."""
        return {}

    def solve(self, tokens):
        """The answer to one example: a token for each cell, or an object such as {"class": 3}."""
        raise NotImplementedError

    def iterate(self, first):
        """What is timed: the answers to the `batch` examples from `first` on, wrapping round."""
        return [self.solve(self.inputs[(first + i) % len(self.inputs)]) for i in range(self.job["batch"])]

    def predictions(self, result):
        """What `iterate` gave, as a row for each example: its answer, its depth, perhaps its halt_logit. Not timed."""
        return [{"answer": answer, "depth": 1} for answer in result]

    def steps(self, result):
        """Supervision steps that `iterate` took, over all rows; one a row for what has no steps."""
        return len(result)

    def compare(self, go):
        """`outputs` of each step for the questions in the file go["vectors"], then `done`."""
        self.say("unavailable", what="outputs", reason=f"{self.name} shows no outputs")
        self.say("done", block=go["block"])

    def answer(self, go):
        """Every example once, in full batches; a program of several steps says its answer after each of them."""
        count, batch = len(self.inputs), self.job["batch"]
        for first in range(0, count, batch):
            rows = self.predictions(self.iterate(first))[: count - first]
            told = [{"example": first + i, "last": True, **row} for i, row in enumerate(rows)]
            self.say("predictions", block=go["block"], rows=told)
        self.say("done", block=go["block"])

    def say(self, kind, /, **body):
        print(json.dumps({kind: body}), file=getattr(self, "out", sys.stdout), flush=True)

    def run(self):
        """Speaks until the input ends; the exit code."""
        if self.own_stdout:
            self.out = os.fdopen(os.dup(1), "w")
            os.dup2(2, 1)
        try:
            self.say("hello", protocol=1, name=self.name, version=self.version)
            for line in sys.stdin:
                self.heard = time.monotonic_ns()
                ((command, body),) = json.loads(line).items()
                if command != ("go" if hasattr(self, "job") else "job"):
                    raise Failure("protocol", f"`{command}` came where it is not due")
                what = "load" if command == "job" else body["mode"]
                if what not in ("load", "warm", "compare", "answer", "time") or body.get("protocol", 1) != 1:
                    raise Failure("protocol", f"this worker speaks protocol 1 and does not do `{what}` of {body.get('protocol', 1)}")
                getattr(self, what)(body)
            return 0
        except Refusal as refusal:
            self.say("unavailable", what="case", reason=str(refusal), **({"hint": refusal.hint} if refusal.hint else {}))
            return 0
        except Failure as failure:
            self.say("failed", kind=failure.kind, message=str(failure))
        except Exception as error:
            traceback.print_exc()
            full = isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__
            kind = "out-of-memory" if full else "protocol" if isinstance(error, json.JSONDecodeError) else "backend"
            self.say("failed", kind=kind, message=f"{type(error).__name__}: {error}")
        return 1

    def load(self, job):
        self.job, self.inputs = job, job["inputs"] or range(len(job["puzzle_ids"]))  # of arrays the number of an example in job["arrays"]
        told = self.prepare(job) or {}
        self.next = 0
        self.say("loaded", **{"seconds": (time.monotonic_ns() - self.heard) / 1e9, **told})

    def warm(self, go):
        """The first iteration, then as many as fit into `seconds`."""
        began = time.monotonic_ns()
        self.iterate(0)
        first, i = time.monotonic_ns() - began, 1
        while time.monotonic_ns() - began < go["seconds"] * 1e9:
            self.iterate(i * self.job["batch"] % len(self.inputs))
            i += 1
        self.say("ready", first_seconds=first / 1e9)

    def time(self, go):
        """At least `n` iterations and `seconds`. Nothing is said while the clock runs."""
        samples, answers, count, batch = [], {}, len(self.inputs), self.job["batch"]
        end = time.monotonic_ns() + go["seconds"] * 1e9
        while len(samples) < MAX_ITERATIONS and (len(samples) < go["n"] or time.monotonic_ns() < end):
            first, began = self.next, time.monotonic_ns()
            result = self.iterate(first)
            samples.append((began, first, (time.monotonic_ns() - began) / 1e9, self.steps(result)))
            self.next = (first + batch) % count
            met = [(first + i) % count for i in range(min(batch, count))] if len(answers) < count else []
            if any(example not in answers for example in met):
                for example, row in zip(met, self.predictions(result)):
                    answers.setdefault(example, {"example": example, "last": True, **row})
        self.say("measured", block=go["block"])
        for i, (t_ns, first, latency, steps) in enumerate(samples):
            self.say("sample", block=go["block"], iteration=i, t_ns=t_ns, example=first, rows=batch, latency=latency, steps=steps)
        self.say("unavailable", what="flops_executed", reason=f"{self.name} does not say what it executes")
        self.say("predictions", block=go["block"], rows=list(answers.values()))
        self.say("done", block=go["block"])
