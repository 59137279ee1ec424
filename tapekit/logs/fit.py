"""The gradients of Keras `fit`: `FitRecorder`, for `GradientLog`.

A callback does not receive gradients, but `train_step` passes them to `optimizer.apply` (in tf_keras, which is Keras 2,
to `apply_gradients`). Therefore `FitRecorder` replaces the model's train_function during each batch by one in which
`compute_loss` and `apply` also record. Keras calls no callback after an exception or Ctrl-C, so every replacement is
undone before the batch ends, and the compiled function that records is never left in the model.
"""

import threading
from collections.abc import Callable
from typing import Any
from unittest import mock

import keras


class FitRecorder:
    """Calls ``record(gradients, variables, loss, scale)`` with the gradients that the optimizer receives."""

    def __init__(self, record: Callable):
        self.record = record
        self.model: Any = None
        self.history: Any = None  # identifies the fit that is recorded
        self.plain: Any = None  # the model's own train_function
        self.recorded: Any = None  # the same function, compiled with the records
        self.traced = False  # whether `recorded` has run once: an exception may leave it half traced
        self.training = False  # whether `recorded` runs now
        self.thread = threading.local()  # each replica runs in a thread of its own, and holds its `loss` there

    def begin(self, model: Any) -> None:
        """Prepare to record a fit of `model`, which begins."""
        backend = keras.backend.backend() if isinstance(model, keras.Model) else "tensorflow"
        if backend != "tensorflow":
            instead = "Set KERAS_BACKEND=tensorflow before Keras is imported."
            raise RuntimeError(f"GradientLog: Keras runs on {backend} here; tapekit reads TensorFlow's tape. {instead}")
        if model.optimizer is None:
            raise ValueError("GradientLog: the model has no optimizer. Call log.record(...) in your own train_step.")
        stale = getattr(model.train_function, "__self__", None)
        if isinstance(stale, FitRecorder):  # an exception was raised between `arm` and the batch
            model.train_function = stale.plain
        if not self.traced or self.plain is not model.train_function:
            self.plain = model.train_function
            model.make_train_function(force=True)  # the model's own may be compiled already, without records
            self.recorded, model.train_function, self.traced = model.train_function, self.plain, False
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
        name = "apply" if hasattr(optimizer, "apply") else "apply_gradients"
        compute_loss, apply = model.compute_loss, getattr(optimizer, name)
        minimize: Any = getattr(optimizer, "minimize", None)  # tf_keras only

        def keep_loss(*args: Any, **kwargs: Any) -> Any:
            self.thread.loss = compute_loss(*args, **kwargs)
            return self.thread.loss

        def keep_minimized(loss: Any, *args: Any, **kwargs: Any) -> Any:
            if not callable(loss):
                self.thread.loss = loss  # a train_step of tf_keras need not call compute_loss
            return minimize(loss, *args, **kwargs)

        def record_and_apply(grads: Any, *args: Any, **kwargs: Any) -> Any:
            gradients = grads = list(grads)
            if name == "apply_gradients":
                gradients, variables, scale = [g for g, _ in grads], [v for _, v in grads], 1.0
            else:
                given = args[0] if args else kwargs.get("trainable_variables")
                variables = list(model.trainable_variables if given is None else given)
                scale = optimizer.scale_loss(1.0)  # by which LossScaleOptimizer and loss_scale_factor multiply the loss
            self.record(gradients, variables, vars(self.thread).pop("loss", None), scale)
            return apply(grads, *args, **kwargs)

        vars(self.thread).clear()
        with (
            mock.patch.object(self, "training", True),
            mock.patch.object(model, "compute_loss", keep_loss),
            mock.patch.object(optimizer, "minimize", keep_minimized, create=True),
            mock.patch.object(optimizer, name, record_and_apply),
        ):
            result = self.recorded(iterator)
        self.traced = True
        return result

    def clipping(self) -> tuple[str, float] | None:
        """Return the argument and the limit by which the optimizer clips the recorded gradients, or None."""
        optimizer = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)  # if it scales the loss
        sums = getattr(optimizer, "gradient_accumulation_steps", None)
        if sums or self.model.distribute_strategy.num_replicas_in_sync > 1:  # it clips sums, or one replica's gradients
            return None
        limits = ((name, getattr(optimizer, name, None)) for name in ("clipnorm", "global_clipnorm", "clipvalue"))
        return next(((name, float(limit)) for name, limit in limits if limit), None)
