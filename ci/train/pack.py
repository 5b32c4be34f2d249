#!/usr/bin/env python3
"""A file of Sudoku that `ergometer dataset` wrote, packed to bits for the way to a GPU: 37 bytes a 9x9 puzzle instead of 162.

    ci/train/pack.py IN.safetensors OUT.safetensors [N]

`N`: the first so many examples alone. The trainer reads packed files as they are. Difficulties are kept for the held-out side alone.
"""

import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import numpy as np
from data import FORMAT, pack, read_safetensors, safetensors_bytes, unpack
from problem import Refusal, write_atomically


def main(argv):
    if len(argv) not in (2, 3):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        tensors, metadata = read_safetensors(argv[0])
        side = json.loads(metadata.get("parameters", "{}")).get("size")
        tokens, answer = tensors.get("tokens"), tensors.get("answer")
        if metadata.get("format") != FORMAT or metadata.get("kind") != "sudoku" or side not in (4, 6, 9) or tokens is None or answer is None:
            raise Refusal(f"{argv[0]}: it is no file of Sudoku that `ergometer dataset` wrote", "packing is for Sudoku alone; other files are taken as they are")
        n = min(int(argv[2]), len(tokens)) if len(argv) == 3 else len(tokens)
        tokens, answer = tokens[:n], answer[:n]
        words, clues = pack(answer, tokens, side)
        again = unpack(words, clues, side)
        if not (np.array_equal(again[0], tokens) and np.array_equal(again[1], answer)):
            raise Refusal(f"{argv[0]}: its answers are not solved grids", "make the file again")
        out = {"answer.packed": ("U16", words.shape, words.tobytes()), "clues.packed": ("U8", clues.shape, clues.tobytes())}
        if metadata.get("split") == "test" and "difficulty" in tensors:
            difficulty = tensors["difficulty"][:n]
            out["difficulty"] = ("U32", difficulty.shape, np.ascontiguousarray(difficulty, np.uint32).tobytes())
        write_atomically(argv[1], safetensors_bytes(out, metadata))
    except Refusal as error:
        print(f"error: {error}\nhint: {error.hint}", file=sys.stderr)
        return 2
    print(f"{argv[1]}: {n} examples, {os.path.getsize(argv[1])} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
