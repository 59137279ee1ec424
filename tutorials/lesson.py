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
