"""What the peers' workers share beside the protocol (ci/external/ergometer_worker.py): reading models and questions, walking a batch through its
steps, and the search of settings.

A peer is a class with `name`, `devices`, `describe`, `settings` and `load`; see openvino_worker.py. What `load` gives is an engine for full batches:

    begin(tokens, ids)      rows in (numpy, [batch, S] and [batch]), states at their start
    step()                  one supervision step
    outputs()               (logits [batch, S, V], q [batch, 2] or None) of the last step as numpy arrays of float32, in this process's memory; they
                            hold until the next step
    halting()               q alone
    keep(rows)              go on with these rows alone, in this order; False: it cannot, and all rows go on (an engine may lack it)
    states()                the states as they are, a list of [batch, T, D]
    set_states(values)      other ones

Latency is from handing over the rows to holding the outputs of the last step of each row, so that an engine on a device of its own is waited for.

Settings are searched in a process of its own, so that what lost leaves nothing behind in the memory that is metered, nor in the time of
loading. Every setting runs in turns with the others, on the batch, threads and examples of the case; the list goes into the case's record.
"""

import hashlib
import json
import os
import random
import struct
import subprocess
import sys
import time
import traceback

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../external"))
import ergometer_worker  # noqa: E402
from ergometer_worker import Failure, Refusal  # noqa: E402

# Rounds of a search: the fewest whose smallest and largest ratio are a 95 % interval of the median ratio. Seconds that a search may take; half of
# them for loading and compiling settings. 0: no search, the first setting. The suite's `tune_seconds`, where it says `tune = true`.
ROUNDS, BUDGET = 6, float(os.environ.get("ERGOMETER_PEERS_SEARCH") or os.environ.get("ERGOMETER_TUNE_SECONDS") or "12")
# Who was slower than the default by so much in every round takes no further part.
HOPELESS = 1.05
# Least seconds of a block of a search, and what a setting must save to be chosen over the default: less is noise.
BLOCK, WORTH = 0.1, 0.02
# How far the outputs of two settings may lie apart, over the largest; what is right is for ergometer to say.
APART = {"f32": 1e-3, "bf16": 0.1}

INSTALL = "run ci/peers/install.sh"


def read_safetensors(path):
    """Tensors by name. A file is a length, a JSON header and the bytes."""
    import numpy as np

    with open(path, "rb") as file:
        data = file.read()
    (n,) = struct.unpack_from("<Q", data)
    tensors = {}
    for name, entry in json.loads(data[8 : 8 + n]).items():
        if name == "__metadata__":
            continue
        dtype = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16, "I32": np.int32}.get(entry["dtype"])
        if dtype is None:
            raise Failure("model", f"{path}: tensor {name} is {entry['dtype']}; this worker reads F32, F16, BF16 and I32")
        first, last = entry["data_offsets"]
        values = np.frombuffer(data[8 + n + first : 8 + n + last], dtype).reshape(entry["shape"])
        if entry["dtype"] == "BF16":
            # the upper half of an f32
            values = (values.astype(np.uint32) << 16).view(np.float32)
        tensors[name] = values if dtype is np.int32 else values.astype(np.float32)
    return tensors


class Model:
    """A model folder: its config, and its weights by name."""

    def __init__(self, job):
        self.folder = job["model"]
        files = [os.path.join(self.folder, name) for name in ("config.json", "model.safetensors")]
        digest = hashlib.sha256()
        for path in files:
            try:
                with open(path, "rb") as file:
                    digest.update(file.read())
            except OSError as error:
                raise Failure("model", f"{path}: {error}") from error
        if job.get("model_hash") not in ("", None, digest.hexdigest()):
            raise Failure("model", f"{self.folder} is not the model that the harness saw")
        with open(files[0]) as file:
            self.config = json.load(file)
        self.weights = read_safetensors(files[1])
        # names of the states, and the vector that each token of them starts from
        starts = {"trm": {"z_H": "H_init", "z_L": "L_init"}, "looped": {"z": "z_init"}}
        starts = starts.get(self.config["model_type"], {})
        self.states = {state: self.weights[start] for state, start in starts.items() if start in self.weights}
        prefix, features, width = (self.config.get(k, 0) for k in ("puzzle_emb_len", "puzzle_emb_ndim", "hidden_size"))
        self.prefix = (prefix or -(-features // width)) if features else 0
        self.tokens = self.config["seq_len"] + self.prefix


def listed(values):
    """Numbers as JSON has them: null for one that is none."""
    import numpy as np

    flat = np.asarray(values, np.float32).ravel()
    return flat.tolist() if np.isfinite(flat).all() else [float(v) if np.isfinite(v) else None for v in flat]


class Worker(ergometer_worker.Worker):
    def __init__(self, peer):
        self.peer, self.name = peer, peer.name

    @property
    def version(self):
        return self.peer.version()

    def run(self):
        if sys.argv[1:] != ["--search"]:
            return super().run()
        # what a library prints must not come between the lines
        self.out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        try:
            ((_, job),) = json.loads(sys.stdin.readline()).items()
            self.say("searched", **search(self.peer, job))
            return 0
        except Refusal as refusal:
            self.say("unavailable", what="case", reason=str(refusal), hint=refusal.hint)
        except Failure as failure:
            self.say("failed", kind=failure.kind, message=str(failure))
        except Exception as error:
            traceback.print_exc()
            # a board's memory ends by an error of PyTorch's own
            full = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
            self.say("failed", kind="out-of-memory" if full else "backend", message=f"{type(error).__name__}: {error}")
        return 1

    def prepare(self, job):
        device = device_of(self.peer, job)
        versions = self.peer.describe(job)
        import numpy as np

        self.np = np
        setting = chosen_by_hand(self.peer, job)
        if setting is not None:
            versions["search"] = "none: the suite gives options"
        elif BUDGET <= 0:
            setting = self.peer.settings(job)[0]
            versions["search"] = "none: ERGOMETER_PEERS_SEARCH is 0"
        else:
            found = self.searched(job)
            setting = found["setting"]
            versions.update(found["versions"])
        # the time of loading is that of what is timed; the search before it stands beside it
        began = time.perf_counter()
        model = Model(job)
        self.engine = self.peer.load(job, model, setting)
        seconds = time.perf_counter() - began
        self.batch, self.max_steps = job["batch"], job["max_steps"]
        # the rule of the family, see src/models
        kind = model.config["model_type"]
        self.rule = (lambda q: q[:, 0] > 0) if job["halt"] and kind in ("trm", "looped") else None
        self.inputs = np.asarray(job["inputs"], np.int64)
        self.ids = np.asarray(job["puzzle_ids"], np.int64)
        versions.update(getattr(self.engine, "report", dict)())
        options = {"device": device, **{key: str(value) for key, value in setting.items()}}
        isa = self.peer.isa()
        return {"seconds": seconds, "versions": versions, "options": options, **({"isa": isa} if isa else {})}

    def searched(self, job):
        """The search, in another process."""
        began = time.perf_counter()
        command = [sys.executable, sys.argv[0], "--search"]
        line = json.dumps({"job": job}) + "\n"
        child = subprocess.run(command, input=line, stdout=subprocess.PIPE, text=True)
        lines = child.stdout.splitlines()
        ((kind, body),) = json.loads(lines[-1]).items() if lines else [("failed", {"message": "it said nothing"})]
        if kind == "unavailable":
            raise Refusal(body["reason"], body.get("hint"))
        if kind != "searched":
            raise Failure(body.get("kind", "backend"), f"the search of settings: {body['message']}")
        body["versions"]["search.seconds"] = f"{time.perf_counter() - began:.1f}, not part of the time of loading"
        return body

    def rows(self, first, n):
        """Examples `first..` as a full batch, wrapping round."""
        at = self.np.arange(first, first + n) % len(self.inputs)
        return self.inputs[at], self.ids[at]

    def walk(self, first):
        """A batch from its start until each row has its answer. After each step: its number, the rows at work (where they belong in the batch,
        and where the engine has them), and which of them stop here."""
        np, keep = self.np, getattr(self.engine, "keep", None)
        self.engine.begin(*self.rows(first, self.batch))
        slots = places = np.arange(self.batch)
        for depth in range(1, self.max_steps + 1):
            self.engine.step()
            stops = np.full(len(slots), depth == self.max_steps)
            if self.rule and depth < self.max_steps:
                stops = self.rule(self.engine.halting())[places]
            yield depth, slots, places, stops
            if stops.all():
                return
            if stops.any():
                slots, places = slots[~stops], places[~stops]
                if keep and keep(places):
                    places = np.arange(len(places))

    def iterate(self, first):
        """What is timed: rows in, steps, outputs in memory. Gives (logits, q), and the steps of each row."""
        whole, used = None, self.np.empty(self.batch, int)
        for depth, slots, places, stops in self.walk(first):
            if not stops.any():
                continue
            used[slots[stops]] = depth
            parts = self.engine.outputs()
            if stops.all() and len(slots) == self.batch:
                return parts, used
            whole = whole or [None if p is None else self.np.empty((self.batch, *p.shape[1:]), p.dtype) for p in parts]
            for all_rows, part in zip(whole, parts):
                if part is not None:
                    all_rows[slots[stops]] = part[places[stops]]
        return whole, used

    def compare(self, go):
        """Outputs for the questions, each step from the recorded states; full batches, as they are timed."""
        np = self.np
        asked = read_safetensors(go["vectors"])
        names = list(getattr(self.engine, "state_names", []))
        rows = len(asked["inputs"])
        ids = asked.get("puzzle_identifiers", np.zeros(rows)).astype(np.int64)
        step, steps = 1, 1
        while names and f"{names[0]}.{steps}" in asked:
            steps += 1
        for step in range(1, steps + 1):
            logits, qs, states = [], [], [[] for _ in names]
            for first in range(0, rows, self.batch):
                live = min(self.batch, rows - first)
                at = first + np.arange(self.batch) % live
                self.engine.begin(asked["inputs"][at].astype(np.int64), ids[at])
                if step > 1:
                    self.engine.set_states([asked[f"{name}.{step - 1}"][at] for name in names])
                self.engine.step()
                l, q = self.engine.outputs()
                logits += listed(l[:live])
                qs += listed(q[:live]) if q is not None else []
                for all_rows, state in zip(states, self.engine.states()):
                    all_rows += listed(state[:live])
            self.say("outputs", step=step, logits=logits, q=qs, states=states)
        self.say("done", block=go["block"])

    def rows_of(self, outputs):
        """Row by row, without the example's number and the step."""
        logits, q = outputs
        answers = logits.argmax(axis=-1).tolist()
        halts = [{"halt_logit": float(v)} for v in q[:, 0]] if q is not None else [{}] * len(answers)
        return [{"answer": a, **h} for a, h in zip(answers, halts)]

    def predictions(self, result):
        outputs, used = result
        return [{"depth": depth, **row} for depth, row in zip(used.tolist(), self.rows_of(outputs))]

    def steps(self, result):
        return int(result[1].sum())

    def answer(self, go):
        for first in range(0, len(self.inputs), self.batch):
            live = min(self.batch, len(self.inputs) - first)
            for depth, slots, places, stops in self.walk(first):
                rows, told = self.rows_of(self.engine.outputs()), []
                for slot, place, last in zip(slots.tolist(), places.tolist(), stops.tolist()):
                    if slot < live:
                        told.append({"example": first + slot, "depth": depth, "last": last, **rows[place]})
                if told:
                    self.say("predictions", block=go["block"], rows=told)
        self.say("done", block=go["block"])


def device_of(peer, job):
    """Where the suite's options want the case computed."""
    device = (job.get("options") or {}).get("device", "cpu")
    if device not in peer.devices:
        raise Failure("backend", f"{peer.name} has no device `{device}` here; it has {', '.join(peer.devices)}")
    return device


def chosen_by_hand(peer, job):
    """The setting that a suite's options ask for, if they ask for more than a device."""
    asked = {key: value for key, value in (job.get("options") or {}).items() if key != "device"}
    if not asked:
        return None
    default = peer.settings(job)[0]
    unknown = sorted(set(asked) - set(default))
    if unknown:
        raise Failure("backend", f"{peer.name} has no option {', '.join(unknown)}; it has device, {', '.join(default)}")
    return {key: asked.get(key, value) for key, value in default.items()}


def search(peer, job):
    """Settings in turns, as many as there is time for; the fastest whose outputs are those of the default, if it was faster in every round."""
    import signal

    import numpy as np

    def too_long(*_):
        raise TimeoutError(f"not loaded within the search's {BUDGET:g} s")

    signal.signal(signal.SIGALRM, too_long)
    started = time.perf_counter()

    device_of(peer, job)
    peer.describe(job)
    model = Model(job)
    settings = peer.settings(job)
    tokens = np.asarray(job["inputs"], np.int64)[np.arange(job["batch"]) % len(job["inputs"])]
    ids = np.asarray(job["puzzle_ids"], np.int64)[np.arange(job["batch"]) % len(job["inputs"])]

    def iterate(engine):
        began = time.perf_counter()
        engine.begin(tokens, ids)
        engine.step()
        logits, _ = engine.outputs()
        return time.perf_counter() - began, logits

    engines, errors, wanted = {}, {}, None
    for i, setting in enumerate(settings):
        left = BUDGET / 2 - (time.perf_counter() - started)
        if engines and left <= 0:
            errors[i] = f"left out: half of the search's {BUDGET:g} s were over"
            continue
        try:
            # the first setting is always tried, however long it takes
            if engines:
                signal.setitimer(signal.ITIMER_REAL, left)
            engine = peer.load(job, model, setting)
            logits = np.array(iterate(engine)[1])
            wanted = logits if wanted is None else wanted
            apart = np.abs(logits - wanted).max() / np.abs(wanted).max()
            if not apart <= APART.get(job["precision"], 0.1):
                raise ValueError(f"its outputs lie {apart:.1e} from those of the first setting")
            engines[i] = engine
        except Exception as error:
            traceback.print_exc()
            errors[i] = f"{type(error).__name__}: {error}".splitlines()[0][:160]
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    if not engines:
        raise Failure("backend", f"none of {len(settings)} settings runs; the first: {errors[0]}")
    medians, rounds, longest, first = {i: [] for i in engines}, 0, 0.0, min(engines)
    alive = sorted(engines)
    # an order of its own in each round, and the same again for the same job
    order = random.Random(f"{job['model_hash']} {job['batch']}")
    while rounds < ROUNDS:
        began = time.perf_counter()
        if rounds and began - started + longest > BUDGET:
            break
        for i in order.sample(alive, len(alive)):
            block, end = [], time.perf_counter() + BLOCK
            while not block or time.perf_counter() < end:
                block.append(iterate(engines[i])[0])
            medians[i].append(float(np.median(block)))
        rounds += 1
        longest = max(longest, time.perf_counter() - began)
        slow = lambda i: all(m / d > HOPELESS for m, d in zip(medians[i], medians[first]))
        if rounds > 1:
            alive = [i for i in alive if i == first or not slow(i)]
    each = {i: [m / d for m, d in zip(medians[i], medians[first])] for i in engines}
    ratios = {i: float(np.median(r)) for i, r in each.items()}
    sure = [i for i in alive if rounds == ROUNDS and max(each[i]) < 1 and ratios[i] < 1 - WORTH]
    best = min(sure, key=ratios.get, default=first)
    method = (
        f"{len(engines)} of {len(settings)} settings in {rounds} of {ROUNDS} interleaved rounds of at least {BLOCK} s within {BUDGET:g} s; the lowest "
        f"median ratio to the first, if it saves more than {100 * WORTH:.0f} % and was below 1 in each of {ROUNDS} rounds"
    )
    versions = {"search": method}
    for i, setting in enumerate(settings):
        name = " ".join(f"{k}={v}" for k, v in setting.items())
        told = errors.get(i) or f"{1e3 * np.median(medians[i]):.3f} ms, ratio {ratios[i]:.3f}"
        versions[f"search.{i + 1}"] = f"{name}: {told}{' (chosen)' if i == best else ''}"
    return {"setting": settings[best], "versions": versions}
