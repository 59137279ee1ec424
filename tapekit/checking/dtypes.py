"""What is known of a dtype (`epsilon`, `tiny`, `wide`), and tensors as real vectors (`floats`, `real`)."""

from typing import Any

import tensorflow as tf

from tapekit._sources import is_float, values_of

WIDE = {tf.float16: tf.float64, tf.bfloat16: tf.float64, tf.float32: tf.float64, tf.complex64: tf.complex128}


def wide(dtype: tf.DType) -> tf.DType:
    """Return float64 for a float dtype, complex128 for a complex one, and any other unchanged."""
    return WIDE.get(dtype, dtype)


def epsilon(dtype: Any) -> float:
    """Return the spacing of the numbers of `dtype` at 1; 0 for an integer."""
    name = tf.as_dtype(dtype).real_dtype.name
    return {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23, "float64": 2.0**-52}.get(name, 0.0)


def tiny(dtype: tf.DType) -> float:
    """Return the smallest number of `dtype` that TensorFlow does not replace by 0."""
    return {"float16": 2.0**-24, "float64": 2.0**-1022}.get(tf.as_dtype(dtype).real_dtype.name, 2.0**-126)


def floats(result: Any) -> list[tf.Tensor]:
    """Return the float and complex tensors in what `fn` returned."""
    found = tf.nest.flatten(result, expand_composites=True)
    return [y for y in map(tf.convert_to_tensor, (y for y in found if y is not None)) if is_float(y)]


def real(tensor: Any) -> tf.Tensor:
    """Return a tensor of any dtype as a real vector in float64, in which a complex number is two entries."""
    tensor = tf.convert_to_tensor(values_of(tensor))
    if tensor.dtype.is_complex:
        tensor = tf.stack([tf.math.real(tensor), tf.math.imag(tensor)], axis=-1)
    return tf.cast(tf.reshape(tensor, [-1]), tf.float64)
