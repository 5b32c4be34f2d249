#!/usr/bin/env python3
"""A file of Sudoku or mazes that `ergometer dataset` wrote, packed to bits for the way to a GPU: 37 bytes a 9x9 puzzle instead of 162, 62 a
15x15 maze instead of 450.

    ci/train/pack.py IN.safetensors OUT.safetensors [N]

`N`: the first so many examples alone. The trainer reads packed files as they are. Difficulties are kept for the held-out side alone.
"""

import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import numpy as np
from data import FORMAT, pack, pack_mazes, read_safetensors, safetensors_bytes, unpack, unpack_mazes
from problem import Refusal, write_atomically


def main(argv):
    if len(argv) not in (2, 3):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        tensors, metadata = read_safetensors(argv[0])
        parameters, kind = json.loads(metadata.get("parameters", "{}")), metadata.get("kind")
        tokens, answer = tensors.get("tokens"), tensors.get("answer")
        known = kind == "sudoku" and parameters.get("size") in (4, 6, 9) or kind == "maze"
        if metadata.get("format") != FORMAT or not known or tokens is None or answer is None:
            raise Refusal(f"{argv[0]}: it is no file of Sudoku or mazes that `ergometer dataset` wrote", "packing is for these alone; other files are taken as they are")
        n = min(int(argv[2]), len(tokens)) if len(argv) == 3 else len(tokens)
        tokens, answer = tokens[:n], answer[:n]
        if kind == "sudoku":
            words, clues = pack(answer, tokens, parameters["size"])
            again = unpack(words, clues, parameters["size"])
            out = {"answer.packed": ("U16", words.shape, words.tobytes()), "clues.packed": ("U8", clues.shape, clues.tobytes())}
        else:
            walls, path, ends = pack_mazes(answer, tokens)
            again = unpack_mazes(walls, path, ends, tokens.shape[1])
            out = {"walls.packed": ("U8", walls.shape, walls.tobytes()), "path.packed": ("U8", path.shape, path.tobytes()), "ends.packed": ("U16", ends.shape, ends.tobytes())}
        if not (np.array_equal(again[0], tokens) and np.array_equal(again[1], answer)):
            raise Refusal(f"{argv[0]}: its answers are not those of its puzzles", "make the file again")
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
