"""`EventFile`: the rows of a log in the format that TensorBoard reads. The `tensorboard` package is not needed."""

import os
import socket
import time
from typing import Any

import numpy as np
import tensorflow as tf

from tapekit.logs.histograms import Histogram
from tapekit.logs.records import Records

FIELDS = ("norm", "max_abs", "nonfinite", "missing", "update_ratio")
SCALARS, HISTOGRAMS = ({"plugin_data": {"plugin_name": name}} for name in ("scalars", "histograms"))


class EventFile:
    """A file of events in the folder `path`, which is made when the first rows are written."""

    def __init__(self, path: str):
        self.path = path
        self._file: Any = None

    def write(self, records: Records) -> None:
        """Append the rows. The first step is 1, as in Keras's TensorBoard callback."""
        if self._file is None:
            tf.io.gfile.makedirs(self.path)
            name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}.tapekit"
            self._file = tf.io.TFRecordWriter(os.path.join(self.path, name))
            self._append(file_version="brain.Event:2")
        fields = FIELDS if records.updates else FIELDS[:-1]
        tags = ["loss", "global_norm", *(f"{field}/{name}" for field in fields for name in records.names)]
        columns = [records.loss, records.global_norm, *(getattr(records, field).T for field in fields)]
        begin, histogram_steps = 0 if records.has_loss else 1, set(records.histogram_steps.tolist())
        for step, row in zip(records.steps.tolist(), np.vstack(columns).T.tolist(), strict=True):
            values = [_scalar(*each) for each in zip(tags[begin:], row[begin:], strict=True)]
            if step in histogram_steps:
                values += [_histogram(f"gradient/{name}", records.histogram(name, step)) for name in records.names]
            self._append(step=step + 1, summary={"value": values})
        self._file.flush()

    def _append(self, **event: Any) -> None:
        self._file.write(tf.compat.v1.Event(wall_time=time.time(), **event).SerializeToString())


def _scalar(tag: str, value: float) -> dict:
    tensor = {"dtype": tf.float32.as_datatype_enum, "float_val": [value], "tensor_shape": {}}
    return {"tag": tag, "tensor": tensor, "metadata": SCALARS}


def _histogram(tag: str, histogram: Histogram) -> dict:
    """Return a summary of buckets ``[left edge, right edge, count]``, neighbours without an element in one bucket."""
    filled = np.pad(histogram.counts > 0, 1)
    places = np.flatnonzero(filled[1:] | filled[:-1])
    if not len(places):
        return {"tag": tag, "tensor": tf.make_tensor_proto(np.zeros([0, 3])), "metadata": HISTOGRAMS}
    edges, counts = histogram.edges[places], np.add.reduceat(histogram.counts, places[:-1])
    buckets = np.stack([edges[:-1], edges[1:], counts], 1)
    return {"tag": tag, "tensor": tf.make_tensor_proto(buckets), "metadata": HISTOGRAMS}
