#!/usr/bin/env python3
"""An external backend for ergometer, and the pattern for yours. Plain Python 3, no packages.

It solves Sudoku by the rules of Sudoku: no model is run, and it says so in its name and its version. What all workers share, the protocol,
is in one file of its own, ci/external/ergometer_worker.py: take both, and put your program where this one searches. README.md beside this
file has the table of all messages, the rules that a worker must keep and the tokens of each task; suite.toml runs this worker.

Accuracy, memory, processor time and energy are none of the worker's business: ergometer scores and meters from outside.
"""

import os
import sys

# where it does not lie beside this file
sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../ci/external"))
import ergometer_worker  # noqa: E402

# Tokens of a puzzle -> side, rows and columns of a box.
SIZES = {16: (4, 2, 2), 36: (6, 2, 3), 81: (9, 3, 3)}


class Worker(ergometer_worker.Worker):
    name, version = "sudoku-by-rules", "1.0 (search, no model)"

    def prepare(self, job):
        """Get ready for job["inputs"]: one list of tokens an example. `isa`, `weight_bytes` ... may be told here; what is left out becomes
        Unavailable."""
        refusal = self.refusal(job["inputs"])
        if refusal:
            raise ergometer_worker.Refusal(refusal, "ask for a task of kind `sudoku` with this backend")
        return {"versions": {"python": sys.version.split()[0]}}

    def refusal(self, inputs):
        """Why this worker can do nothing here; None if it can. Saying so is no failure, guessing would be wrong answers."""
        for tokens in inputs:
            if len(tokens) not in SIZES or not all(1 <= t <= SIZES[len(tokens)][0] + 1 for t in tokens):
                return "these examples are no Sudoku puzzles, and this program solves nothing else"

    def solve(self, tokens):
        """What is timed. Token 1 is a blank and d + 1 the digit d, in the puzzle and in the answer."""
        return search(list(tokens), *SIZES[len(tokens)])


def search(cells, side, box_rows, box_columns):
    """Fills the blank with the fewest candidates first; None if there is no solution."""
    best = None
    for at, token in enumerate(cells):
        if token != 1:
            continue
        row, column = divmod(at, side)
        top, left = row - row % box_rows, column - column % box_columns
        seen = set(cells[row * side : row * side + side]) | set(cells[column::side])
        for r in range(top, top + box_rows):
            seen.update(cells[r * side + left : r * side + left + box_columns])
        candidates = [t for t in range(2, side + 2) if t not in seen]
        if best is None or len(candidates) < len(best[1]):
            best = (at, candidates)
    if best is None:
        return cells
    for token in best[1]:
        cells[best[0]] = token
        if search(cells, side, box_rows, box_columns):
            return cells
    cells[best[0]] = 1
    return None


if __name__ == "__main__":
    sys.exit(Worker().run())
