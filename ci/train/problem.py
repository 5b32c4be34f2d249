"""The two ways in which the trainer ends badly, and its one way of writing files."""

import os


class Refusal(Exception):
    """Bad input: exit code 2. Names the file, the place and the remedy."""

    def __init__(self, message, hint):
        super().__init__(message)
        self.hint = hint


class Fault(Exception):
    """The training itself failed or fell short: exit code 1."""

    def __init__(self, message, hint):
        super().__init__(message)
        self.hint = hint


def write_atomically(path, data):
    """The file appears whole or not at all; an earlier one stays until then. `data`: bytes or text."""
    path = str(path)
    aside = f"{path}.{os.getpid()}.tmp"
    try:
        with open(aside, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except OSError as error:
        try:
            os.unlink(aside)
        except OSError:
            pass
        raise Refusal(f"{path}: cannot be written: {error.strerror or error}", "make room, or name another folder with --out; what was there is kept") from error
