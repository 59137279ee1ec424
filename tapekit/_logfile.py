"""The csv file of a `GradientLog`: `append` rows that a kill cannot take away, and `read` them back."""

import csv
import io
import pathlib

import numpy as np


def append(path: pathlib.Path, end: int, header: list[str], steps: np.ndarray, rows: np.ndarray) -> int:
    """Write rows behind the first `end` bytes, the header before them if there are none; the new `end`.

    The file is closed each time. What a kill tore, behind `end`, is cut off.
    """
    text = io.StringIO()
    if not end:
        csv.writer(text, lineterminator="\n").writerow(header)
        if path.exists() and path.stat().st_size:
            raise FileExistsError("it exists; GradientLog.load(path) continues it")
    line = "%d" + ",%.9g" * rows.shape[1] + "\n"  # 9 digits give a float32 back
    text.writelines(line % (step, *row) for step, row in zip(steps.tolist(), rows.tolist(), strict=True))
    data = text.getvalue().encode()
    with open(path, "r+b" if end else "wb") as file:
        if end:
            file.truncate(end)
            file.seek(end)
        file.write(data)
    return end + len(data)


def read(path: pathlib.Path) -> tuple[int, list[str], np.ndarray, np.ndarray]:
    """``(end, header, steps, rows)``, without a last line that is torn."""
    data = path.read_bytes()
    data = data[: data.rfind(b"\n") + 1]
    lines = data.decode().splitlines()
    if not lines:
        return 0, [], np.zeros([0], np.int64), np.zeros([0, 2], np.float32)
    header = next(csv.reader(lines[:1]))
    if header[0] != "step":
        raise ValueError(
            f"GradientLog.load: {path} begins with {lines[0][:40]!r}. A file of GradientLog(path=) is needed."
        )
    table = np.loadtxt(lines[1:], delimiter=",", ndmin=2) if lines[1:] else np.zeros([0, len(header)])
    return len(data), header, table[:, 0].astype(np.int64), table[:, 1:].astype(np.float32)
