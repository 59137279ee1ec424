"""Variables that `fn` makes while it is traced: `variables_made_once`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

from tapekit._sources import as_variable


@contextmanager
def variables_made_once(made: list[tf.Variable], entries: list[tf.Tensor]) -> Iterator[None]:
    """Let code that makes variables get those in `made`, in order. Further variables are made and added to `made`.

    So each variable is made once, though `fn` is traced several times. A variable whose initial value is a variable, or
    depends on one of the sources' `entries`, is refused at the line that makes it.
    """
    earlier = iter(list(made))

    def make(next_creator: Callable, **kwargs: Any) -> tf.Variable:
        if (variable := next(earlier, None)) is not None:
            return variable
        value = kwargs["initial_value"]
        if isinstance(value, tf.Tensor) and tf.is_symbolic_tensor(value):
            kwargs["initial_value"] = value = None if _depends(value, entries) else tf.get_static_value(value)
        if value is None or as_variable(value) is not None:
            raise ValueError("The initial value of a tf.Variable made inside fn is a symbolic tensor")
        with tf.init_scope():
            made.append(next_creator(**kwargs))
        return made[-1]

    with tf.variable_creator_scope(make):
        yield


def _depends(tensor: tf.Tensor, entries: list[tf.Tensor]) -> bool:
    return any(tensor is entry for entry in entries) or any(_depends(each, entries) for each in tensor.op.inputs)
