import pytest

from tapekit.plots.labels import labels

BERT = [
    f"tf_bert_for_sequence_classification/bert/encoder/layer_._{layer}/attention/{place}/{part}"
    for layer in (0, 1, 11)
    for place in ("self/query", "self/key", "output/dense", "output/LayerNorm")
    for part in ("kernel", "bias")
] + ["tf_bert_for_sequence_classification/classifier/kernel"]


@pytest.mark.parametrize("most", [1, 12, 24, 40])
@pytest.mark.parametrize("shortest", [False, True])
@pytest.mark.parametrize(
    "names",
    [
        BERT,
        [f"block_{i}/dense_{j}/kernel" for i in range(12) for j in range(3)],
        ["a/kernel", "b/a/kernel", "kernel", "a/b/kernel"],
        [f"a_very_long_name_without_any_scope_at_all_{i}_and_an_end_that_all_of_them_share" for i in range(30)],
        ["x" * 60 + str(i) + "y" * 60 for i in range(3)],
        ["w"],
        ["net/dense/kernel"],
        [],
    ],
)
def test_labels_are_as_unique_as_the_names(names, most, shortest):
    found = labels(names, most=most, shortest=shortest)
    assert len(found) == len(set(found)) == len(names)


def test_what_tells_apart_stays_and_what_is_shared_goes():
    found = labels(BERT)
    assert found[0] == "layer_._0/attention/self/query/kernel"
    assert found[-1] == "classifier/kernel"
    assert max(map(len, found)) <= 40
    short = labels(BERT, most=24)
    assert short[0] == "layer_._0/…/query/kernel"
    assert short[8] == "layer_._1/…/query/kernel"


def test_a_box_has_the_shortest_label_that_tells_it_apart():
    names = ["net/block_0/add", "net/block_1/add", "net/block_0/dense", "net/head", "Mean"]
    assert labels(names, shortest=True) == ["block_0/add", "block_1/add", "dense", "head", "Mean"]
    assert labels(["twice/shared", "twice/shared (2)"], shortest=True) == ["shared", "shared (2)"]


def test_names_that_are_short_lose_only_the_scope_that_all_share():
    assert labels(["net/one/kernel", "net/one/bias", "net/two/kernel"]) == ["one/kernel", "one/bias", "two/kernel"]
    assert labels(["one/kernel", "two/kernel"]) == ["one/kernel", "two/kernel"]
    assert labels(["kernel", "one/kernel"]) == ["kernel", "one/kernel"]


def test_a_long_name_without_scopes_is_shown_by_its_end():
    (found,) = labels(["a_rather_long_name_of_a_block_and_of_a_layer/kernel"])
    assert found == "…g_name_of_a_block_and_of_a_layer/kernel"
    (found,) = labels(["x" * 100])
    assert found == "…" + "x" * 39
