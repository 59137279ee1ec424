"""`FitRecorder`: the gradients of Keras `fit`, for `GradientLog`.

A callback does not receive gradients, but `train_step` passes them to `optimizer.apply`. Therefore `FitRecorder`
replaces the model's train_function during each batch by one in which `compute_loss` and `apply` also record. Keras
calls no callback after an exception or Ctrl-C, so every replacement is undone before the batch ends, and the compiled
function that records is never left in the model.
"""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any


class FitRecorder:
    """Calls ``record(gradients, variables, loss, scale)`` with the gradients that `optimizer.apply` receives."""

    def __init__(self, record: Callable):
        self.record = record
        self.model: Any = None
        self.history: Any = None  # identifies the fit that is recorded
        self.plain: Any = None  # the model's own train_function
        self.recorded: Any = None  # the same function, compiled with the records
        self.sound = False  # whether `recorded` has run once; an exception may leave it half traced
        self.thread = threading.local()  # each replica runs in a thread of its own

    def begin(self, model: Any) -> None:
        """Prepare to record a fit of `model`, which begins."""
        if model.optimizer is None:
            raise ValueError("GradientLog: the model has no optimizer. Call log.record(...) in your own train_step.")
        stale = getattr(model.train_function, "__self__", None)
        if isinstance(stale, FitRecorder):  # an exception was raised between `arm` and the batch
            model.train_function = stale.plain
        if not self.sound or self.plain is not model.train_function:
            self.plain = model.train_function
            model.make_train_function(force=True)  # the model's own may be compiled already, without records
            self.recorded, model.train_function, self.sound = model.train_function, self.plain, False
        self.model, self.history = model, model.history

    def arm(self) -> None:
        """Make the model record its next batch."""
        if self.model.train_function is not self.plain:
            self.model.train_function = self.plain
            raise RuntimeError(
                "GradientLog: model.train_function is not what it was when fit began: there are two logs, or a "
                "callback compiles the model. Use one log in a fit."
            )
        self.model.train_function = self.train

    def train(self, iterator: Any) -> Any:
        """Train on one batch and record it, in place of the model's train_function."""
        model, optimizer = self.model, self.model.optimizer
        model.train_function = self.plain
        if model.history is not self.history:  # a fit was interrupted after `arm`, and this is another
            return self.plain(iterator)
        compute_loss, apply = model.compute_loss, optimizer.apply

        @functools.wraps(compute_loss)
        def keep_loss(*args: Any, **kwargs: Any) -> Any:
            self.thread.loss = compute_loss(*args, **kwargs)
            return self.thread.loss

        @functools.wraps(apply)
        def record_and_apply(grads: Any, trainable_variables: Any = None) -> Any:
            grads = list(grads)
            variables = list(model.trainable_variables if trainable_variables is None else trainable_variables)
            # LossScaleOptimizer and loss_scale_factor multiply the loss by scale_loss(1)
            self.record(grads, variables, vars(self.thread).pop("loss", None), optimizer.scale_loss(1.0))
            return apply(grads, trainable_variables)

        with _replaced(model, "compute_loss", keep_loss), _replaced(optimizer, "apply", record_and_apply):
            result = self.recorded(iterator)
        self.sound = True
        return result


@contextlib.contextmanager
def _replaced(thing: Any, name: str, value: Any) -> Iterator[None]:
    """Set an attribute of `thing` during a ``with`` block, and restore it."""
    own = vars(thing).get(name)
    setattr(thing, name, value)
    try:
        yield
    finally:
        if own is None:
            delattr(thing, name)
        else:
            setattr(thing, name, own)
