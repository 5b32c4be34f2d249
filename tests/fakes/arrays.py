#!/usr/bin/env python3
"""An external worker for tests that reads the arrays of its job: y = x w, by hand. It stands on examples/external-worker/worker.py.

Arguments: the folder of that worker; `babbles`: it answers in text.
"""

import json
import struct
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, sys.argv[1])
from worker import Worker  # noqa: E402

# 4 inputs, 3 outputs: the weights of the net of tests/it/arrays.rs.
W = [[i * 3 + j for j in range(3)] for i in range(4)]
W = [[w / 4.0 - 1.0 for w in row] for row in W]


class Arrays(Worker):
    name, version = "product-by-hand", "1"

    def load(self, job):
        with open(job["arrays"], "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
            data = file.read()
        entry = header["x"]
        assert entry["dtype"] == "F32" and entry["shape"][1:] == [4], entry
        begin, end = entry["data_offsets"]
        numbers = struct.unpack(f"<{(end - begin) // 4}f", data[begin:end])
        assert job["inputs"] == [], job["inputs"]
        self.job, self.next = job, 0
        self.inputs = [numbers[i : i + 4] for i in range(0, len(numbers), 4)]
        self.how = job["reading"]["output"]["how"]
        self.say("loaded", seconds=(time.monotonic_ns() - self.heard) / 1e9)

    def solve(self, row):
        if sys.argv[2:] == ["babbles"]:
            return {"text": "three"}
        y = [sum(x * W[i][j] for i, x in enumerate(row)) for j in range(3)]
        return {"class": y.index(max(y))} if self.how == "argmax" else {"numbers": y}


Arrays().run()
