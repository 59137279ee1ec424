"""Gradients out of Keras `fit`, for `GradientLog`: `FitRecorder`.

A callback never sees gradients, but `train_step` hands them to `optimizer.apply`. So a train_function of our own takes
the place of the model's for the length of a batch, and replaces `compute_loss` and `apply` while it runs. Keras calls
no callback after an exception or Ctrl-C: so nothing stays replaced, and no compiled step that records stays with the
model.
"""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any


class FitRecorder:
    """Calls ``record(gradients, variables, loss, scale)`` with what `optimizer.apply` gets."""

    def __init__(self, record: Callable):
        self.record = record
        self.model: Any = None
        self.history: Any = None  # the fit that this records
        self.plain: Any = None  # the model's own train_function
        self.recorded: Any = None  # the same, compiled with records in it
        self.sound = False  # it has run: no exception has left it half traced, its variables half made
        self.thread = threading.local()  # each replica runs in a thread of its own

    def begin(self, model: Any) -> None:
        """A fit of `model` begins."""
        if model.optimizer is None:
            raise ValueError("GradientLog: the model has no optimizer. Call log.record(...) in your own train_step.")
        stale = getattr(model.train_function, "__self__", None)
        if isinstance(stale, FitRecorder):  # an exception came just before a batch
            model.train_function = stale.plain
        if not self.sound or self.plain is not model.train_function:
            self.plain = model.train_function
            model.make_train_function(force=True)  # the old one may be compiled, without records
            self.recorded, model.train_function, self.sound = model.train_function, self.plain, False
        self.model, self.history = model, model.history

    def arm(self) -> None:
        """The next batch is recorded."""
        if self.model.train_function is not self.plain:
            self.model.train_function = self.plain
            raise RuntimeError(
                "GradientLog: model.train_function is not what it was when fit began: there are two logs, or a "
                "callback compiles the model. Use one log in a fit."
            )
        self.model.train_function = self.train

    def train(self, iterator: Any) -> Any:
        """The model's train_function for one batch."""
        model, optimizer = self.model, self.model.optimizer
        model.train_function = self.plain
        if model.history is not self.history:  # armed by a fit that was interrupted; this is another
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
            # what scale_loss multiplied, LossScaleOptimizer and loss_scale_factor divide
            self.record(grads, variables, vars(self.thread).pop("loss", None), optimizer.scale_loss(1.0))
            return apply(grads, trainable_variables)

        with _replaced(model, "compute_loss", keep_loss), _replaced(optimizer, "apply", record_and_apply):
            result = self.recorded(iterator)
        self.sound = True
        return result


@contextlib.contextmanager
def _replaced(thing: Any, name: str, value: Any) -> Iterator[None]:
    """Give `thing` the attribute for a while, and leave it exactly as it was."""
    own = vars(thing).get(name)
    setattr(thing, name, value)
    try:
        yield
    finally:
        if own is None:
            delattr(thing, name)
        else:
            setattr(thing, name, own)
