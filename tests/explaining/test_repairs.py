"""Each program that loses a gradient is explained, and its twin, made by doing what the advice says, is fine."""

import inspect
import warnings

import keras
import pytest

import tapekit
from tests.explaining.repaired_programs import HEALTHY, NOTED, SICK


def name(program):
    return program.make.__name__


def explained(program, *, repaired=False):
    keras.utils.set_random_seed(3)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="keras")
        fn, vars = program.make(repaired)
        return tapekit.explain(fn, vars)


def notes(explanation):
    return [note for finding in explanation for note in finding.notes] + [*explanation.notes]


@pytest.mark.parametrize("program", [each for each in SICK if each.status != "error"], ids=name)
def test_the_fact_the_line_and_the_words_are_right(program):
    explanation = explained(program)
    finding = explanation[0]
    assert finding.status == program.status
    assert finding.cause in program.causes
    assert program.op in (None, finding.op)
    lines, first = inspect.getsourcelines(program.make)
    marked = [first + at for at, line in enumerate(lines) if line.rstrip().endswith(program.mark)]
    assert not marked or finding.line in marked
    for words in program.says:
        assert words in " ".join(str(explanation).split())


@pytest.mark.parametrize("program", [each for each in SICK if each.twin], ids=name)
def test_the_twin_that_follows_the_advice_is_fine(program):
    assert explained(program, repaired=True)[0].status == "ok"


@pytest.mark.parametrize("program", NOTED, ids=name)
def test_what_is_fine_and_loses_a_part_gets_a_note(program):
    explanation = explained(program)
    assert explanation
    for words in program.says:
        assert any(words in note for note in notes(explanation))


@pytest.mark.parametrize("program", HEALTHY, ids=name)
def test_a_healthy_model_gets_no_note(program):
    explanation = explained(program)
    assert explanation
    assert [note for finding in explanation for note in finding.notes] == []
    assert [note for note in explanation.notes if not note.startswith("Also read")] == []


def test_an_error_of_a_layer_is_raised_with_its_reason():
    (program,) = [each for each in SICK if each.status == "error"]
    with pytest.raises(ValueError, match="3 columns needed"):
        explained(program)
