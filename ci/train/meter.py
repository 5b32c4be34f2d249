"""Joules of the board that trains, by NVML: its energy counter and its power added up over time, side by side.

In: a CUDA device. Out: readings since the start, or the reason why there are none. Must not: turn what is unavailable into zero.
"""

import threading
import time

INSTANT = 186  # NVML_FI_DEV_POWER_INSTANT; power_usage is an average over a second on these boards


class Meter:
    def __init__(self, uuid=None, reason=None, period=0.1):
        self.reason, self.period, self.board, self.samples = reason, period, None, 0
        self.integral, self.last, self.power, self.peak = 0.0, None, None, None
        self.counter_reason = self.power_reason = reason
        self.stopping = threading.Event()
        self.thread = None
        if reason:
            return
        try:
            import pynvml

            self.nvml = pynvml
            pynvml.nvmlInit()
            self.board = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        except Exception as error:  # a library that is not there, or no such board
            self.reason = self.counter_reason = self.power_reason = f"NVML: {type(error).__name__}: {error}"
            self.board = None
            return
        self.start_counter = self.ask("counter")
        self.started = time.perf_counter()
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()

    def ask(self, what):
        n = self.nvml
        try:
            if what == "counter":
                return n.nvmlDeviceGetTotalEnergyConsumption(self.board) / 1e3
            if what == "power":
                value = n.nvmlDeviceGetFieldValues(self.board, [INSTANT])[0]
                if value.nvmlReturn == 0:
                    self.power_name = "instant power (field 186)"
                    return value.value.uiVal / 1e3
                self.power_name = "power usage"
                return n.nvmlDeviceGetPowerUsage(self.board) / 1e3
            if what == "temperature":
                return n.nvmlDeviceGetTemperature(self.board, n.NVML_TEMPERATURE_GPU)
            if what == "sm_clock":
                return n.nvmlDeviceGetClockInfo(self.board, n.NVML_CLOCK_SM)
            if what == "memory_clock":
                return n.nvmlDeviceGetClockInfo(self.board, n.NVML_CLOCK_MEM)
            text = {"name": n.nvmlDeviceGetName, "uuid": n.nvmlDeviceGetUUID, "limit": n.nvmlDeviceGetEnforcedPowerLimit}[what](self.board)
            return text.decode() if isinstance(text, bytes) else text
        except Exception as error:
            setattr(self, f"{what}_reason", f"NVML: {type(error).__name__}: {error}")
            return None

    def watch(self):
        while not self.stopping.wait(self.period):
            now, power = time.perf_counter(), self.ask("power")
            if power is None:
                # a gap, not a zero: the integral ends here
                self.last = None
                continue
            if self.last is not None:
                self.integral += (now - self.last[0]) * (power + self.last[1]) / 2
            self.last, self.power = (now, power), power
            self.peak = power if self.peak is None else max(self.peak, power)
            self.samples += 1

    def read(self):
        """Joules since the start and the state of the board; None for what is unavailable."""
        out = {"joules_counter": None, "joules_integrated": None, "power_w": None, "temperature_c": None, "sm_clock_mhz": None}
        if self.board is None:
            return out
        counter = self.ask("counter")
        if counter is not None and self.start_counter is not None:
            moved = counter - self.start_counter
            if moved > 0:
                out["joules_counter"] = moved
            elif time.perf_counter() - self.started > 2:
                self.counter_reason = f"the counter moved by {moved} J in {time.perf_counter() - self.started:.0f} s"
        if self.samples > 1:
            out["joules_integrated"] = self.integral
        out.update(power_w=self.power, temperature_c=self.ask("temperature"), sm_clock_mhz=self.ask("sm_clock"))
        return out

    def about(self):
        """For training.json."""
        now = self.read()
        reasons = {"joules_counter": self.counter_reason, "joules_integrated": self.power_reason}
        out = {k: now[k] if now[k] is not None else {"unavailable": reasons.get(k) or "no reading yet"} for k in ("joules_counter", "joules_integrated")}
        if self.board is None:
            return {**out, "board": {"unavailable": self.reason}}
        try:
            driver = self.nvml.nvmlSystemGetDriverVersion()
        except Exception as error:
            driver = f"unavailable: {error}"
        limit = self.ask("limit")
        both = now["joules_counter"], now["joules_integrated"]
        out.update(
            seconds=time.perf_counter() - self.started,
            disagreement=both[1] / both[0] - 1 if None not in both else None,
            power_source=getattr(self, "power_name", None),
            power_samples=self.samples,
            power_period_s=self.period,
            peak_power_w=self.peak,
            power_limit_w=limit / 1e3 if limit else None,
            temperature_c=now["temperature_c"],
            sm_clock_mhz=now["sm_clock_mhz"],
            memory_clock_mhz=self.ask("memory_clock"),
            board={"name": self.ask("name"), "uuid": self.ask("uuid")},
            driver=driver.decode() if isinstance(driver, bytes) else driver,
            what="the whole board, nothing of the host",
        )
        return out

    def stop(self):
        self.stopping.set()
        if self.thread:
            self.thread.join(2)
