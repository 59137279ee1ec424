"""What every tutorial uses and no learner needs to read: a quiet TensorFlow, the digits, a place for pictures."""

import os
from pathlib import Path
from typing import Any

os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0"}  # few log lines; the same digits everywhere

import numpy as np

HERE = Path(__file__).parent
PICTURES = Path("tutorials/pictures") if Path("tutorials").is_dir() else Path("pictures")


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Return 1,797 images of handwritten digits, `[1797, 8, 8]` from 0 (white) to 1 (black), and their labels."""
    stored = np.load(HERE / "data" / "digits.npz")
    return (stored["images"] / 16).astype("float32"), stored["labels"].astype("int32")


def save(figure: Any, name: str, dpi: int = 80) -> None:
    """Write a figure to the folder of pictures. (A notebook also shows it below the cell.)"""
    PICTURES.mkdir(exist_ok=True)
    figure.savefig(PICTURES / name, dpi=dpi)
    print("picture:", PICTURES / name)


def records(series: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Return 14,400 noisy digits as rows, `[14400, 64]`, and their labels. In each series one record is bad."""
    images, labels = digits()
    random = np.random.default_rng(0)
    pick = random.integers(0, len(images), 14_400)
    x = images[pick].reshape(-1, 64) + random.normal(0, 0.1, [14_400, 64]).astype("float32")
    if series == 1:
        x[12_819] = 255 * (1 - images[pick[12_819]].reshape(-1))  # as another program writes it: white is 255
    else:
        x[7_777, 20] = np.nan
    return x, labels[pick]


def deep_network(start: Any) -> Any:
    """Return a Keras model of thirty ReLU layers of 64 units; `start` names an initializer, or is the spread itself."""
    from tensorflow import keras

    def normal(shape: Any, dtype: Any = None) -> Any:
        return keras.random.normal(shape, stddev=start / shape[0] ** 0.5)

    keras.utils.set_random_seed(2)
    draw = start if isinstance(start, str) else normal
    hidden = [keras.layers.Dense(64, "relu", kernel_initializer=draw, name=f"layer{i:02d}") for i in range(1, 31)]
    return keras.Sequential([keras.Input([64]), *hidden, keras.layers.Dense(10, name="head")])
