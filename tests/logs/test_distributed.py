"""The log under `tf.distribute`: the norms are those of one device with the same global batch.

Devices and clusters are set up before TensorFlow does anything, so each program runs in processes of its own.
"""

import json
import os
import socket
import subprocess
import sys
import textwrap

import numpy as np
import pytest

PROGRAM = textwrap.dedent(
    """
    import json, os, sys
    import keras
    import numpy as np
    import tensorflow as tf
    from tapekit.logs import GradientLog

    KIND, LOOPS, PATH = sys.argv[1:4]
    if KIND == "mirrored":
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    elif KIND == "workers":
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    else:
        strategy = tf.distribute.get_strategy()

    x = np.random.default_rng(0).normal(size=(32, 5)).astype("float32")
    y = np.random.default_rng(1).normal(size=(32, 3)).astype("float32")
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(8, drop_remainder=True)
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    data = data.with_options(options)

    def run(loop):
        batches = data
        with strategy.scope():
            keras.utils.set_random_seed(0)
            layers = [keras.layers.Dense(4, activation="tanh"), keras.layers.Dense(3)]
            model = keras.Sequential([keras.Input([5]), *layers])
            optimizer = keras.optimizers.SGD(0.1)
            model.compile(optimizer, "mse")
        path = None if PATH == "-" else f"{PATH}/{loop}.csv"
        every = 2 if loop == "eagerly" else 1
        log = GradientLog(updates=True, every=every, histograms=2, path=path, logdir=path and path + "-events")

        class Packed(keras.Model):
            # under MultiWorkerMirroredStrategy the fit of Keras 3.15 can neither take (x, y) nor give results back:
            # strategy.reduce("MEAN", ...) fails on tuples and scalars; one tensor and a vector work

            def call(self, xy):
                return self.inner(xy[:, :5])

            def train_step(self, data):
                super().train_step(data)
                return {"result": tf.zeros([1])}

            def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
                return tf.reduce_mean((y_pred - x[:, 5:]) ** 2) / strategy.num_replicas_in_sync

        if (KIND, loop) == ("workers", "fit"):
            batches = data.map(lambda x, y: tf.concat([x, y], 1))
            with strategy.scope():
                packed = Packed()
                packed.inner = model
                packed.compile(optimizer)

        def step(x, y):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum((model(x) - y) ** 2) / (8 * 3)  # each replica's share of the global batch
            gradients = tape.gradient(loss, model.trainable_variables)
            log.record(gradients, model.trainable_variables, loss=loss)
            optimizer.apply(gradients, model.trainable_variables)

        if loop == "fit":
            model = packed if KIND == "workers" else model
            model.fit(batches, epochs=2, verbose=0, shuffle=False, callbacks=[log])
            rows = len(log)
            model.fit(batches, epochs=1, verbose=0, shuffle=False)
            assert len(log) == rows
        else:
            replicated = lambda batch: strategy.run(step, args=batch)
            run = replicated if loop == "eagerly" else tf.function(replicated, autograph=False)
            for _ in range(2):
                for batch in strategy.experimental_distribute_dataset(data):
                    run(batch)
        found = {name: getattr(log, name).tolist() for name in ("steps", "loss", "global_norm", "norm", "update_ratio")}
        return found | {"counts": [log.histogram(name, 4).counts.tolist() for name in log.names]}

    print("RESULT" + json.dumps({loop: run(loop) for loop in LOOPS.split(",")}))
    """
)


def start(kind, loops, path="-", config=None):
    environment = os.environ | {"TF_CONFIG": json.dumps(config)} if config else dict(os.environ)
    environment |= {"TF_CPP_MIN_LOG_LEVEL": "3", "GRPC_VERBOSITY": "NONE"}
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, kind, loops, str(path)]
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def result(*processes):
    """What each of the processes printed; none of them outlives the test."""
    try:
        outputs = [process.communicate(timeout=600) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (_, errors) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, errors[-3000:]
    return [json.loads(out.split("RESULT")[1]) for out, _ in outputs]


@pytest.fixture(scope="module")
def one_device():
    return result(start("one", "loop"))[0]["loop"]


def assert_same(found, expected, every=1):
    assert found["steps"] == list(range(0, 8, every))
    for name in ("loss", "global_norm", "norm", "update_ratio"):
        values = np.array(expected[name])[::every]
        np.testing.assert_allclose(found[name], values, rtol=1e-5 if name != "update_ratio" else 1e-4, err_msg=name)
    counts, same = np.array(found["counts"]), np.array(expected["counts"])
    assert counts.sum(1).tolist() == [5 * 4, 4, 4 * 3, 3]
    assert np.abs(counts - same).sum() <= 4  # sums in another order may round over an edge


def test_two_mirrored_replicas_log_the_gradients_of_one_device(one_device):
    (found,) = result(start("mirrored", "loop,eagerly,fit"))
    for loop, every in (("loop", 1), ("eagerly", 2), ("fit", 1)):
        assert_same(found[loop], one_device, every)


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def test_two_workers_log_the_gradients_of_one_device_and_the_chief_writes_them(one_device, tmp_path):
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(2)]}
    configs = [{"cluster": cluster, "task": {"type": "worker", "index": index}} for index in (0, 1)]
    folders = [tmp_path / "0", tmp_path / "1"]
    for folder in folders:
        folder.mkdir()
    workers = [start("workers", "loop,fit", *each) for each in zip(folders, configs, strict=True)]
    for found in result(*workers):
        assert_same(found["loop"], one_device)
        assert_same(found["fit"], one_device)
    for loop in ("loop", "fit"):
        assert len((folders[0] / f"{loop}.csv").read_text().splitlines()) == 1 + 8
        assert len(list((folders[0] / f"{loop}.csv-events").iterdir())) == 1
    assert not list(folders[1].iterdir())
