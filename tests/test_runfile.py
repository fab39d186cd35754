import tomllib
from dataclasses import replace

import pytest

from common import pb, runfile
from common.errors import ConfigError, RemoteFault
from common.payloads import Blob

GOOD = """\
[run]
method = "fedavg"
rounds = 3
seed = 7

[model]
name = "mlp"
hidden = 32

[optimiser]
lr = {start = 0.1, end = 0.3}
epochs = 2

[data]
name = "digits"
classes = ["a", "b"]
"""

NO_RUN = pb.Record(fields=pb.Fields(fields=[pb.Field(value=pb.Value(none=True))]))


def test_sections_and_options_are_read():
    file = runfile.parse(GOOD, "good.toml")
    assert (file.run.seed, file.model.name, file.model.options) == (7, "mlp", {"hidden": 32})
    assert file.data.classes == ("a", "b")


def test_both_sides_see_the_same_numbers_in_a_round():
    run = runfile.from_blob(runfile.to_blob(runfile.parse(GOOD, "good.toml"), "r", ("a", "b"), (("root", "a"),)))
    assert [run.at(r).training.lr for r in (1, 2, 3)] == pytest.approx([0.1, 0.2, 0.3])
    assert (run.name, run.classes, run.taxonomy) == ("r", ("a", "b"), (("root", "a"),))


def test_the_bytes_of_a_run_do_not_depend_on_the_order_of_keys():
    swapped = GOOD.replace('method = "fedavg"\nrounds = 3', 'rounds = 3\nmethod = "fedavg"')
    assert runfile.to_blob(runfile.parse(GOOD, "a"), "r").data == runfile.to_blob(runfile.parse(swapped, "b"), "r").data


def test_toml_written_again_reads_back_equal():
    file = runfile.parse(GOOD + '[[row]]\nlabel = "x \\"y\\""\nset = {"run.seed" = 3}\n', "good.toml")
    assert runfile.parse(runfile.to_toml(file), "again") == file


@pytest.mark.parametrize("text", ["\u00e9", "\ub098\ubb34", "a\rb", 'tab\tquote"back\\slash', "\x7f", "\x01", "\n", ""])
def test_any_text_is_written_so_that_it_reads_back(text: str) -> None:
    table = {"run": {"method": "fedavg", "rounds": 1, "init_from": "x", "init_map": {text: text}}}
    assert tomllib.loads(runfile.to_toml(replace(runfile.parse(GOOD, "good.toml"), table=table))) == table


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("seed = 7", "sed = 7", "bad.toml line 4: [run] has no key 'sed'; did you mean 'seed'?"),
        (
            "epochs = 2",
            'epochs = "two"',
            "bad.toml line 12: optimiser.epochs must be a whole number, got the text 'two'",
        ),
        ("epochs = 2", "epochs = true", "optimiser.epochs must be a whole number, got the truth value True"),
        ("rounds = 3", "rounds = 0", "rounds must be at least 1, got 0"),
        ("{start = 0.1, end = 0.3}", "nan", "lr must be at least 0, got nan"),
        ("epochs = 2", "epochs = 2\nmomentum = -3.0", "momentum must be at least 0, got -3.0"),
        ("epochs = 2", "epochs = 2\nsteps = -1", "steps must be at least 1, got -1"),
        ("epochs = 2", "[evaluation]\nevery = -1", "every must be at least 0, got -1"),
        ("epochs = 2", "[evaluation]\nagents = -2", "agents must be at least 1, got -2"),
        ("epochs = 2", "[evaluation]\nfinetune_epochs = -3", "finetune_epochs must be at least 0, got -3"),
        ('name = "digits"', "limit = -5", "limit must be at least 1, got -5"),
        ('name = "digits"', "n_agents = 0", "n_agents must be at least 1, got 0"),
        ('name = "digits"', "shots = 0", "shots must be at least 1, got 0"),
        ('name = "digits"', "alpha = 0.0", "alpha must be above 0 and finite, got 0.0"),
        ("seed = 7", "seed = 99999999999999999999", "seed must fit into 64 bits"),
        ("rounds = 3", "", "run.rounds is missing; expected a whole number"),
        ('"fedavg"', '"fedagv"', "unknown method 'fedagv'; did you mean 'fedavg'?"),
        ("[data]", "[dat]", "the file has no key 'dat'; did you mean 'data'?"),
        ("seed = 7", "seed = {start = 1, end = 2}", "run.seed cannot be a schedule"),
        ("end = 0.3}", 'end = 0.3, shape = "exponental"}', "schedule"),
        ("epochs = 2", "epochs = 2\n[method]\nmu = 1", "[method] has no key 'mu'"),
        ("epochs = 2", "epochs = 2\nname = 'sdg'", "optimiser.name must be 'sgd' or 'adamw', got the text 'sdg'"),
        ("seed = 7", "seed = ", "bad.toml is not TOML"),
    ],
)
def test_each_mistake_is_named_with_its_place(old, new, sentence):
    with pytest.raises(ConfigError) as refused:
        runfile.parse(GOOD.replace(old, new), "bad.toml")
    assert sentence in str(refused.value)
    assert refused.value.exit_code == 10


def test_all_mistakes_are_told_at_once():
    with pytest.raises(ConfigError) as refused:
        runfile.parse(GOOD.replace("seed", "sed").replace("epochs", "epoch"), "bad.toml")
    assert len(str(refused.value).splitlines()) == 2


def test_rows_and_stages_expand_in_order_and_a_stage_starts_from_the_one_before():
    text = GOOD + (
        '[[row]]\nlabel = "A"\n[[row]]\nlabel = "B"\nset = {"run.method" = "local"}\n'
        '[[stage]]\nname = "one"\n[[stage]]\nname = "two"\nset = {"run.rounds" = 1}\n'
    )
    variants = list(runfile.expand(runfile.parse(text, "t")))
    assert [(v.label, v.stage, v.file.run.method, v.file.run.init_from, v.file.run.rounds) for v in variants] == [
        ("A", "one", "fedavg", "", 3),
        ("A", "two", "fedavg", "one", 1),
        ("B", "one", "local", "", 3),
        ("B", "two", "local", "one", 1),
    ]


def test_a_row_with_another_method_leaves_the_first_methods_settings_behind():
    text = (
        GOOD.replace('"fedavg"', '"fedprox"')
        + '[method]\nmu = 0.1\n[[row]]\nlabel = "A"\nset = {"run.method" = "fedavg"}\n'
    )
    (variant,) = runfile.expand(runfile.parse(text, "t"))
    assert (variant.file.run.method, variant.file.method) == ("fedavg", {})


def test_an_override_is_checked_like_the_file():
    with pytest.raises(ConfigError, match=r"run\.rounds must be a whole number"):
        runfile.with_overrides(runfile.parse(GOOD, "t"), {"run.rounds": "many"})


@pytest.mark.parametrize(
    "blob",
    [
        Blob("text/plain", b""),
        Blob(runfile.MEDIA_TYPE, b"\xff\xff"),
        Blob(runfile.MEDIA_TYPE, b""),
        Blob(
            runfile.MEDIA_TYPE,
            pb.Record(fields=pb.Fields(fields=[pb.Field(value=pb.Value(none=True))])).SerializeToString(),
        ),
    ],
)
def test_a_blob_that_is_no_run_is_the_senders_fault(blob):
    with pytest.raises(RemoteFault):
        runfile.from_blob(blob)


def test_a_row_may_leave_out_stages_and_then_starts_from_the_seed():
    text = GOOD + (
        '[[row]]\nlabel = "A"\n[[row]]\nlabel = "B"\nstages = ["three"]\n'
        '[[stage]]\nname = "one"\n[[stage]]\nname = "two"\n'
        '[[stage]]\nname = "three"\nset = {"run.init_from" = "one"}\n'
    )
    found = [(v.label, v.stage, v.file.run.init_from) for v in runfile.expand(runfile.parse(text, "t"))]
    assert found == [("A", "one", ""), ("A", "two", "one"), ("A", "three", "one"), ("B", "three", "")]


def test_a_row_that_names_an_unknown_stage_is_refused():
    text = GOOD + '[[row]]\nlabel = "A"\nstages = ["tow"]\n[[stage]]\nname = "two"\n'
    with pytest.raises(ConfigError, match="row 'A' names stage 'tow'; the file has two"):
        list(runfile.expand(runfile.parse(text, "t")))


def test_memories_are_those_of_a_run_that_is_named() -> None:
    text = '[run]\nmethod = "local"\nrounds = 3\nmemory_from = "init_from"\n'
    with pytest.raises(ConfigError, match=r'memory_from = "init_from" needs init_from, the run whose memories'):
        runfile.parse(text, "run.toml")
    assert runfile.parse(text + 'init_from = "before"\n', "run.toml").run.memory_from == "init_from"


def test_a_mistake_is_told_once_though_the_file_is_read_for_several_rounds() -> None:
    text = '[run]\nmethod = "fedobp"\nrounds = 3\n[method]\nq = 1.5\n'
    with pytest.raises(ConfigError) as told:
        runfile.parse(text, "run.toml")
    assert str(told.value).count("q must be in [0, 1]") == 1
