"""The gradients of Keras `fit`: `FitCallback`, the part of `GradientLog` that is a callback.

A callback does not receive gradients, but `train_step` passes them to `optimizer.apply` (in tf_keras, which is Keras 2,
to `apply_gradients`). Therefore the model's train_function is replaced during each batch by one that also records.
Keras calls no callback after an exception or Ctrl-C, so every replacement is undone before the batch ends.
"""

import functools
import sys
import threading
from collections.abc import Sequence
from typing import Any
from unittest import mock

import keras


class FitCallback(keras.callbacks.Callback):
    """Calls ``_record(gradients, variables, loss, scale)`` with the gradients that the optimizer receives."""

    _history: Any = None  # identifies the fit that is recorded
    _plain: Any = None  # the model's own train_function
    _recorded: Any = None  # the same function, compiled with the records
    _traced = False  # whether `_recorded` has run once: an exception may leave it half traced
    _training = False  # whether `_recorded` runs now
    _thread = threading.local()  # each replica runs in a thread of its own, and holds its `loss` there

    def __getattr__(self, name: str) -> Any:
        # tf_keras asks a callback for methods that its own base class has
        legacy = getattr(getattr(sys.modules.get("tf_keras"), "callbacks", None), "Callback", None)
        if not hasattr(legacy, name) or name.startswith("__"):
            raise AttributeError(f"GradientLog has no attribute {name!r}.", name=name, obj=self)
        return getattr(legacy, name).__get__(self)

    def on_train_begin(self, logs: Any = None) -> None:
        model = self.model
        if isinstance(model, keras.Model) and (backend := keras.backend.backend()) != "tensorflow":
            instead = "Set KERAS_BACKEND=tensorflow before Keras is imported."
            raise RuntimeError(f"GradientLog: Keras runs on {backend} here; tapekit reads TensorFlow's tape. {instead}")
        if model.optimizer is None:
            raise ValueError("GradientLog: the model has no optimizer. Call log.record(...) in your own train_step.")
        stale = getattr(model.train_function, "__self__", None)  # if a fit was interrupted before `_train`
        model.train_function = stale._plain if isinstance(stale, FitCallback) else model.train_function
        if not self._traced or self._plain is not model.train_function:
            self._plain = model.train_function
            model.make_train_function(force=True)  # the model's own may be compiled already, without records
            self._recorded, model.train_function, self._traced = model.train_function, self._plain, False
        self._history = model.history
        optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)  # if it scales the loss
        sums = getattr(optimizer, "gradient_accumulation_steps", None)
        if not sums and model.distribute_strategy.num_replicas_in_sync == 1:  # else it clips other gradients
            for name in ("clipnorm", "global_clipnorm", "clipvalue"):
                if limit := getattr(optimizer, name, None):
                    self.clipping: Sequence | None = (name, float(limit), self._next * self.every)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._batch = batch
        if self.model.train_function is not self._plain:
            self.model.train_function = self._plain
            why = "model.train_function is not what it was: there are two logs, or a callback compiled the model"
            raise RuntimeError(f"GradientLog: {why}. Use one log in a fit.")
        self.model.train_function = self._train

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self._ring is None:
            why = "the first batch did not call model.optimizer.apply, so there was nothing to record"
            raise RuntimeError(f"GradientLog: {why}. Call log.record(...) in a train_step with other optimizers.")
        self._count_steps(batch - self._batch + 1)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.drain()

    def _train(self, iterator: Any) -> Any:
        """Train on one batch and record it, in place of the model's train_function."""
        model, optimizer = self.model, self.model.optimizer
        model.train_function = self._plain
        if model.history is not self._history:  # a fit was interrupted before `_train`, and this is another
            return self._plain(iterator)
        vars(self._thread).clear()
        name = "apply" if hasattr(optimizer, "apply") else "apply_gradients"
        apply = self._apply if name == "apply" else self._apply_gradients
        minimize = getattr(optimizer, "minimize", None)  # tf_keras only
        with (
            mock.patch.object(self, "_training", True),
            mock.patch.object(model, "compute_loss", functools.partial(self._compute_loss, model.compute_loss)),
            mock.patch.object(optimizer, "minimize", functools.partial(self._minimize, minimize), create=True),
            mock.patch.object(optimizer, name, functools.partial(apply, getattr(optimizer, name))),
        ):
            result = self._recorded(iterator)
        self._traced = True
        return result

    def _compute_loss(self, compute_loss: Any, *args: Any, **kwargs: Any) -> Any:
        self._thread.loss = compute_loss(*args, **kwargs)
        return self._thread.loss

    def _minimize(self, minimize: Any, loss: Any, *args: Any, **kwargs: Any) -> Any:
        self._thread.loss = None if callable(loss) else loss  # such a train_step need not call compute_loss
        return minimize(loss, *args, **kwargs)

    def _apply(self, apply: Any, gradients: Any, trainable_variables: Any = None) -> Any:
        gradients = list(gradients)
        variables = self.model.trainable_variables if trainable_variables is None else trainable_variables
        scale = self.model.optimizer.scale_loss(1.0)  # by which LossScaleOptimizer and loss_scale_factor multiply it
        self._record(gradients, variables, vars(self._thread).pop("loss", None), scale)
        return apply(gradients, trainable_variables)

    def _apply_gradients(self, apply_gradients: Any, pairs: Any, *args: Any, **kwargs: Any) -> Any:
        pairs = list(pairs)
        gradients, variables = [g for g, _ in pairs], [v for _, v in pairs]
        self._record(gradients, variables, vars(self._thread).pop("loss", None), 1.0)
        return apply_gradients(pairs, *args, **kwargs)
