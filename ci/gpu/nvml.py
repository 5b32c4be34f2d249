#!/usr/bin/env python3
"""What NVML says on this machine: counters, their ticks, what a read costs, and the energy counter against integrated power.

    python3 ci/gpu/nvml.py OUT [--seconds S] [--load torch|none|COMMAND]

In: NVML, through pynvml. Out: OUT/nvml.json with everything, OUT/nvml.csv with the readings, a summary on stdout; exit code 1 if the energy
counter cannot be read in each window. Must not: change a setting of a board, or write a number where a reading is missing.

Each window of S seconds (at rest, under steady load, under load in pulses) is polled about once a millisecond: the counter each time, the
powers each 10 ms, in which they do not change more than once. The counter's joules and the trapezia of each power are of the same window."""

import argparse
import csv
import ctypes
import json
import os
import shlex
import statistics
import subprocess
import sys
import time

# NVML_FI_DEV_POWER_AVERAGE, NVML_FI_DEV_POWER_INSTANT
FIELDS = {"average": 185, "instant": 186}
EVERY = 0.01
# Where drivers put the library beside where the loader looks.
FOLDERS = ("/usr/local/nvidia/lib64", "/usr/local/nvidia/lib")
LOAD = """
import sys, time, torch
a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
b = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
for _ in range(3): a @ b
torch.cuda.synchronize()
print("ready", flush=True)
sys.stdin.readline()
print(time.monotonic_ns(), flush=True)
pulses = sys.argv[1] == "pulses"
while True:
    began = time.perf_counter()
    while time.perf_counter() - began < 0.04:
        a @ b
        torch.cuda.synchronize()
    if pulses: time.sleep(0.06)
"""


def tried(call, *arguments):
    """A reading, or why there is none."""
    try:
        value = call(*arguments)
    except Exception as error:
        return {"unavailable": f"{type(error).__name__}: {error}"}
    return value.decode() if isinstance(value, bytes) else value


def number(value):
    return value if isinstance(value, (int, float)) else None


def quantiles(values, digits=6):
    values = sorted(values)
    if not values:
        return None
    at = lambda q: round(values[min(len(values) - 1, int(q * len(values)))], digits)
    return {"n": len(values), "min": at(0), "p10": at(0.1), "median": at(0.5), "p90": at(0.9), "p99": at(0.99), "max": round(values[-1], digits)}


class Board:
    def __init__(self, n, handle):
        self.n, self.handle = n, handle

    def counter(self):
        return self.n.nvmlDeviceGetTotalEnergyConsumption(self.handle)

    def usage(self):
        return self.n.nvmlDeviceGetPowerUsage(self.handle)

    def field(self, number):
        (value,) = self.n.nvmlDeviceGetFieldValues(self.handle, [number])
        self.n._nvmlCheckReturn(value.nvmlReturn)
        return value.value.uiVal

    def fields(self):
        for value in self.n.nvmlDeviceGetFieldValues(self.handle, list(FIELDS.values())):
            self.n._nvmlCheckReturn(value.nvmlReturn)

    def about(self):
        n, h = self.n, self.handle
        ask = lambda name, *more: tried(lambda: getattr(n, name)(h, *more))
        found = {
            "name": ask("nvmlDeviceGetName"),
            "uuid": ask("nvmlDeviceGetUUID"),
            "architecture": ask("nvmlDeviceGetArchitecture"),
            "capability": ask("nvmlDeviceGetCudaComputeCapability"),
            "vbios": ask("nvmlDeviceGetVbiosVersion"),
            "persistence_mode": ask("nvmlDeviceGetPersistenceMode"),
            "mig_mode": ask("nvmlDeviceGetMigMode"),
            "ecc_mode": ask("nvmlDeviceGetEccMode"),
            "virtualization_mode": ask("nvmlDeviceGetVirtualizationMode"),
            "power_limit_mw": ask("nvmlDeviceGetPowerManagementLimit"),
            "power_limit_enforced_mw": ask("nvmlDeviceGetEnforcedPowerLimit"),
            "power_limit_default_mw": ask("nvmlDeviceGetPowerManagementDefaultLimit"),
            "power_limit_constraints_mw": ask("nvmlDeviceGetPowerManagementLimitConstraints"),
        }
        for name in ("SM", "MEM"):
            found[f"max_clock_{name.lower()}_mhz"] = ask("nvmlDeviceGetMaxClockInfo", getattr(n, f"NVML_CLOCK_{name}", 1))
        memory = tried(n.nvmlDeviceGetMemoryInfo, h)
        found["memory_total"] = memory if isinstance(memory, dict) else memory.total
        return found

    def state(self):
        n, h = self.n, self.handle
        ask = lambda name, *more: tried(lambda: getattr(n, name)(h, *more))
        for version in ("", "_v3", "_v2"):
            running = ask(f"nvmlDeviceGetComputeRunningProcesses{version}")
            if not isinstance(running, dict):
                break
        reasons = "nvmlDeviceGetCurrentClocksEventReasons"
        use = ask("nvmlDeviceGetUtilizationRates")
        return {
            "temperature_c": ask("nvmlDeviceGetTemperature", 0),
            "memory_temperature_c": tried(self.field, 82),
            "clock_sm_mhz": ask("nvmlDeviceGetClockInfo", 1),
            "clock_memory_mhz": ask("nvmlDeviceGetClockInfo", 2),
            "performance_state": ask("nvmlDeviceGetPerformanceState"),
            "throttle_reasons": ask(reasons if hasattr(n, reasons) else "nvmlDeviceGetCurrentClocksThrottleReasons"),
            "utilization": use if isinstance(use, dict) else {"gpu": use.gpu, "memory": use.memory},
            "processes": running if isinstance(running, dict) else [{"pid": p.pid, "bytes": p.usedGpuMemory} for p in running],
        }

    def costs(self, times=200):
        """Microseconds of a read."""
        n, h = self.n, self.handle
        calls = {
            "energy counter": self.counter,
            "power usage": self.usage,
            "field 185": lambda: self.field(185),
            "field 186": lambda: self.field(186),
            "fields 185 and 186": self.fields,
            "temperature": lambda: n.nvmlDeviceGetTemperature(h, 0),
            "clock": lambda: n.nvmlDeviceGetClockInfo(h, 1),
            "handle by index": lambda: n.nvmlDeviceGetHandleByIndex(0),
        }
        found = {}
        for name, call in calls.items():
            took, end = [], time.perf_counter() + 1.0
            first = tried(call)
            if isinstance(first, dict):
                found[name] = first
                continue
            while len(took) < times and time.perf_counter() < end:
                began = time.perf_counter()
                call()
                took.append(1e6 * (time.perf_counter() - began))
            found[name] = quantiles(took, 1)
        return found

    def window(self, seconds):
        """Readings of a window: (ns, what, value), each with the time in the middle of the read."""
        powers = {"usage": self.usage, **{name: (lambda number=number: self.field(number)) for name, number in FIELDS.items()}}
        failed, readings, due = {}, [], 0.0
        end = time.perf_counter() + seconds

        def read(name, call):
            before = time.monotonic_ns()
            value = tried(call)
            if isinstance(value, dict):
                failed[name] = value["unavailable"]
            else:
                readings.append(((before + time.monotonic_ns()) // 2, name, value))

        while (now := time.perf_counter()) < end:
            if "counter" not in failed:
                read("counter", self.counter)
            if now >= due:
                due = now + EVERY
                for name, call in powers.items():
                    if name not in failed:
                        read(name, call)
            time.sleep(0.0007)
        # the last power reading closes the integral
        for name, call in powers.items():
            if name not in failed:
                read(name, call)
        return readings, failed


def changes(readings, name):
    """When a value was seen to change, and by how much."""
    of = [(t, v) for t, what, v in readings if what == name]
    return [(t1, v1 - v0) for (_, v0), (t1, v1) in zip(of, of[1:]) if v1 != v0]


def integral(readings, name, first, last):
    """Joules between two times, by trapezia of mW; None without readings on both sides."""
    of = [(t, v) for t, what, v in readings if what == name and first <= t <= last]
    if len(of) < 2:
        return None, 0.0
    joules = sum((t1 - t0) * 1e-9 * (v0 + v1) / 2e3 for (t0, v0), (t1, v1) in zip(of, of[1:]))
    return joules, (of[-1][0] - of[0][0]) * 1e-9


def judged(readings, failed):
    """What a window tells."""
    found = {"unavailable": failed}
    moves = changes(readings, "counter")
    gaps = [(t1 - t0) * 1e-9 for (t0, _), (t1, _) in zip(moves, moves[1:])]
    found["counter_period_s"] = quantiles(gaps)
    found["counter_step_mj"] = quantiles([step for _, step in moves[1:]], 1)
    found["counter_went_back"] = sum(step < 0 for _, step in moves)
    looked = [t for t, what, _ in readings if what == "counter"]
    found["looked_each_s"] = quantiles([(b - a) * 1e-9 for a, b in zip(looked, looked[1:])])
    for name in ("usage", *FIELDS):
        at = [t for t, _ in changes(readings, name)]
        found[f"power_{name}_period_s"] = quantiles([(b - a) * 1e-9 for a, b in zip(at, at[1:])])
        values = [v / 1e3 for _, what, v in readings if what == name]
        found[f"power_{name}_w"] = quantiles(values, 2)
    # from move to move of the counter nothing is missing at the edges
    if len(moves) > 2:
        first, last = moves[0][0], moves[-1][0]
        joules, seconds = sum(step for _, step in moves[1:]) * 1e-3, (last - first) * 1e-9
        found["counter_joules"], found["counter_seconds"], found["counter_w"] = round(joules, 3), round(seconds, 4), round(joules / seconds, 3)
        for name in ("usage", *FIELDS):
            other, over = integral(readings, name, first, last)
            if other is None:
                continue
            watts = other / over
            found[f"integral_{name}_w"] = round(watts, 3)
            found[f"integral_{name}_over_counter"] = round(watts / (joules / seconds) - 1, 5)
    return found


def start_load(how, pulses):
    command = [sys.executable, "-c", LOAD, "pulses" if pulses else "steady"] if how == "torch" else shlex.split(how)
    load = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    if how == "torch":
        if load.stdout.readline().strip() != "ready":
            load.wait()
            raise RuntimeError(f"the load ended with exit code {load.returncode}")
        load.stdin.write("go\n")
        load.stdin.flush()
    return load


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("out")
    arguments.add_argument("--seconds", type=float, default=10.0)
    arguments.add_argument("--load", default="torch")
    options = arguments.parse_args()
    os.makedirs(options.out, exist_ok=True)
    found = {"unix_seconds": time.time(), "seconds": options.seconds}

    def keep():
        with open(os.path.join(options.out, "nvml.json"), "w") as file:
            json.dump(found, file, indent=1, default=str)

    try:
        import pynvml as n
    except ImportError as error:
        found["unavailable"] = f"the Python package nvidia-ml-py is not here: {error}"
        keep()
        print(found["unavailable"])
        return 1
    found["library"] = "libnvidia-ml.so.1, as the loader finds it"
    failed = tried(n.nvmlInit)
    if isinstance(failed, dict):
        for folder in FOLDERS:
            # a loaded library answers to its name
            if isinstance(tried(ctypes.CDLL, f"{folder}/libnvidia-ml.so.1", ctypes.RTLD_GLOBAL), ctypes.CDLL):
                found["library"] = f"{folder}/libnvidia-ml.so.1; not where the loader looks"
                failed = tried(n.nvmlInit)
                break
    if isinstance(failed, dict):
        found["unavailable"] = f"NVML: {failed['unavailable']}"
        keep()
        print(found["unavailable"])
        return 1
    found["driver"] = tried(n.nvmlSystemGetDriverVersion)
    found["nvml"] = tried(n.nvmlSystemGetNVMLVersion)
    found["boards"] = []
    for index in range(number(tried(n.nvmlDeviceGetCount)) or 0):
        handle = tried(n.nvmlDeviceGetHandleByIndex, index)
        found["boards"].append(handle if isinstance(handle, dict) else {**Board(n, handle).about(), "state": Board(n, handle).state()})
    print(f"library {found['library']}; driver {found['driver']}; boards:")
    for about in found["boards"]:
        print(" ", about.get("name"), about.get("uuid"), "limit", about.get("power_limit_enforced_mw"), "mW")
    handle = tried(n.nvmlDeviceGetHandleByIndex, 0)
    if isinstance(handle, dict):
        found["unavailable"] = f"the first board: {handle['unavailable']}"
        keep()
        print(found["unavailable"])
        return 1
    board = Board(n, handle)
    found["counter_mj"] = tried(board.counter)
    found["read_cost_us"] = {"rest": board.costs()}
    rows, found["windows"] = [], {}
    for name in ("rest", "steady", "pulses", "rest after"):
        load = None
        try:
            if name in ("steady", "pulses") and options.load == "none":
                found["windows"][name] = {"unavailable": "no load was asked for"}
                continue
            if name in ("steady", "pulses"):
                load = start_load(options.load, name == "pulses")
                # an average over a second must have left the rest behind
                time.sleep(min(1.5, options.seconds))
            readings, failures = board.window(options.seconds if name != "rest after" else options.seconds / 2)
            found["windows"][name] = {**judged(readings, failures), "state": board.state()}
            if name == "steady":
                found["read_cost_us"]["steady"] = board.costs()
            rows += [(name, *row) for row in readings]
        except Exception as error:
            found["windows"][name] = {"unavailable": f"{type(error).__name__}: {error}"}
        finally:
            if load:
                load.kill()
                load.wait()
        keep()
    with open(os.path.join(options.out, "nvml.csv"), "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("window", "monotonic_ns", "what", "value_mj_or_mw"))
        last = {}
        for row in rows:
            # a value is told again only where it changed
            if last.get(row[::2]) != row[3] or row[2] != "counter":
                writer.writerow(row)
            last[row[::2]] = row[3]
    keep()
    print("read cost, median us:", {k: v["median"] if "median" in v else "-" for k, v in found["read_cost_us"]["rest"].items()})
    for name, window in found["windows"].items():
        if "counter_w" not in window:
            print(f"{name}: {window.get('unavailable') or 'the counter moved less than three times'}")
            continue
        period = window["counter_period_s"] or {}
        more = ", ".join(
            f"{power} {window[key]:.2f} W ({100 * window[key.replace('_w', '_over_counter')]:+.1f} %)"
            for power in ("usage", *FIELDS)
            if (key := f"integral_{power}_w") in window
        )
        print(f"{name}: counter {window['counter_w']} W over {window['counter_seconds']} s, moves each {period.get('median')} s; {more}")
    wanted = ["rest"] if options.load == "none" else ["rest", "steady", "pulses"]
    whole = isinstance(found["counter_mj"], int) and all("counter_w" in found["windows"][name] for name in wanted)
    return 0 if whole else 1


if __name__ == "__main__":
    sys.exit(main())
