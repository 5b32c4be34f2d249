#!/usr/bin/env python3
"""OpenVINO as a worker of ergometer, on the file of one supervision step that `ergometer export` writes. States are its own output buffers,
handed back as the inputs of the next step."""

import json
import os
import subprocess
import sys
import tempfile

import peer


class OpenVino:
    name = "openvino"
    devices = ("cpu",)

    def __init__(self):
        self.scratch = tempfile.TemporaryDirectory(prefix="ergometer-openvino-")
        self.files = {}

    def version(self):
        try:
            import openvino
        except ImportError as error:
            raise peer.Refusal(f"the Python package openvino is not here: {error}", peer.INSTALL) from error
        return openvino.__version__

    def describe(self, job):
        """Versions; refuses what the processor does not compute."""
        import openvino

        self.core = openvino.Core()
        capabilities = self.core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if job["precision"] not in ("f32", "bf16"):
            raise peer.Refusal(f"this worker asks OpenVINO for f32 or bf16, not {job['precision']}")
        if job["precision"] == "bf16" and "BF16" not in capabilities:
            raise peer.Refusal(f"OpenVINO has no bf16 on this processor (it has {', '.join(capabilities)})")
        device = self.core.get_property("CPU", "FULL_DEVICE_NAME")
        return {"device": "cpu", "openvino.device": device, "openvino.capabilities": " ".join(capabilities), "python": sys.version.split()[0]}

    def isa(self):
        return None

    def settings(self, job):
        """`streams`: the rows of a batch go to that many requests at a time, of one share of the threads each. `pinning`: threads stay on
        their cores."""
        with open(os.path.join(job["model"], "config.json")) as file:
            mixture = json.load(file)["model_type"] == "moe-encoder"
        default = {"opset": "17", "shapes": "static", "streams": "1", "pinning": "default", "experts": "all"}
        settings = [{**default, "opset": opset, "pinning": pinning} for opset in ("17", "23") for pinning in ("default", "no")]
        if job["threads"] > 1 and job["batch"] % job["threads"] == 0:
            settings += [{**setting, "streams": str(job["threads"])} for setting in settings]
        settings.append({**default, "shapes": "dynamic"})
        if mixture:
            settings.append({**default, "experts": "routed"})
        return settings

    def exported(self, job, setting, rows):
        """The file of this form, written once."""
        batch = "dynamic" if setting["shapes"] == "dynamic" else str(rows)
        form = (setting["opset"], batch, setting["experts"])
        if form not in self.files:
            program = os.environ.get("ERGOMETER_EXE")
            if not program:
                raise peer.Failure("backend", "ERGOMETER_EXE names no program: ergometer sets it when it starts a worker")
            file = os.path.join(self.scratch.name, f"{len(self.files)}.onnx")
            command = [program, "export", "--model", job["model"], "--to", "onnx", file]
            command += ["--opset", form[0], "--batch", form[1], "--experts", form[2]]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode != 0:
                raise peer.Failure("backend", f"ergometer export: {done.stderr.strip()}")
            self.files[form] = file
        return self.files[form]

    def load(self, job, model, setting):
        streams = int(setting["streams"])
        rows = job["batch"] // streams
        options = {
            "INFERENCE_PRECISION_HINT": job["precision"],
            "INFERENCE_NUM_THREADS": job["threads"],
            "NUM_STREAMS": streams,
            "PERFORMANCE_HINT": "LATENCY" if streams == 1 else "THROUGHPUT",
        }
        if setting["pinning"] != "default":
            options["ENABLE_CPU_PINNING"] = setting["pinning"] == "yes"
        compiled = self.core.compile_model(self.exported(job, setting, rows), "CPU", options)
        return Engine(compiled, model, rows, streams)


class Engine:
    def __init__(self, compiled, model, rows, streams):
        import numpy as np
        import openvino

        self.np, self.tensor, self.compiled, self.rows = np, openvino.Tensor, compiled, rows
        self.state_names = list(model.states)
        names = {name for port in compiled.inputs for name in port.names}
        self.takes_ids = "puzzle_identifiers" in names
        self.has_q = any("q" in port.names for port in compiled.outputs)
        width = model.config["hidden_size"]
        self.initial = [np.tile(np.float32(v), (rows, model.tokens, 1)) for v in model.states.values()]
        assert all(v.shape == (rows, model.tokens, width) for v in self.initial)
        # two buffers a state: one is read while the other is written
        self.lanes = [
            (compiled.create_infer_request(), [[np.empty_like(v) for _ in range(2)] for v in self.initial]) for _ in range(streams)
        ]

    def report(self):
        found = {"openvino.precision": self.compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()}
        found["openvino.threads"] = str(self.compiled.get_property("INFERENCE_NUM_THREADS"))
        return found

    def begin(self, tokens, ids):
        self.current = [self.initial] * len(self.lanes)
        self.turn = 0
        for i, (request, _) in enumerate(self.lanes):
            part = slice(i * self.rows, (i + 1) * self.rows)
            request.set_tensor("inputs", self.tensor(self.np.ascontiguousarray(tokens[part])))
            if self.takes_ids:
                request.set_tensor("puzzle_identifiers", self.tensor(self.np.ascontiguousarray(ids[part]).reshape(-1, 1)))

    def step(self):
        for i, (request, buffers) in enumerate(self.lanes):
            after = [pair[self.turn] for pair in buffers]
            for name, before, result in zip(self.state_names, self.current[i], after):
                request.set_tensor(name, self.tensor(before, shared_memory=True))
                request.set_tensor(f"next.{name}", self.tensor(result, shared_memory=True))
            self.current[i] = after
            if len(self.lanes) > 1:
                request.start_async()
        self.turn = 1 - self.turn
        for request, _ in self.lanes:
            request.wait() if len(self.lanes) > 1 else request.infer()

    def outputs(self):
        return self.joined("logits"), self.halting()

    def halting(self):
        return self.joined("q").reshape(-1, 2) if self.has_q else None

    def joined(self, name):
        parts = [request.get_tensor(name).data for request, _ in self.lanes]
        return parts[0].copy() if len(parts) == 1 else self.np.concatenate(parts)

    def states(self):
        return [self.np.concatenate([lane[i] for lane in self.current]) for i in range(len(self.state_names))]

    def set_states(self, values):
        parts = [slice(i * self.rows, (i + 1) * self.rows) for i in range(len(self.lanes))]
        self.current = [[self.np.ascontiguousarray(v[part], self.np.float32) for v in values] for part in parts]


if __name__ == "__main__":
    sys.exit(peer.Worker(OpenVino()).run())
