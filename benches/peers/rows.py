"""Adds a peer's row to `rows.ndjson` of a run's folder, in the form of the kernel benchmarks' own rows.

The file is written beside itself and renamed: a full disk leaves the old one. `--rows FILE` is taken off the
command that a row names. Afterwards `sparse-accelerate-bench-kernels summary FOLDER` makes the summary anew.
"""
import json
import os
import sys
import tempfile


def command(argv=None):
    argv = sys.argv if argv is None else argv
    kept, skip = [os.path.basename(argv[0])], False
    for word in argv[1:]:
        if skip:
            skip = False
        elif word in ("--rows", "--out"):
            skip = True
        elif not word.startswith(("--rows=", "--out=")):
            kept.append(word)
    return " ".join(kept)


def append(path, by, case, length, density, kernel, median_ms, min_ms, tflops=None, error=None):
    row = dict(command=command(), by=by, case=case, len=length, density=density, kernel=kernel,
               median_ms=median_ms, min_ms=min_ms, tflops=tflops, error=error)
    row = {key: value for key, value in row.items() if value is not None}
    text = ""
    if os.path.exists(path):
        with open(path) as f:
            text = f.read()
    if text and not text.endswith("\n"):
        text += "\n"
    handle, new = tempfile.mkstemp(suffix=".partial", dir=os.path.dirname(os.path.abspath(path)))
    try:
        with os.fdopen(handle, "w") as f:
            f.write(text + json.dumps(row) + "\n")
            f.flush()
            os.fsync(f.fileno())
        os.chmod(new, 0o644)
        os.replace(new, path)
    except BaseException:
        os.unlink(new)
        raise
