#!/usr/bin/env python3
"""A scripted dialogue with the llama.cpp worker: every mode and scenario, batches of unlike length, bad options.

    PYTHON ci/peers/test_llama_cpp.py MODEL.gguf        with a Python that has numpy, after ci/peers/install.sh --llama-cpp

Exit code 1: something is wrong. Speeds are nobody's concern here."""

import json
import os
import struct
import subprocess
import sys
import tempfile

WORKER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "llama_cpp_worker.py")
# ids that any vocabulary of language models has
PROMPTS = [[504, 357, 282, 464, 314], [504, 900, 3000], [700, 314, 260, 905, 1200, 33, 77, 58, 902], [1021]]
OUTPUT, REST = [6, 4, 5, 3], [[[300, 301, 302], [17]], [], [], [[5, 6]]]


class Dialogue:
    def __init__(self, model, batch=1, scenario="generate-b1", options=None, rest=False, **more):
        self.environment = {**os.environ, "ERGOMETER_PEERS_SEARCH": "0"}
        self.child = subprocess.Popen(
            [sys.executable, "-B", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=self.environment
        )
        assert self.hear()[0] == "hello"
        language = {"context": 64, "output": OUTPUT, "rest": REST if rest else [], "end": [], "ignore_end": True}
        job = {"protocol": 1, "model": model, "backend": "llama", "options": options or {}, "precision": "stored", "threads": 1}
        job.update(scenario=scenario, batch=batch, max_steps=1, halt=False, inputs=PROMPTS, puzzle_ids=[], language=language, **more)
        self.block = -1
        self.say("job", **job)
        self.kind, self.loaded = self.hear()

    def say(self, kind, **body):
        self.child.stdin.write(json.dumps({kind: body}) + "\n")
        self.child.stdin.flush()

    def hear(self):
        line = self.child.stdout.readline()
        assert line, "the worker left"
        ((kind, body),) = json.loads(line).items()
        return kind, body

    def go(self, mode, **more):
        """Everything said until `done`, by kind."""
        self.block += 1
        self.say("go", mode=mode, block=self.block, **more)
        heard = {}
        while True:
            kind, body = self.hear()
            assert kind != "failed", body
            heard.setdefault(kind, []).append(body)
            if kind in ("done", "ready"):
                return heard

    def end(self):
        self.child.stdin.close()
        assert self.child.wait(timeout=60) == 0
        self.child.stdout.close()


def rows(heard):
    return {row["example"]: row for message in heard["predictions"] for row in message["rows"]}


def vectors(path):
    data = struct.pack("<10i", *PROMPTS[0], *PROMPTS[0])
    head = json.dumps({"input_ids": {"dtype": "I32", "shape": [2, 5], "data_offsets": [0, len(data)]}}).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(head)) + head + data)


def main():
    model = sys.argv[1]
    answers = None
    for batch in (1, 3):
        for scenario in (f"generate-b{batch}", f"prefill-b{batch}", f"decode-b{batch}"):
            said = Dialogue(model, batch, scenario, rest=True)
            assert said.kind == "loaded" and said.loaded["scenario"] == scenario, said.loaded
            assert said.loaded["options"]["n_ubatch"] == "512" and said.loaded["weight_bytes"] > 1e6, said.loaded
            assert said.go("warm", seconds=0)["ready"][0]["first_seconds"] > 0
            answer = rows(said.go("answer"))
            written = {e: row.get("written", row["answer"]) for e, row in answer.items()}
            assert [len(written[e]) for e in range(4)] == OUTPUT, written
            # the same whatever else is in the batch, but for rounding, which may turn a near tie: the first token of each
            answers = answers or written
            assert all(written[e][:1] == answers[e][:1] for e in written), (written, answers)
            told = [len(answer[e]["answer"]["likelihoods"]) if REST[e] else None for e in range(4)]
            assert told == [4, None, None, 2], told
            assert all(v < 0 for e in (0, 3) for v in answer[e]["answer"]["likelihoods"])
            for _ in range(2):
                heard = said.go("time", n=3, seconds=0)
                assert [s["iteration"] for s in heard["sample"]] == [0, 1, 2] and len(heard["measured"]) == 1
                for sample in heard["sample"]:
                    assert len(sample["requests"]) == batch == sample["rows"], sample
                    count = 0
                    for request in sample["requests"]:
                        most = OUTPUT[request["example"]]
                        due = {"g": most, "p": 1, "d": most - 1}[scenario[0]]
                        times = request["tokens"]
                        assert len(times) == due and times == sorted(times), (scenario, request)
                        assert 0 <= request["begun"] <= times[0] and times[-1] <= sample["latency"], sample
                        count += due + (scenario[0] == "d")
                    assert sample["steps"] == count, sample
                timed = rows(heard)
                assert all(row["answer"] == written[e][: len(row["answer"])] for e, row in timed.items()), (scenario, timed, written)
            said.end()
            print(f"{scenario}: right")
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "v.safetensors")
        vectors(path)
        said = Dialogue(model)
        heard = said.go("compare", vectors=path)
        first, second = heard["outputs"]
        assert (first["step"], second["step"]) == (1, 2) and first["logits"] == second["logits"]
        vocabulary = len(first["logits"]) // 5
        last = first["logits"][-vocabulary:]
        assert last.index(max(last)) == answers[0][0]
        said.end()
        print("compare: right")
    # a bound on what is fed at once changes nothing but rounding
    said = Dialogue(model, 3, "generate-b3", {"n_batch": "4", "n_ubatch": "2", "kv": "unified", "flash": "off"})
    cut = rows(said.go("answer"))
    assert all(cut[e]["answer"][:1] == answers[e][:1] for e in cut), (cut, answers)
    said.end()
    refused = [
        (dict(options={"n_batch": "0"}), "n_batch is 0"),
        (dict(options={"colour": "red"}), "colour = red"),
        (dict(options={"threads": "2"}), "the case has 1"),
        (dict(scenario="arrivals-60"), "arrivals-60"),
    ]
    for more, part in refused:
        said = Dialogue(model, **more)
        assert said.kind == "unavailable" and part in said.loaded["reason"] and said.loaded["hint"], said.loaded
        said.end()
    print("options: right")
    return 0


if __name__ == "__main__":
    sys.exit(main())
