#!/usr/bin/env python3
"""Workers that go wrong, one way each, for the end-to-end tests: fake.py MODE [--tag T] [--log FILE] [--hold PHASE] [--gate FILE].

A mode is a class below, derived from the honest worker. With --log every phase appends `MODE PHASE` to a file; with --hold the worker
stops in that phase until the gate file is there. The tag is for finding the process in /proc."""

import argparse
import json
import os
import random
import signal
import struct
import subprocess
import sys
import time

# the honest worker is the one that the documents show
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../examples/external-worker"))
from worker import Worker  # noqa: E402

MODES = {}


class Fake(Worker):
    # what a fake prints is to break the protocol
    own_stdout = False

    def __init_subclass__(cls):
        MODES[cls.__doc__.split(":")[0]] = cls

    def phase(self, name):
        if OPTIONS.log:
            with open(OPTIONS.log, "a") as log:
                log.write(f"{OPTIONS.name or OPTIONS.mode} {name}\n")
        while name == OPTIONS.hold and not os.path.exists(OPTIONS.gate):
            time.sleep(0.005)

    def refusal(self, inputs):
        return None

    def load(self, job):
        self.phase("load")
        super().load(job)

    def warm(self, go):
        self.phase("warm")
        super().warm(go)

    def answer(self, go):
        self.phase("answer")
        super().answer(go)

    def time(self, go):
        self.phase("time")
        super().time(go)


class Plain(Fake):
    """plain: honest"""


class Nap(Fake):
    """nap: honest, and each iteration takes 20 ms without any work"""

    def iterate(self, first):
        time.sleep(0.02)
        return super().iterate(first)


class Long(Fake):
    """long: honest, and each timed iteration takes 0.3 s, beside which a busy machine's waits are short"""

    timed = False

    def time(self, go):
        self.timed = True
        super().time(go)
        self.timed = False

    def iterate(self, first):
        if self.timed:
            time.sleep(0.3)
        return super().iterate(first)


class SlowStart(Fake):
    """slow-start: its first iteration takes 0.6 s, as if all did"""

    def warm(self, go):
        self.first = not hasattr(self, "first")
        super().warm(go)

    def iterate(self, first):
        if self.first:
            time.sleep(0.6)
            self.first = False
        return super().iterate(first)


class Equipped(Fake):
    """equipped: looks whether it has been given what an external program may count on"""

    def load(self, job):
        assert os.access(os.environ["ERGOMETER_EXE"], os.X_OK), "a program to ask"
        assert {"config.json", "model.safetensors"} <= set(os.listdir(job["model"])), "a whole model"
        super().load(job)


class Witness(Fake):
    """witness: tells where it runs"""

    def prepare(self, job):
        import resource
        import socket

        try:
            with open(OPTIONS.words, "w") as outside:
                outside.write("written")
            outside = "written"
        except OSError as error:
            outside = type(error).__name__
        with open("own", "w") as own:
            own.write("x")

        def tried(attempt):
            try:
                attempt()
                return "done"
            except OSError as error:
                return type(error).__name__

        def write(path):
            with open(path, "w") as file:
                file.write("x")

        return {
            "versions": {
                "w.env": " ".join(sorted(os.environ)),
                "w.folder": os.getcwd(),
                "w.tmp": os.environ["TMPDIR"],
                "w.cpus": ",".join(map(str, sorted(os.sched_getaffinity(0)))),
                "w.memory": str(resource.getrlimit(resource.RLIMIT_DATA)[0]),
                "w.outside": outside,
                "w.udp": tried(lambda: socket.socket(type=socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", 9))),
                "w.tcp": tried(lambda: socket.create_server(("127.0.0.1", 0))),
                "w.signal": tried(lambda: os.kill(os.getppid(), 0)),
                "w.shm": tried(lambda: write("/dev/shm/" + os.path.basename(os.getcwd()))),
                "w.null": tried(lambda: write("/dev/null")),
            }
        }


class Glutton(Fake):
    """glutton: asks for 512 MiB"""

    def prepare(self, job):
        self.held = b"\x01" * (512 << 20)


class Hungry(Fake):
    """hungry: touches 256 MiB in each timed block"""

    held = None

    def time(self, go):
        self.held = b""
        super().time(go)
        self.held = None

    def iterate(self, first):
        if self.held == b"":
            self.held = b"\x01" * (256 << 20)
        return super().iterate(first)


class Hoarder(Fake):
    """hoarder: touches 256 MiB once the meters have stopped"""

    def say(self, kind, /, **body):
        super().say(kind, **body)
        if kind == "measured":
            time.sleep(0.3)
            held = b"\x01" * (256 << 20)
            del held


class Many(Fake):
    """many: as many samples as a block may have"""

    def time(self, go):
        rows = self.iterate(0)
        t_ns = time.monotonic_ns()
        time.sleep(go["seconds"])
        latency = go["seconds"] / 10_000
        self.say("measured", block=go["block"])
        for i in range(10_000):
            t = t_ns + int(i * latency * 1e9)
            self.say("sample", block=go["block"], iteration=i, t_ns=t, example=0, rows=1, latency=latency, steps=1)
        self.say("predictions", block=go["block"], rows=[{"example": 0, "depth": 1, "last": True, "answer": rows[0]}])
        self.say("done", block=go["block"])


class Parent(Fake):
    """parent: starts a process of its own and forgets it"""

    def load(self, job):
        quiet = subprocess.DEVNULL
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", OPTIONS.tag], stdin=quiet, stdout=quiet)
        super().load(job)


class Streaming(Fake):
    """streaming: an iteration takes 5 ms, and its sample is sent at once"""

    def iterate(self, first):
        time.sleep(0.005)
        return super().iterate(first)

    def time(self, go):
        answers, i, end = {}, 0, time.perf_counter() + go["seconds"]
        while i < go["n"] or time.perf_counter() < end:
            first = i % len(self.inputs)
            t_ns, began = time.monotonic_ns(), time.perf_counter()
            answers[first] = self.iterate(first)[0]
            latency = time.perf_counter() - began
            self.say("sample", block=go["block"], iteration=i, t_ns=t_ns, example=first, rows=1, latency=latency, steps=1)
            i += 1
        self.say("measured", block=go["block"])
        rows = [{"example": e, "depth": 1, "last": True, "answer": a} for e, a in answers.items()]
        self.say("predictions", block=go["block"], rows=rows)
        self.say("done", block=go["block"])


def leave_a_child_at_stdout():
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", OPTIONS.tag], stdin=subprocess.DEVNULL)


class Guest(Fake):
    """guest: leaves in order, and a child of its keeps stdout open"""

    def load(self, job):
        leave_a_child_at_stdout()
        super().load(job)


class Runaway(Fake):
    """runaway: sends a process of its own into another session, where nobody is its parent"""

    def load(self, job):
        script = "import os, time; os.setsid(); os.fork() and os._exit(0); os.close(1); time.sleep(600)"
        subprocess.run([sys.executable, "-c", script, OPTIONS.tag], stdin=subprocess.DEVNULL)
        super().load(job)


class Restless(Fake):
    """restless: a process that it has started works all the time"""

    def load(self, job):
        quiet = subprocess.DEVNULL
        script = "while True: pass"
        subprocess.Popen([sys.executable, "-c", script, OPTIONS.tag], stdin=quiet, stdout=quiet)
        super().load(job)


# Ends.


class ExitBeside(Fake):
    """exit-beside: leaves with 6 instead of loading, and a child of its keeps stdout open"""

    def load(self, job):
        leave_a_child_at_stdout()
        sys.exit(6)


class Flood(Fake):
    """flood: 80 MiB of logs, and then nothing"""

    def load(self, job):
        for _ in range(80):
            os.write(2, b"x" * (1 << 20))
        time.sleep(600)


class Exit(Fake):
    """exit: leaves with 7 instead of loading"""

    def load(self, job):
        print("the dog ate the weights", file=sys.stderr)
        sys.exit(7)


class ExitLate(Fake):
    """exit-late: leaves in the middle of a timed block"""

    def time(self, go):
        self.say("sample", block=go["block"], iteration=0, t_ns=0, example=0, rows=1, latency=0.001, steps=1)
        sys.exit(3)


class ExitThird(Fake):
    """exit-third: leaves in its third timed block"""

    blocks = 0

    def time(self, go):
        self.blocks += 1
        if self.blocks == 3:
            sys.exit(4)
        super().time(go)


class ExitThirdOfOneThread(ExitThird):
    """exit-third-of-one-thread: leaves in its third timed block if it has one thread"""

    def time(self, go):
        if self.job["threads"] != 1:
            self.blocks = -1000
        super().time(go)


class ExitLast(Fake):
    """exit-last: does everything right, then leaves with 5"""

    def run(self):
        super().run()
        sys.exit(5)


class Kill(Fake):
    """kill: SIGKILL while it warms up"""

    def warm(self, go):
        os.kill(os.getpid(), signal.SIGKILL)


class Segv(Fake):
    """segv: SIGSEGV while it answers"""

    def answer(self, go):
        os.kill(os.getpid(), signal.SIGSEGV)


class Silent(Fake):
    """silent: loads for ever"""

    def load(self, job):
        time.sleep(600)


class SilentLate(Fake):
    """silent-late: goes silent in a timed block, with a child beside it"""

    def time(self, go):
        quiet = subprocess.DEVNULL
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", OPTIONS.tag], stdin=quiet)
        time.sleep(600)


class Stubborn(Fake):
    """stubborn: does everything right, and does not leave"""

    def run(self):
        super().run()
        time.sleep(600)


class Deaf(Fake):
    """deaf: never reads its input"""

    def run(self):
        self.say("hello", protocol=1, name=self.name, version=self.version)
        time.sleep(600)


class OutOfMemory(Fake):
    """out-of-memory: says that memory ran out"""

    def load(self, job):
        self.say("failed", kind="out-of-memory", message="no room for the weights")


class Abort(Fake):
    """abort: ends as a Rust program does when an allocation fails"""

    def load(self, job):
        os.write(2, b"memory allocation of 68719476736 bytes failed\n")
        os.abort()


class BadModel(Fake):
    """bad-model: cannot use the model"""

    def load(self, job):
        self.say("failed", kind="model", message="no tensor of that name")


class Litter(Fake):
    """litter: honest, and leaves a file where temporary ones go"""

    def load(self, job):
        open(os.path.join(os.environ["TMPDIR"], "litter"), "w").close()
        super().load(job)


class Speak(Fake):
    """speak: says what it was told to, in a message and on stderr"""

    def load(self, job):
        words = json.loads(f'"{OPTIONS.words}"')
        print(words, file=sys.stderr)
        self.say("failed", kind="model", message=words)


class Gone(Fake):
    """gone: what it needs is not on this machine"""

    def load(self, job):
        self.say("unavailable", what="case", reason="no such accelerator", hint="plug one in")


# Lines.


class Chatter(Fake):
    """chatter: writes a log line to stdout"""

    def load(self, job):
        print("loading <b>model</b> ...", flush=True)
        super().load(job)


class Turn(Fake):
    """turn: is ready before it has loaded"""

    def load(self, job):
        self.say("ready", first_seconds=0.1)


class Future(Fake):
    """future: speaks another version"""

    def run(self):
        self.say("hello", protocol=99, name=self.name, version=self.version)
        sys.stdin.readline()


class Afterword(Fake):
    """afterword: goes on talking after its last block"""

    def run(self):
        super().run()
        self.say("done", block=99)


class EndlessLine(Fake):
    """endless-line: a line that never ends"""

    def load(self, job):
        while True:
            os.write(1, b"x" * 65536)


class EndlessRefusals(Fake):
    """endless-refusals: lacks ever more things"""

    def load(self, job):
        i = 0
        while True:
            lines = (json.dumps({"unavailable": {"what": "energy_cpu", "reason": f"reason {i + k}"}}) + "\n" for k in range(1000))
            os.write(1, "".join(lines).encode())
            i += 1000


class EndlessAnswers(Fake):
    """endless-answers: changes its mind for ever"""

    def answer(self, go):
        row = {"example": 0, "depth": 1, "last": False, "answer": self.inputs[0]}
        line = json.dumps({"predictions": {"block": go["block"], "rows": [row] * 100}}) + "\n"
        while True:
            os.write(1, line.encode())


class EndlessSamples(Fake):
    """endless-samples: times for ever"""

    def time(self, go):
        while True:
            self.say("sample", block=go["block"], iteration=0, t_ns=0, example=0, rows=1, latency=0.001, steps=1)


# Outputs and answers.


class Outputs(Fake):
    """right-outputs: gives the recorded outputs back"""

    factor = 1.0

    def read(self, path):
        with open(path, "rb") as file:
            (n,) = struct.unpack("<Q", file.read(8))
            return json.loads(file.read(n)), file.read()

    def logits(self, go):
        asked, _ = self.read(go["vectors"])
        assert "inputs" in asked and not any("logits" in name or "halt" in name for name in asked), "questions hold answers"
        # They lie beside it in the cache: a fake may cheat.
        header, data = self.read(go["vectors"].replace(".questions.", "."))
        step = 1
        while f"logits.{step}" in header:
            begin, end = header[f"logits.{step}"]["data_offsets"]
            yield step, [self.factor * v for v in struct.unpack(f"<{(end - begin) // 4}f", data[begin:end])]
            step += 1

    def compare(self, go):
        for step, logits in self.logits(go):
            self.say("outputs", step=step, logits=logits)
        self.say("done", block=go["block"])


class Off(Outputs):
    """off: outputs that are one percent too large"""

    factor = 1.01


class Shape(Fake):
    """shape: three logits"""

    def compare(self, go):
        self.say("outputs", step=1, logits=[0.0, 1.0, 2.0])


class Infinite(Outputs):
    """infinite: outputs beyond what f32 can hold"""

    factor = 1e300


class NaN(Outputs):
    """nan: outputs that are not numbers, which JSON writes as null"""

    def logits(self, go):
        for step, logits in super().logits(go):
            yield step, [None] * len(logits)


class StepZero(Fake):
    """step-zero: outputs before the first step"""

    def compare(self, go):
        self.say("outputs", step=0, logits=[0.0])


class Mute(Fake):
    """mute: no outputs, and no word about it"""

    def compare(self, go):
        self.say("done", block=go["block"])


class Skips(Fake):
    """skips: leaves an example out"""

    def answer(self, go):
        self.inputs, whole = self.inputs[:-1], self.inputs
        super().answer(go)
        self.inputs = whole


class Other(Fake):
    """other: answers an example that nobody asked for"""

    def answer(self, go):
        self.say("predictions", block=go["block"], rows=[{"example": 10**12, "depth": 1, "last": True, "answer": self.inputs[0]}])


class Short(Fake):
    """short: an answer of three cells"""

    def answer(self, go):
        self.say("predictions", block=go["block"], rows=[{"example": 0, "depth": 1, "last": True, "answer": [2, 2, 2]}])


class Twice(Fake):
    """twice: answers an example again"""

    def answer(self, go):
        row = {"example": 0, "depth": 1, "last": True, "answer": self.inputs[0]}
        self.say("predictions", block=go["block"], rows=[row, row])


class TwoFaced(Fake):
    """two-faced: answers fast and wrongly while it is timed"""

    timed = False

    def time(self, go):
        self.timed = True
        super().time(go)

    def iterate(self, first):
        return [[2] * len(self.inputs[0])] if self.timed else super().iterate(first)


class Empty(Fake):
    """empty: a timed block without samples"""

    def time(self, go):
        rows = [{"example": 0, "depth": 1, "last": True, "answer": self.solve(self.inputs[0])}]
        self.say("predictions", block=go["block"], rows=rows)
        self.say("done", block=go["block"])


class Unanswered(Fake):
    """unanswered: times every example, and answers one"""

    def say(self, kind, /, **body):
        if kind == "predictions" and len(body["rows"]) > 1:
            body["rows"] = body["rows"][:1]
        super().say(kind, **body)


class Boastful(Fake):
    """boastful: claims a thousand rows an iteration"""

    def say(self, kind, /, **body):
        if kind == "sample":
            body["rows"] = 1000
        super().say(kind, **body)


class Hasty(Fake):
    """hasty: stops the meters before it begins"""

    def time(self, go):
        super().say("measured", block=go["block"])
        super().time(go)

    def say(self, kind, /, **body):
        if kind != "measured":
            super().say(kind, **body)

    def iterate(self, first):
        time.sleep(0.01)
        return super().iterate(first)


class Echo(Fake):
    """echo: stops the meters twice"""

    def say(self, kind, /, **body):
        super().say(kind, **body)
        if kind == "measured":
            super().say(kind, **body)


class Negative(Fake):
    """negative: is done before it began"""

    def say(self, kind, /, **body):
        if kind == "sample":
            body["latency"] = -1.0
        super().say(kind, **body)


# Claims.


class Hundredth(Fake):
    """hundredth: tells a hundredth of each latency"""

    factor = 0.01

    def iterate(self, first):
        time.sleep(0.002)
        return super().iterate(first)

    def say(self, kind, /, **body):
        if kind == "sample":
            body["latency"] *= self.factor
        super().say(kind, **body)


class Denormal(Hundredth):
    """denormal: tells latencies that are no time"""

    factor = 5e-324


class Tiny(Hundredth):
    """tiny: tells latencies of 10 ns"""

    factor = 5e-6


class Doubler(Fake):
    """doubler: sends each sample twice, at half of its time"""

    def say(self, kind, /, **body):
        if kind == "sample":
            body["latency"] /= 2
            super().say(kind, **body)
        super().say(kind, **body)


class Renumbered(Fake):
    """renumbered: sends each sample twice, at half of its time and under the next number"""

    def say(self, kind, /, **body):
        if kind == "sample":
            body["latency"] /= 2
            body["iteration"] *= 2
            super().say(kind, **body)
            body["iteration"] += 1
        super().say(kind, **body)


class Half(Fake):
    """half: stops the meters after half of the block, and goes on"""

    def time(self, go):
        first = dict(go, seconds=go["seconds"] / 2, n=1)
        super().time(first)

    def iterate(self, first):
        time.sleep(0.002)
        return super().iterate(first)


class Dice(Fake):
    """dice: starts its samples at random"""

    def say(self, kind, /, **body):
        if kind == "sample":
            body["t_ns"] = random.getrandbits(60)
        super().say(kind, **body)


class Backwards(Fake):
    """backwards: sends its samples in another order"""

    def say(self, kind, /, **body):
        if kind == "sample":
            body["iteration"] = 1000 - body["iteration"]
        super().say(kind, **body)


class OneStep(Fake):
    """one-step: takes one step where sixteen were asked for"""


class Claimant(Fake):
    """claimant: claims sixteen steps while it is timed"""

    def say(self, kind, /, **body):
        if kind == "sample":
            body["steps"] = 16 * body["rows"]
        super().say(kind, **body)


class DeepAnswers(Fake):
    """deep-answers: claims sixteen steps while it is timed, in its answers too"""

    timed = False

    def time(self, go):
        self.timed = True
        super().time(go)

    def say(self, kind, /, **body):
        if kind == "sample":
            body["steps"] = 16 * body["rows"]
        if kind == "predictions" and self.timed:
            for row in body["rows"]:
                row["depth"] = 16
        super().say(kind, **body)


class Edges(Fake):
    """edges: tells its iterations as if they were half as long, one after the other in the second half of the block"""

    kept = []

    def iterate(self, first):
        time.sleep(0.002)
        return super().iterate(first)

    def time(self, go):
        self.kept = []
        super().time(go)

    def say(self, kind, /, **body):
        if kind == "sample":
            self.kept.append(body)
            return
        if kind == "unavailable" and self.kept:
            end = self.kept[-1]["t_ns"] + 1e9 * self.kept[-1]["latency"]
            for sample in reversed(self.kept):
                sample["latency"] /= 2
                end -= 1e9 * sample["latency"] + 1000
                sample["t_ns"] = int(end)
            for sample in self.kept:
                super().say("sample", **sample)
            self.kept = []
        super().say(kind, **body)


class Quick(Fake):
    """quick: an honest loop around 20 us of work, which takes a good part of the time"""

    def iterate(self, first):
        end = time.monotonic_ns() + 18_000
        rows = [self.known.setdefault(first, self.known.get(first) or self.solve(self.inputs[first]))]
        while time.monotonic_ns() < end:
            pass
        return rows

    def load(self, job):
        self.known = {}
        super().load(job)

    def time(self, go):
        samples, answers, end = [], {}, time.monotonic_ns() + go["seconds"] * 1e9
        while len(samples) < 10_000 and (len(samples) < go["n"] or time.monotonic_ns() < end):
            first = self.next
            began = time.monotonic_ns()
            answers[first] = self.iterate(first)[0]
            ended = time.monotonic_ns()
            self.next = (first + 1) % len(self.inputs)
            samples.append((began, first, (ended - began) / 1e9))
            # keeping books
            until = time.monotonic_ns() + 8_000
            while time.monotonic_ns() < until:
                pass
        self.say("measured", block=go["block"])
        for i, (t_ns, first, latency) in enumerate(samples):
            latency = self.told(latency)
            self.say("sample", block=go["block"], iteration=i, t_ns=t_ns, example=first, rows=1, latency=latency, steps=1)
        rows = [{"example": e, "depth": 1, "last": True, "answer": a} for e, a in answers.items()]
        self.say("predictions", block=go["block"], rows=rows)
        self.say("done", block=go["block"])

    def told(self, latency):
        return latency


class Microsecond(Quick):
    """microsecond: tells its 20 us as 1 us"""

    def told(self, latency):
        return 1e-6


class QuickLoad(Fake):
    """quick-load: takes 0.3 s to load and to make its first iteration, and tells next to nothing"""

    first = True

    def refusal(self, inputs):
        time.sleep(0.3)

    def iterate(self, first):
        if self.first:
            self.first = False
            time.sleep(0.3)
        return super().iterate(first)

    def say(self, kind, /, **body):
        if kind == "loaded":
            body["seconds"] = 1e-8
        if kind == "ready":
            body["first_seconds"] = 1e-8
        super().say(kind, **body)


class NoLoad(Fake):
    """no-load: loads in no time"""

    def say(self, kind, /, **body):
        if kind == "loaded":
            body["seconds"] = 0.0
        super().say(kind, **body)


class Censor(Fake):
    """censor: says that what is read from outside is unavailable"""

    def load(self, job):
        for what in ["latency", "memory_peak", "energy_cpu", "cpu_time", "joules_per_right", "window", "accuracy"]:
            self.say("unavailable", what=what, reason="because I say so")
        super().load(job)


class OtherBlock(Fake):
    """other-block: answers a block that nobody asked for"""

    late = ("predictions",)

    def say(self, kind, /, **body):
        if kind in self.late:
            body["block"] += 3
        super().say(kind, **body)


class OtherDone(OtherBlock):
    """other-done: ends a block that nobody asked for"""

    late = ("done",)


class EverLoading(Fake):
    """ever-loading: claims to have loaded for longer than the universe"""

    def say(self, kind, /, **body):
        if kind == "loaded":
            body["seconds"] = 1e300
        super().say(kind, **body)


class NeverFirst(Fake):
    """never-first: claims a first iteration of no time"""

    def say(self, kind, /, **body):
        if kind == "ready":
            body["first_seconds"] = 5e-324
        super().say(kind, **body)


class Counter(Fake):
    """counter: claims to have executed more than anything can"""

    flops = 1e300

    def say(self, kind, /, **body):
        if kind == "done" and self.measured:
            super().say("counted", block=body["block"] + self.further, flops_executed=self.flops)
        self.measured |= kind == "measured"
        super().say(kind, **body)

    measured, further = False, 0


class Counting(Counter):
    """counting: says what it executed"""

    flops = 1e6


class Fraction(Counter):
    """fraction: claims to have executed a part of an operation"""

    flops = 1e-300


class OtherCount(Counter):
    """other-count: counts for a block that nobody asked for"""

    flops, further = 1e6, 1


class Stout(Fake):
    """stout: holds more bytes than its process ever had"""

    def say(self, kind, /, **body):
        if kind == "loaded":
            body.update(weight_bytes=2**40, state_bytes=4096)
        super().say(kind, **body)


class Heavy(Fake):
    """heavy: holds more bytes than there are"""

    def say(self, kind, /, **body):
        if kind == "loaded":
            body["weight_bytes"] = 2**63
        super().say(kind, **body)


class Dripping(Fake):
    """dripping: says something before each time limit, and never gets done"""

    def answer(self, go):
        while True:
            time.sleep(0.05)
            self.say("unavailable", what="flops_executed", reason="later")


class Windbag(Fake):
    """windbag: every text of it has 3 MiB"""

    name, version = "n" * (3 << 20), "v" * (3 << 20)

    def load(self, job):
        long = "x" * (3 << 20)
        for what in ["flops_executed", "weight_bytes", long]:
            self.say("unavailable", what=what, reason=long, hint=long)
        self.job, self.inputs, self.next = job, job["inputs"], 0
        many = {f"key {i}": "value" for i in range(1000)}
        self.say("loaded", seconds=1e-6, versions={long: long, **many}, options={long: long}, isa=long)


class LongFarewell(Fake):
    """long-farewell: fails with 15 MiB of words"""

    def load(self, job):
        self.say("failed", kind="backend", message="far too many words " * 800_000)


class Ropewalker(Fake):
    """ropewalker: fails with 20 MiB of words"""

    def load(self, job):
        self.say("failed", kind="backend", message="x" * (20 << 20))


class Arsonist(Fake):
    """arsonist: turns what it finds of its case into pipes and links"""

    def load(self, job):
        log = os.readlink("/proc/self/fd/2")
        assert not os.path.exists(log), "the log has a name"
        for folder, folders, files in os.walk(os.path.join(OPTIONS.tag, "run")):
            assert not any(name.startswith(".tmp-") for name in folders + files), "half a case lies about"
        super().load(job)


# Scenarios.


class Streams(Fake):
    """streams: knows multi-stream; its rows have their answers one after another, 5 ms apart"""

    rows = []

    def say(self, kind, /, **body):
        if kind == "loaded":
            body["scenario"] = self.job["scenario"]
        if kind == "sample":
            body["row_seconds"] = self.told(self.rows[body["iteration"]], body["latency"])
        super().say(kind, **body)

    def told(self, rows, latency):
        return rows

    def time(self, go):
        self.rows = []
        super().time(go)

    def iterate(self, first):
        began, at, answers = time.perf_counter(), [], []
        for i in range(self.job["batch"]):
            time.sleep(0.005)
            answers.append(self.solve(self.inputs[(first + i) % len(self.inputs)]))
            at.append(time.perf_counter() - began)
        self.rows.append(at)
        return answers


class ShortRows(Streams):
    """short-rows: says that each of its rows took a hundredth of its time"""

    def told(self, rows, latency):
        return [t / 100 for t in rows]


class LongRows(Streams):
    """long-rows: says that each of its rows took twice as long as all together"""

    def told(self, rows, latency):
        return [2 * latency for _ in rows]


class FewRows(Streams):
    """few-rows: tells the time of one row alone"""

    def told(self, rows, latency):
        return rows[-1:]


class Parrot(Fake):
    """parrot: repeats the name of a scenario that it does not know"""

    def say(self, kind, /, **body):
        if kind == "loaded":
            body["scenario"] = self.job["scenario"]
        super().say(kind, **body)


class Frail(Fake):
    """frail: its third process leaves with 9 instead of loading"""

    def load(self, job):
        super().phase("load")
        with open(OPTIONS.log) as log:
            if log.read().count(f"{OPTIONS.name} load\n") == 3:
                sys.exit(9)
        Worker.load(self, job)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("mode", choices=MODES)
    for option in ["--tag", "--log", "--hold", "--gate", "--name", "--words"]:
        parser.add_argument(option)
    OPTIONS = parser.parse_args()
    sys.exit(MODES[OPTIONS.mode]().run())
