"""Print the table of costs; name modules to print only theirs: ``python -m tests.benchmarks gradients``."""

import importlib
import pathlib
import sys

HERE = pathlib.Path(__file__).parent


def main(wanted: list[str]) -> None:
    print(f"{'what':<52} {'against':<40} {'measured':>10}   reach")
    for path in sorted(HERE.glob("bench_*.py")):
        if wanted and path.stem.removeprefix("bench_") not in wanted:
            continue
        for row in importlib.import_module(f"tests.benchmarks.{path.stem}").rows():
            sign = ">=" if row.at_least else "<="
            met = row.figure >= row.reach if row.at_least else row.figure <= row.reach
            figure = f"{row.figure:.4g} {row.unit}"
            print(f"{row.what:<52} {row.against:<40} {figure:>10}   {sign} {row.reach:g}{'' if met else '   MISSED'}")


main(sys.argv[1:])
