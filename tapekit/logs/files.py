"""A `GradientLog` on disk: `CsvFile` grows while it trains, `save` writes all of it at once, `load` reads both."""

import csv
import io
import os
import pathlib
import zipfile
from typing import Any

import numpy as np

from tapekit._sources import describe
from tapekit.logs.records import Records

NO_COUNTS = np.zeros([4, 0], np.int64)  # of a log without histograms


def name_of(where: str, path: Any) -> str:
    """Return `path` as a string."""
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"{where} is {describe(path)}. A name is needed. Write it as a string.")
    return os.fspath(path)


def csv_path(path: Any) -> pathlib.Path:
    """Return `path`, which names a csv file to be."""
    path = pathlib.Path(name_of("GradientLog: path", path))
    if path.suffix == ".npz" or path.is_dir():
        raise ValueError(
            f"GradientLog: path is {str(path)!r}. The rows are written as csv while it trains. Write path='run.csv', "
            "or log.save('run.npz') after the training."
        )
    return path


class CsvFile:
    """The rows as csv, after the first `end` bytes of a file, or in a new file if `end` is 0.

    The file is closed after each write, so that a killed process loses no row that was written.
    """

    def __init__(self, path: pathlib.Path, end: int = 0):
        self.path, self.end = path, end

    def write(self, records: Records) -> None:
        """Append the rows, and before the first ones a header. An incomplete line after `end` is cut off."""
        text = io.StringIO()
        if not self.end:
            header = (f"{name}.{kind}" for kind in records.kinds for name in records.names)
            csv.writer(text, lineterminator="\n").writerow(["step", "loss", "global_norm", *header])
            if self.path.is_file() and self.path.stat().st_size:
                raise FileExistsError(
                    f"GradientLog: {self.path} exists. GradientLog.load(path) continues it. Or give path= a new name."
                )
        line = "%d" + ",%.9g" * records.rows.shape[1] + "\n"  # 9 digits restore a float32 exactly
        steps, rows = records.steps.tolist(), records.rows.tolist()
        text.writelines(line % (step, *row) for step, row in zip(steps, rows, strict=True))
        data = text.getvalue().encode()
        with open(self.path, "r+b" if self.end else "wb") as file:
            file.truncate(self.end)
            file.seek(self.end)
            file.write(data)
        self.end += len(data)


def save(path: Any, records: Records) -> None:
    """Write all rows and histograms to a compressed NumPy archive, under exactly this name."""
    path = pathlib.Path(name_of("GradientLog.save: path", path))
    if path.suffix == ".csv" or path.is_dir():
        raise ValueError(
            f"GradientLog.save: path is {str(path)!r}. save writes one NumPy archive. Write log.save('run.npz'), or "
            "GradientLog(path='run.csv') before the training."
        )
    arrays: dict[str, Any] = {"names": np.array(records.names, str), "clipping": np.array(records.clipping or (), str)}
    arrays |= {name: getattr(records, name) for name in ("steps", "rows", "counts", "updates", "has_loss")}
    with open(path, "wb") as file:  # NumPy would add a suffix to a name
        np.savez_compressed(file, **arrays)


def load(path: Any) -> tuple[int | None, Records]:
    """Return the records in a file, after the length in bytes of a csv file without an incomplete last line."""
    path = pathlib.Path(name_of("GradientLog.load: path", path))
    data = path.read_bytes()
    try:
        return (None, _load_archive(data)) if data[:2] == b"PK" else _load_csv(data)  # PK: a zip archive
    except (KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"GradientLog.load: {path} is not a file of GradientLog ({error}). Give a file that GradientLog(path=...) "
            "or log.save(...) wrote."
        ) from error


def _load_archive(data: bytes) -> Records:
    with np.load(io.BytesIO(data)) as file:
        clipping, names = file["clipping"].tolist(), tuple(file["names"].tolist())
        clipped = (clipping[0], float(clipping[1]), int(clipping[2])) if clipping else None
        flags = bool(file["updates"]), bool(file["has_loss"])
        return Records(names, file["steps"], file["rows"], file["counts"], *flags, clipped)


def _load_csv(data: bytes) -> tuple[int, Records]:
    data = data[: data.rfind(b"\n") + 1]  # without a last line that is incomplete
    text = io.StringIO(data.decode("utf-8-sig"), newline="")
    try:
        header = next(csv.reader(text, strict=True), [])  # a name may hold a line break
    except csv.Error:  # the header itself is incomplete
        header = []
    if not header:
        return 0, Records((), np.zeros([0], np.int64), np.zeros([0, 2], np.float32), NO_COUNTS)
    if header[:3] != ["step", "loss", "global_norm"]:
        raise ValueError(f"it begins with {','.join(header)[:40]!r}")
    lines = text.readlines()
    table = np.loadtxt(lines, delimiter=",", ndmin=2) if lines else np.zeros([0, len(header)])
    names = tuple(column.removesuffix(".norm") for column in header if column.endswith(".norm"))
    steps, rows = table[:, 0].astype(np.int64), table[:, 1:].astype(np.float32)
    updates, has_loss = header[-1].endswith(".update_ratio"), bool(np.isfinite(rows[:, 0]).any())
    return len(data), Records(names, steps, rows, NO_COUNTS, updates, has_loss)
