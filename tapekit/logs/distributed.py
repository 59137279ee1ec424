"""The log under `tf.distribute`: `aggregate` the replicas, `is_first_of_worker`, `is_chief`."""

from typing import Any

import tensorflow as tf

from tapekit import _sources


def aggregate(replica: Any, gradients: list, loss: tf.Tensor) -> tuple[list, tf.Tensor]:
    """Return the sums over the replicas, which a Keras optimizer applies."""
    present = _sources.dense([g for g in gradients if g is not None])
    loss, *summed = replica.all_reduce(tf.distribute.ReduceOp.SUM, [loss, *present])
    return [None if g is None else summed.pop(0) for g in gradients], loss


def is_first_of_worker(replica: Any) -> bool:
    """Return whether this replica is the first one of its process."""
    local = len(replica.strategy.extended.worker_devices)
    return int(tf.get_static_value(replica.replica_id_in_sync_group)) % local == 0


def is_chief(resolver: Any) -> bool:
    """Return whether this process writes the files. Without a cluster it does."""
    if resolver is None or resolver.task_type in (None, "", "chief"):
        return True
    return "chief" not in resolver.cluster_spec().jobs and (resolver.task_type, resolver.task_id) == ("worker", 0)
