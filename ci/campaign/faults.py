#!/usr/bin/env python3
"""Random faults of the running program, as ci/campaign.sh calls it: each fault strikes a run at a random moment, then `run --resume` must end with the whole set of cases.

Seeded: fault number n is the same for the same seed, as far as the machine's timing lets it. A fault that was survived is a line in FOLDER/faults.log, and is not
made again; --seconds bounds the time. The counts by kind go to FOLDER/faults.txt and to stdout.
"""

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PATIENCE = 120

SUITE = """
[[model]]
name = "dense"
path = "{root}/suites/models/dense-4x4"
[[model]]
name = "trm"
path = "{root}/suites/models/trm-4x4"
[[task]]
name = "small"
kind = "sudoku"
size = 4
clues = [4, 6]
examples = 8
[[backend]]
name = "by-rules"
kind = "external"
command = ["python3", "-B", "{root}/examples/external-worker/worker.py"]
[defaults]
seconds = 0.2
iterations = 3
warmup_seconds = 0.02
timeout_seconds = 20
[[cases]]
models = ["dense", "trm"]
tasks = ["small"]
backends = ["native", "by-rules"]
[[cases]]
models = ["trm"]
tasks = ["small"]
backends = ["native"]
scenarios = ["offline-b2"]
"""
CASES = 5


class Broken(Exception):
    pass


class Place:
    """A scratch folder with a suite in it and what the program left there."""

    def __init__(self, options, number):
        self.options = options
        self.folder = os.path.join(options.scratch, f"fault-{number}")
        os.makedirs(self.folder)
        self.tmp = os.path.join(self.folder, "tmp")
        os.makedirs(self.tmp)
        self.out = os.path.join(self.folder, "run")
        self.suite = os.path.join(self.folder, "suite.toml")
        with open(self.suite, "w") as file:
            file.write(SUITE.format(root=ROOT))
        # vectors and the like are made once, so that a fault meets measuring more often than preparing
        self.cache = os.path.join(self.folder, "cache")
        if os.path.isdir(options.cache):
            shutil.copytree(options.cache, self.cache)

    def environment(self):
        kept = {k: v for k, v in os.environ.items() if not k.startswith("ERGOMETER_")}
        return kept | {
            "ERGOMETER_CACHE": self.cache,
            "ERGOMETER_CEILINGS": "off",
            "ERGOMETER_OFFLINE": "1",
            "ERGOMETER_POWERCAP": os.path.join(self.folder, "no-powercap"),
            "TMPDIR": self.tmp,
        }

    def start(self, *more, out=None, before=None):
        command = [self.options.program, "run", self.suite, "--out", out or self.out, *more]
        log = open(os.path.join(self.folder, "log"), "ab")
        return subprocess.Popen(
            command, cwd=self.folder, env=self.environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=before, start_new_session=True
        )

    def processes(self):
        """Processes at work in this place, as (number, command line)."""
        found = []
        for entry in os.listdir("/proc"):
            if not entry.isdigit():
                continue
            try:
                if os.readlink(f"/proc/{entry}/cwd") != self.folder:
                    continue
                with open(f"/proc/{entry}/cmdline", "rb") as file:
                    line = file.read().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if line:
                found.append((int(entry), line))
        return found

    def finished(self):
        cases = os.path.join(self.out, "cases")
        names = os.listdir(cases) if os.path.isdir(cases) else []
        return sorted(n for n in names if not n.startswith(".") and os.path.exists(os.path.join(cases, n, "case.json")))

    def alone(self):
        """Nobody is left behind, once what was killed has gone."""
        end = time.monotonic() + 10
        while self.processes() and time.monotonic() < end:
            time.sleep(0.01)
        if self.processes():
            raise Broken(f"left behind: {self.processes()}")

    def clean(self):
        """No unfinished file in the run folder, no file in the folder for temporary ones."""
        for folder in (self.out, self.cache):
            for root, folders, files in os.walk(folder):
                for name in folders + files:
                    if name.startswith(".tmp"):
                        raise Broken(f"left behind: {os.path.join(root, name)}")
        if os.listdir(self.tmp):
            raise Broken(f"left in TMPDIR: {os.listdir(self.tmp)}")

    def said(self):
        with open(os.path.join(self.folder, "log"), errors="replace") as file:
            return file.read()


def wait(child):
    try:
        return child.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
        raise Broken(f"still at work after {PATIENCE} s") from None


# Faults: what is done to a run, and how a run may end then. Each gives the exit code, or None where it was killed.


def strike(place, rng, who, number):
    """A signal for one of the processes at a random moment."""
    child = place.start()
    time.sleep(rng.uniform(0, 3.0))
    target = None
    begin = time.monotonic()
    while target is None and child.poll() is None and time.monotonic() - begin < 5:
        kinds = {"harness": [], "guard": [], "worker": [], "external": []}
        for pid, line in place.processes():
            kind = "guard" if "--guard" in line else "external" if "worker.py" in line else "worker" if " worker " in line else "harness"
            kinds[kind].append(pid)
        if kinds[who]:
            target = rng.choice(kinds[who])
    if target is not None:
        try:
            os.kill(target, number)
        except ProcessLookupError:
            pass
    code = wait(child)
    if who == "harness" and target is not None and number == signal.SIGINT and code not in (0, 130):
        raise Broken(f"exit code {code} after SIGINT")
    return code


def signalled(who, number):
    return lambda place, rng: strike(place, rng, who, number)


def file_limit(place, rng):
    """No file may grow beyond some bytes: what a full disk looks like to who writes."""
    most = rng.choice([0, 1, 100, 1000, 5000, 20_000])

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

    code = wait(place.start(before=limit))
    if code not in (0, 1, 2):
        raise Broken(f"exit code {code} where files may have {most} bytes")
    return code


def full_disk(place, rng):
    """A run folder on a file system of some hundred KiB."""
    mounted = os.path.join(place.folder, "small")
    os.makedirs(mounted)
    size = rng.choice([16, 32, 64, 128, 256])
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "none", mounted], capture_output=True).returncode != 0:
        return file_limit(place, rng)
    try:
        code = wait(place.start(out=os.path.join(mounted, "run")))
        if code not in (0, 1, 2):
            raise Broken(f"exit code {code} on a full disk of {size} KiB")
        place.alone()
        if os.path.isdir(os.path.join(mounted, "run")):
            shutil.copytree(os.path.join(mounted, "run"), place.out, symlinks=True)
    finally:
        subprocess.run(["umount", mounted], capture_output=True)
    return code


def few_handles(place, rng):
    """Few open files."""
    most = rng.randrange(4, 24)
    code = wait(place.start(before=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))))
    if code not in (0, 1, 2, 127) and code is not None and code > 0:
        raise Broken(f"exit code {code} with {most} handles")
    return code


def halfway(place, rng):
    """A run that was killed, for faults that strike its folder."""
    child = place.start()
    time.sleep(rng.uniform(0.5, 3.0))
    child.kill()
    wait(child)
    place.alone()


def cut_folder(place, rng):
    """Files of a killed run are cut off, emptied or removed."""
    halfway(place, rng)
    files = [os.path.join(r, f) for r, _, names in os.walk(place.out) for f in names if "cases" in r]
    if files:
        victim = rng.choice(sorted(files))
        if rng.random() < 0.3:
            os.remove(victim)
        else:
            os.truncate(victim, int(os.path.getsize(victim) * rng.random()))
        place.damaged = os.path.dirname(victim)


def pipes(place, rng):
    """A pipe or a link in the place of a file of the run, the cache or the lock."""
    halfway(place, rng)
    if not os.path.isdir(os.path.join(place.out, "cases")):
        # killed before there was a run folder: there is nothing to strike
        return
    folders = [place.out] + [r for r, _, _ in os.walk(os.path.join(place.out, "cases"))]
    victim = os.path.join(rng.choice(sorted(folders)), rng.choice([".lock", "tuning.json", "records.json", "records.csv", "case.json", "samples.csv", "report"]))
    if os.path.isdir(victim) and not os.path.islink(victim):
        shutil.rmtree(victim)
    elif os.path.lexists(victim):
        os.remove(victim)
    if rng.random() < 0.5:
        os.mkfifo(victim)
    else:
        os.symlink(rng.choice(["/dev/zero", "/dev/null", os.path.join(place.folder, "elsewhere")]), victim)
    place.damaged = victim


def cache(place, rng):
    """The cache is cut off, a pipe, or nobody's to write."""
    halfway(place, rng)
    files = sorted(os.path.join(r, f) for r, _, names in os.walk(place.cache) for f in names)
    kind = rng.choice(["cut", "pipe", "file"])
    if kind == "file" or not files:
        shutil.rmtree(place.cache, ignore_errors=True)
        with open(place.cache, "w") as file:
            file.write("no folder")
        place.damaged = place.cache
        return
    victim = rng.choice(files)
    if kind == "cut":
        os.truncate(victim, int(os.path.getsize(victim) * rng.random()))
    else:
        os.remove(victim)
        os.mkfifo(victim)
        place.damaged = victim


FAULTS = {
    f"{who} {name}": signalled(who, number)
    for who in ("harness", "worker", "external", "guard")
    for name, number in (("SIGKILL", signal.SIGKILL), ("SIGTERM", signal.SIGTERM), ("SIGINT", signal.SIGINT))
} | {
    "file size limit": file_limit,
    "full disk": full_disk,
    "few handles": few_handles,
    "run folder cut": cut_folder,
    "pipes and links": pipes,
    "cache damaged": cache,
}


def survive(options, number):
    """One fault and what must hold after it; gives its kind."""
    rng = random.Random(options.seed * 1_000_003 + number)
    kind = sorted(FAULTS)[number % len(FAULTS)]
    place = Place(options, number)
    place.damaged = None
    try:
        FAULTS[kind](place, rng)
        place.alone()
        if "panicked" in place.said():
            raise Broken("panic")
        kept = place.finished()
        # who was struck before there was a run folder has nothing to go on with
        code = wait(place.start(*(["--resume"] if os.path.isdir(place.out) else [])))
        said = place.said()
        if "panicked" in said:
            raise Broken("panic")
        if place.damaged and code == 2:
            # a folder that is not as it was left may be refused, by name and with the remedy; mended, it goes on
            if "hint: " not in said or os.path.basename(place.damaged) not in said:
                raise Broken(f"refused without the name of {place.damaged} or a hint")
            mend(place.damaged, place)
            code = wait(place.start("--resume"))
            kept = []
        # a case that was struck is recorded with its error: no other end
        if code not in (0, 1):
            raise Broken(f"exit code {code} of the resumed run")
        if len(place.finished()) != CASES:
            raise Broken(f"{len(place.finished())} cases of {CASES}: {place.finished()}")
        if not set(kept) <= set(place.finished()):
            raise Broken(f"lost: {set(kept) - set(place.finished())}")
        with open(os.path.join(place.out, "records.json")) as file:
            cases = {record["case_id"] for record in json.load(file)["records"]}
        if len(cases) != CASES:
            raise Broken(f"records of {len(cases)} cases")
        place.alone()
        place.clean()
    except Broken as error:
        print(f"BROKEN fault {number} ({kind}, seed {options.seed}): {error}\n{place.said()[-1500:]}\n", flush=True)
        kept = os.path.join(options.folder, "broken", str(number))
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(place.folder, kept, symlinks=True, ignore=lambda folder, names: [n for n in names if special(os.path.join(folder, n))])
        return kind, False
    finally:
        for pid, _ in place.processes():
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(place.folder, ignore_errors=True)
    return kind, True


def special(path):
    return not (os.path.isfile(path) or os.path.isdir(path)) or os.path.islink(path)


def mend(damaged, place):
    """What the message asks for: what is no file goes away, a damaged case too."""
    path = damaged
    while os.path.dirname(path) not in (os.path.join(place.out, "cases"), place.out, place.folder, place.cache) and len(path) > len(place.folder):
        path = os.path.dirname(path)
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.remove(path)


def main():
    parser = argparse.ArgumentParser()
    for name in ("program", "scratch", "folder"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int)
    options = parser.parse_args()
    options.program, options.scratch = os.path.abspath(options.program), os.path.realpath(options.scratch)
    os.makedirs(options.folder, exist_ok=True)
    options.cache = os.path.join(options.scratch, "warm-cache")
    # one whole run: the suite is right, and its vectors are there
    place = Place(options, -1)
    if wait(place.start()) != 0 or len(place.finished()) != CASES:
        print(f"the suite does not run without a fault:\n{place.said()}")
        return 1
    shutil.copytree(place.cache, options.cache, dirs_exist_ok=True)
    shutil.rmtree(place.folder)

    log = os.path.join(options.folder, "faults.log")
    done = {}
    if os.path.exists(log) and options.only is None:
        with open(log) as file:
            for line in file:
                seed, number, outcome, kind = line.rstrip("\n").split(" ", 3)
                if int(seed) == options.seed:
                    done[int(number)] = (kind, outcome == "survived")
    end = time.monotonic() + options.seconds
    for number in range(options.faults) if options.only is None else [options.only]:
        if number in done or time.monotonic() > end:
            continue
        done[number] = survive(options, number)
        kind, well = done[number]
        with open(log, "a") as file:
            file.write(f"{options.seed} {number} {'survived' if well else 'BROKEN'} {kind}\n")
    counts = {}
    for kind, well in done.values():
        counts.setdefault(kind, [0, 0])[0 if well else 1] += 1
    lines = [f"{kind}: {well} survived, {ill} broken" for kind, (well, ill) in sorted(counts.items())]
    broken = sum(ill for _, ill in counts.values())
    lines.append(f"faults in all: {len(done)} of {options.faults}, {broken} broken")
    with open(os.path.join(options.folder, "faults.txt"), "w") as file:
        file.write("\n".join(lines) + "\n")
    print("\n".join(lines))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
