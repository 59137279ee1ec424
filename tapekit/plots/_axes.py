"""What the plots share: axes to draw on, colours for every eye."""

from typing import Any

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito: for colour-blind eyes


def axes_or_new(ax: Any, size: tuple[float, float]) -> Any:
    """`ax`, or the axes of a new figure of that size in inches."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=size, layout="constrained")[1]
