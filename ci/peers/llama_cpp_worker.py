#!/usr/bin/env python3
"""llama.cpp as a worker of ergometer: language models from GGUF files, by its C API (llama_cpp.py).

Modes `answer`, `compare` and `time` of the scenarios generate-bN, prefill-bN and decode-bN, as the built-in engines do them (src/worker/language.rs):
prompts of an iteration are fed together, then a token of each live request at a time; the highest logit is chosen, of equal ones the lowest id.
A call is llama_decode and llama_synchronize, with threads that wait in a pool of their own, as in llama-bench; llama_bench.py beside this file gives
llama-bench's own numbers to hold these against. Choosing a token costs one pass over the logits by numpy and some Python: 7 to 16 microseconds for vocabularies of 49,152 and 262,144 on a Zen 4.

Options: threads (at most the job's), n_batch, n_ubatch, flash (auto, on, off), poll (0 to 100), kv (split: a cache for each slot; unified), swa (pruned:
caches of windowed layers as long as the window; full). None given: they are searched in a process of its own, in turns on the scenario of the case, for
ERGOMETER_TUNE_SECONDS (12); ERGOMETER_PEERS_SEARCH=0 spares that."""

import json
import os
import random
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../external"))
from ergometer_worker import MAX_ITERATIONS, Failure, Refusal, Worker  # noqa: E402

SCENARIOS = ("generate-b", "prefill-b", "decode-b")
DEFAULT = {"n_batch": "2048", "n_ubatch": "512", "flash": "auto", "poll": "50", "kv": "split", "swa": "pruned"}
ALLOWED = {"flash": ("auto", "on", "off"), "kv": ("split", "unified"), "swa": ("pruned", "full")}
NUMBERS = {"threads": (1, 1024), "n_batch": (1, 1 << 16), "n_ubatch": (1, 1 << 16), "poll": (0, 100)}
# Most logits of one call where those of all tokens are asked for.
MAX_LOGITS = 1 << 23
# Rounds of a search, and what a setting must save to be chosen over the default: less is noise.
ROUNDS, WORTH = 6, 0.02
BUDGET = float(os.environ.get("ERGOMETER_PEERS_SEARCH") or os.environ.get("ERGOMETER_TUNE_SECONDS") or "12")


def settings(job):
    """Sets of options to search, the default first."""
    default = {"threads": str(job["threads"]), **DEFAULT}
    found = [default, {**default, "flash": "on"}, {**default, "flash": "off"}]
    if job["threads"] > 1:
        # where other programs run, spinning threads may be slower than one
        found += [{**default, "threads": "1"}, {**default, "poll": "100"}, {**default, "poll": "0"}]
    if not job["scenario"].startswith("decode"):
        found += [{**default, "n_ubatch": "128"}, {**default, "n_ubatch": "2048"}]
    if job["batch"] > 1:
        found.append({**default, "kv": "unified"})
    return found


def chosen_by_hand(job):
    """The settings that a suite asks for; None: none."""
    given = {key: value for key, value in job.get("options", {}).items() if key != "device"}
    if not given:
        return None
    for key, value in given.items():
        if key in NUMBERS:
            least, most = NUMBERS[key]
            if not (value.isdigit() and least <= int(value) <= most):
                raise Refusal(f"option {key} is {value}", f"a whole number from {least} to {most}")
        elif value not in ALLOWED.get(key, ()):
            known = ", ".join([*NUMBERS, *ALLOWED])
            raise Refusal(f"option {key} = {value} is none of this worker", f"options are {known}; {key} takes {ALLOWED.get(key, 'nothing')}")
    setting = {"threads": str(job["threads"]), **DEFAULT, **given}
    if int(setting["threads"]) > job["threads"]:
        raise Refusal(f"option threads is {setting['threads']}, the case has {job['threads']}", "ask for the threads of the case, or fewer")
    return setting


class Request:
    def __init__(self, example, slot, most):
        self.example, self.slot, self.most = example, slot, max(most, 1)
        self.begun, self.times, self.tokens = 0.0, [], []


class Engine:
    """A context and what is asked of it."""

    def __init__(self, module, model, job, setting):
        import numpy as np

        self.np, self.job, self.language, self.model = np, job, job["language"], model
        self.keeps = job["scenario"].startswith("decode")
        self.inputs = [np.asarray(tokens, np.int32) for tokens in job["inputs"]]
        context = self.language["context"]
        # sequences are cut back to their prompts: what a window has dropped would be missing
        whole = setting["swa"] == "full" or (model.window > 0 and context > model.window and (self.keeps or any(self.language.get("rest", []))))
        self.setting = {**setting, "swa": "full" if whole else "pruned"}
        self.context = module.Context(
            model,
            context,
            job["batch"],
            int(setting["threads"]),
            n_batch=int(setting["n_batch"]),
            n_ubatch=int(setting["n_ubatch"]),
            flash=setting["flash"],
            poll=int(setting["poll"]),
            unified=setting["kv"] == "unified",
            swa_full=whole,
        )
        self.kept = []

    def done(self, request):
        ended = not self.language.get("ignore_end") and request.tokens[-1] in self.language.get("end", [])
        return len(request.tokens) >= request.most or ended

    def begin(self, requests, began):
        """Reads their prompts together and chooses the first token of each."""
        begun = time.perf_counter() - began
        for request in requests:
            request.begun = begun
        self.feed(requests, [(r.slot, self.inputs[r.example]) for r in requests], began)

    def advance(self, requests, began):
        """A token of each that is not done; how many there were."""
        live = [r for r in requests if not self.done(r)]
        if live:
            self.feed(live, [(r.slot, r.tokens[-1:]) for r in live], began)
        return len(live)

    def feed(self, requests, feeds, began):
        def take(i, logits):
            requests[i].tokens.append(int(logits.argmax()))
            requests[i].times.append(time.perf_counter() - began)

        self.context.feed(feeds, False, take)

    def requests(self, first, count):
        n = len(self.inputs)
        examples = [(first + i) % n for i in range(count)]
        return [Request(e, slot, self.language["output"][e]) for slot, e in enumerate(examples)]

    def keep_prompts(self, first):
        """Reads the prompts that iterations begin after, where the scenario keeps them."""
        if self.keeps:
            self.context.clear()
            self.kept = self.requests(first, self.job["batch"])
            self.begin(self.kept, time.perf_counter())

    def set_up(self, first):
        """The requests of an iteration: nothing of it is timed."""
        requests = self.requests(first, self.job["batch"])
        if not self.keeps:
            self.context.clear()
            return requests
        for request, kept in zip(requests, self.kept):
            request.example, request.most, request.tokens = kept.example, kept.most, kept.tokens[:1]
            if not self.context.cut(request.slot, len(self.inputs[kept.example])):
                raise Failure("backend", "llama.cpp cannot cut a sequence back to its prompt")
        return requests

    def serve(self, requests, began):
        if not self.keeps:
            self.begin(requests, began)
        if not self.job["scenario"].startswith("prefill"):
            while self.advance(requests, began):
                pass

    def written(self, examples):
        """What these are answered with."""
        self.context.clear()
        requests = [Request(e, slot, self.language["output"][e]) for slot, e in enumerate(e for e in examples if self.language["output"][e] > 0)]
        if requests:
            began = time.perf_counter()
            self.begin(requests, began)
            while self.advance(requests, began):
                pass
        of = {request.example: request.tokens for request in requests}
        return [of.get(example, []) for example in examples]

    def log_probability(self, logits, token):
        values = logits.astype(self.np.float64)
        values -= values.max()
        return float(values[token] - self.np.log(self.np.exp(values).sum()))

    def likelihoods(self, example):
        """Log-probabilities of the tokens of its continuations; the prompt is read once."""
        prompt, told = self.inputs[example], []
        piece = max(1, MAX_LOGITS // self.model.vocabulary)
        after = []
        self.context.clear()
        self.context.feed([(0, prompt)], False, lambda _, logits: after.append(logits.copy()))
        for rest in self.language["rest"][example]:
            if not self.context.cut(0, len(prompt)):
                raise Failure("backend", "llama.cpp cannot cut a sequence back to its prompt")
            if rest:
                told.append(self.log_probability(after[0], rest[0]))
            due = iter(rest[1:])
            for first in range(0, len(rest) - 1, piece):
                tokens = rest[first : min(first + piece, len(rest) - 1)]
                self.context.feed([(0, tokens)], True, lambda _, logits: told.append(self.log_probability(logits, next(due))))
        return told


class LlamaCpp(Worker):
    name, version = "llama.cpp", "v0.5.0"

    def prepare(self, job):
        check(job)
        setting, searched = chosen_by_hand(job), "none: the suite gives options"
        if setting is None and BUDGET <= 0:
            setting, searched = settings(job)[0], "none: ERGOMETER_PEERS_SEARCH is 0"
        elif setting is None:
            setting, searched = searched_apart(job)
        # the time of loading is that of what is timed; the search before it stands beside it
        began = time.perf_counter()
        module, self.library, self.model = load(job)
        self.engine = Engine(module, self.model, job, setting)
        return {
            "seconds": time.perf_counter() - began,
            "versions": {**self.library.versions(), "llama_cpp.model": self.model.about, "search": searched},
            "options": {"device": "cpu", **self.engine.setting},
            "isa": self.library.variant(),
            "weight_bytes": self.model.bytes,
            "scenario": job["scenario"],
        }

    def iterate(self, first):
        requests = self.engine.set_up(first)
        self.engine.serve(requests, time.perf_counter())

    def warm(self, go):
        if not self.engine.kept:
            self.engine.keep_prompts(self.next)
        super().warm(go)

    def compare(self, go):
        """The first half of each sequence in one call, the rest token by token, so that prompts and decoding are both seen."""
        rows = input_ids(go["vectors"])
        np, context = self.engine.np, self.engine.context
        if go.get("active_experts") is not None:
            # how many experts a token meets is the model's: another one, for this alone
            if not self.model.about.startswith("llama"):
                reason = f"this worker sets the active experts of the architecture llama alone, not of {self.model.about}"
                self.say("unavailable", what="outputs", reason=reason)
                return self.say("done", block=go["block"])
            module, _, other = load(self.job, go["active_experts"])
            context = Engine(module, other, self.job, self.engine.setting).context
        for step, tokens in enumerate(rows, 1):
            half = -(-len(tokens) // 2)
            context.clear()
            logits = []
            for part in [tokens[:half], *([t] for t in tokens[half:])]:
                context.feed([(0, part)], True, lambda _, row: logits.append(row.copy()))
            flat = np.concatenate(logits)
            listed = flat.tolist() if np.isfinite(flat).all() else [float(v) if np.isfinite(v) else None for v in flat]
            self.say("outputs", step=step, logits=listed)
        if context is not self.engine.context:
            context.free()
            other.free()
        self.say("done", block=go["block"])

    def answer(self, go):
        count, batch = len(self.inputs), self.job["batch"]
        rest = self.job["language"].get("rest") or [[]] * count
        for first in range(0, count, batch):
            examples = list(range(first, min(first + batch, count)))
            rows = []
            for example, tokens in zip(examples, self.engine.written(examples)):
                row = {"example": example, "depth": max(1, len(tokens)), "last": True, "answer": tokens}
                if rest[example]:
                    row["answer"] = {"likelihoods": self.engine.likelihoods(example)}
                    if tokens:
                        row["written"] = tokens
                rows.append(row)
            self.say("predictions", block=go["block"], rows=rows)
        self.engine.keep_prompts(self.next)
        self.say("done", block=go["block"])

    def time(self, go):
        samples, count = [], len(self.inputs)
        end = time.monotonic_ns() + go["seconds"] * 1e9
        while len(samples) < MAX_ITERATIONS and (len(samples) < go["n"] or time.monotonic_ns() < end):
            requests = self.engine.set_up(self.next)
            t_ns, began = time.monotonic_ns(), time.perf_counter()
            self.engine.serve(requests, began)
            samples.append((t_ns, time.perf_counter() - began, requests))
            if not self.engine.keeps:
                self.next = (self.next + len(requests)) % count
        block = go["block"]
        self.say("measured", block=block)
        answers = {}
        for i, (t_ns, latency, requests) in enumerate(samples):
            told = [{"example": r.example, "arrived": 0.0, "begun": r.begun, "tokens": r.times} for r in requests]
            steps = sum(len(r.tokens) for r in requests)
            first = requests[0].example
            self.say(
                "sample", block=block, iteration=i, t_ns=t_ns, example=first, rows=len(requests), latency=latency, steps=steps, requests=told
            )
            for r in requests:
                answers.setdefault(r.example, {"example": r.example, "depth": max(1, len(r.tokens)), "last": True, "answer": r.tokens})
        self.say("unavailable", what="flops_executed", reason="llama.cpp does not say what it executes")
        self.say("predictions", block=block, rows=list(answers.values()))
        if self.engine.keeps:
            self.next = (self.next + self.job["batch"]) % count
            self.engine.keep_prompts(self.next)
        self.say("done", block=block)


def check(job):
    """Refuses what this worker does not do."""
    if "language" not in job:
        raise Refusal("this worker runs language models alone", "give it a GGUF file and a task of language")
    if not job.get("scenario", "").startswith(SCENARIOS):
        raise Refusal(f"this worker does not do the scenario `{job.get('scenario')}`", "generate-bN, prefill-bN and decode-bN")
    if job["precision"] != "stored":
        raise Refusal(f"llama.cpp computes with weights as they are stored, not in {job['precision']}", 'ask for precisions = ["stored"]')


def load(job, active_experts=None):
    """The library and the model, or why not."""
    try:
        import llama_cpp as module
    except ImportError as error:
        raise Refusal(f"numpy is not here: {error}", "run ci/peers/install.sh") from error
    try:
        library = module.Library()
    except module.Missing as error:
        raise Refusal(str(error), module.INSTALL) from error
    try:
        return module, library, module.Model(library, job["model"], active_experts)
    except ValueError as error:
        raise Failure("model", str(error)) from error


def input_ids(path):
    """Rows of the tensor `input_ids` of a vectors file."""
    with open(path, "rb") as file:
        head = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        if head.get("input_ids", {}).get("dtype") != "I32":
            raise Failure("protocol", f"{path} has no `input_ids` of I32")
        first, last = head["input_ids"]["data_offsets"]
        file.seek(first, os.SEEK_CUR)
        data = file.read(last - first)
    _, tokens = head["input_ids"]["shape"]
    ids = [int.from_bytes(data[i : i + 4], "little", signed=True) for i in range(0, len(data), 4)]
    return [ids[i : i + tokens] for i in range(0, len(ids), tokens)]


def searched_apart(job):
    """The fastest settings, found in a process that leaves nothing in this one's memory, and what was tried."""
    began = time.perf_counter()
    found = subprocess.run([sys.executable, "-B", __file__, "--search"], input=json.dumps(job), capture_output=True, text=True)
    try:
        told = json.loads(found.stdout)
    except ValueError as error:
        raise Failure("backend", f"the search of settings: {found.stderr.strip()[-2000:]}") from error
    if "refused" in told:
        raise Refusal(*told["refused"])
    if "failed" in told:
        raise Failure(*told["failed"])
    return told["setting"], f"{told['searched']}; {time.perf_counter() - began:.1f} s, not part of the time of loading"


def search(job):
    """Every setting in turns with the others, at most BUDGET seconds."""
    began = time.perf_counter()
    module, _, model = load(job)
    engines, wrong = [], []
    for i, setting in enumerate(settings(job)):
        if engines and time.perf_counter() - began > BUDGET / 2:
            break
        try:
            engine = Engine(module, model, job, setting)
            # the first iteration is not kept
            once(engine)
            engines.append((setting, engine, []))
        except (MemoryError, RuntimeError) as error:
            wrong.append(f"{i}: {error}")
    if not engines:
        raise Failure("backend", f"no setting runs: {wrong}")
    rounds, order = 0, random.Random(7)
    while rounds < ROUNDS and (rounds == 0 or time.perf_counter() - began < BUDGET):
        for _, engine, times in order.sample(engines, len(engines)):
            times.append(once(engine))
        rounds += 1
    medians = [sorted(times)[len(times) // 2] for _, _, times in engines]
    best = min(range(len(engines)), key=lambda i: medians[i])
    if medians[best] > (1 - WORTH) * medians[0]:
        best = 0
    text = "; ".join(f"{' '.join(f'{k}={v}' for k, v in s.items())}: {m:.6f} s" for (s, _, _), m in zip(engines, medians))
    return {"setting": engines[best][0], "searched": f"{rounds} rounds within {BUDGET:g} s; medians of an iteration: {text}"}


def once(engine):
    if engine.keeps and not engine.kept:
        engine.keep_prompts(0)
    requests = engine.set_up(0)
    began = time.perf_counter()
    engine.serve(requests, began)
    return time.perf_counter() - began


def told_apart():
    """The search as a process: a job comes in, one line goes out."""
    # what a library prints must not come between the lines
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        told = search(json.loads(sys.stdin.read()))
    except Refusal as refusal:
        told = {"refused": [str(refusal), refusal.hint]}
    except Failure as failure:
        told = {"failed": [failure.kind, str(failure)]}
    print(json.dumps(told), file=out)
    return 0


if __name__ == "__main__":
    sys.exit(told_apart() if sys.argv[1:] == ["--search"] else LlamaCpp().run())
