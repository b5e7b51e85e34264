from __future__ import annotations

import pathlib
import re
import sys

import gin
import pytest

from asr_tf.runs import configuration
from asr_tf.runs.configuration import ConfigurationError


def message_of(files=(), bindings=()):
    with pytest.raises(ConfigurationError) as caught:
        configuration.parse(files, bindings)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", ["models/asr.gin", "gin_configs/models/asr.gin"])
def test_files_are_found_by_name_from_any_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = configuration.find_file(name)
    assert path.is_file()
    assert path.parts[-2:] == ("models", "asr.gin")


def test_a_path_wins_over_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "models" / "asr.gin"
    own.parent.mkdir()
    own.write_text("train.batch_size = 3\n")
    assert configuration.find_file("models/asr.gin") == own


def test_an_unknown_file_names_the_nearest_and_all():
    with pytest.raises(ConfigurationError) as caught:
        configuration.find_file("models/ars.gin")
    message = str(caught.value)
    assert "did you mean models/asr.gin?" in message
    assert "models/air.gin" in message
    assert "quickstart.gin" in message


def test_unknown_names_come_with_the_nearest_one():
    message = message_of(bindings=["ASRModle.num_steps = 3"])
    assert "no configurable is called 'ASRModle'; did you mean 'ASRModel'?" in message
    message = message_of(bindings=["train.batchsize = 3"])
    assert "train has no parameter 'batchsize'; did you mean 'batch_size'?" in message
    message = message_of(bindings=["ASRModel.what_sise = 3"])
    assert "ASRModel has no parameter 'what_sise'; did you mean 'what_size'?" in message
    message = message_of(bindings=["TightWindows.strenght = 3"])
    assert "TightWindows has no parameter 'strenght'; did you mean 'strength'?" in message


def test_errors_name_the_line_of_the_file(tmp_path):
    path = tmp_path / "mine.gin"
    path.write_text("train.batch_size = 3\ntrain.nonsense_at_all = 4\n")
    assert f"({path}, line 2)" in message_of([str(path)])


@pytest.mark.parametrize("text", ["train.batch_size =", "hello world", "train.batch_size = [1, "])
def test_what_is_not_gin_ends_in_one_line(text):
    assert "is not valid gin" in message_of(bindings=[text])


def test_a_macro_without_a_value_is_named():
    assert message_of(["models/asr.gin"]) == (
        "AggregateCount.counts uses %COUNTS, which no file or binding sets: state how many objects an image may hold, "
        'as by --gin_bindings="COUNTS = (1, 3)" or a scenes/*.gin file.'
    )
    assert message_of(["models/asr.gin"], ["COUNTS = (2,)"]) == (
        "ASRModel.constraints uses %RULES, which no file or binding sets (a scenes/*.gin file sets it)."
    )


@pytest.mark.parametrize("name", ["nowhere.gin", "folder"])
def test_a_missing_include_is_named(tmp_path, name):
    (tmp_path / "folder").mkdir()
    path = tmp_path / "mine.gin"
    path.write_text(f"include '{name}'\n")
    message = message_of([str(path)])
    assert message.startswith(f"included gin file {name!r} is in none of ['{tmp_path}', '', ")
    assert message.endswith(f"; give a path from one of these ({path}, line 1)")


def test_a_folder_is_no_gin_file(tmp_path):
    assert message_of([str(tmp_path)]) == f"gin file {str(tmp_path)!r} is a folder; give a file in it."


def test_an_unreadable_file_is_named(tmp_path, monkeypatch):
    (tmp_path / "mine.gin").write_text("")

    def refuse(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(pathlib.Path, "read_bytes", refuse)
    path = tmp_path / "mine.gin"
    assert message_of([str(path)]) == f"gin file {path} cannot be read: Permission denied."


@pytest.mark.parametrize(
    ("encoding", "place", "name"),
    [
        ("latin-1", ", see line 2", "LATIN1"),
        ("utf-16", ", but looks like UTF-16", "UTF-16"),
        ("utf-16-le", ", but looks like UTF-16", "UTF-16"),
    ],
)
def test_a_file_in_another_encoding_is_told_with_the_cure(tmp_path, encoding, place, name):
    path = tmp_path / "mine.gin"
    path.write_bytes("# first\n# dé\ntrain.batch_size = 3\n".encode(encoding))
    cure = f"save it as UTF-8, as `iconv -f {name} -t UTF-8 OLD > NEW` does"
    message = f"gin file {path} isn't text in UTF-8{place}: {cure}"
    assert message_of([str(path)]) == f"{message}."
    (tmp_path / "top.gin").write_text("\ninclude 'mine.gin'\n")
    assert message_of([str(tmp_path / "top.gin")]) == f"{message} ({tmp_path}/top.gin, line 2)."


def test_the_mark_of_utf8_is_read_over(tmp_path):
    (tmp_path / "mine.gin").write_bytes("# dé\ntrain.batch_size = 3\n".encode("utf-8-sig"))
    configuration.parse([str(tmp_path / "mine.gin")])
    assert gin.query_parameter("train.batch_size") == 3


def test_files_that_include_each_other_in_a_circle_are_told(tmp_path):
    for name, included in (("top", "a"), ("a", "b"), ("b", "a"), ("own", "own")):
        (tmp_path / f"{name}.gin").write_text(f"include '{included}.gin'\n")
    a, b, own = (tmp_path / f"{name}.gin" for name in ("a", "b", "own"))
    circle = "gin files include each other in a circle: "
    assert message_of([str(tmp_path / "top.gin")]).startswith(f"{circle}{a} includes {b} includes {a}; ")
    assert message_of([str(own)]).startswith(f"{circle}{own} includes {own}; ")
    for name, included in (("top", ("a", "b")), ("a", ("b",)), ("b", ())):
        (tmp_path / f"{name}.gin").write_text("".join(f"include '{file}.gin'\n" for file in included))
    configuration.parse([str(tmp_path / "top.gin")])  # b twice, but in no circle


def test_what_is_not_gin_is_found_in_the_file_that_holds_it(tmp_path):
    (tmp_path / "top.gin").write_text("include 'inner.gin'\n")
    inner = tmp_path / "inner.gin"
    inner.write_text("train.batch_size = 3\ntrain.num_steps =\n")
    assert message_of([str(tmp_path / "top.gin")]).startswith(f"line 2 of {inner} is not valid gin: ")
    inner.write_text("train.batch_size = [3,\n")
    assert message_of([str(tmp_path / "top.gin")]).startswith(f"{inner} is not valid gin: EOF in multi-line statement")


@pytest.mark.parametrize(
    ("binding", "message"),
    [
        ("train.peak_learning_rate = 1e999", "train.peak_learning_rate must be finite, got inf."),
        ("own/train.num_steps = -1e999", "own/train.num_steps must be finite, got -inf."),
        ("SIDES_PX = (10, 1e999)", "SIDES_PX must be finite, got (10, inf)."),
        ("X = {'a': [1e999]}", "X must be finite, got {'a': [inf]}."),
    ],
)
def test_numbers_are_finite(binding, message):
    assert message_of(bindings=[binding]).startswith(message)


def test_includes_are_found_beside_the_file_and_in_the_package(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    includes = "include 'beside.gin'\ninclude 'models/air.gin'\n"
    (tmp_path / "a" / "mine.gin").write_text(includes + "RULES = []\nCOUNTS = (1,)\n")
    (tmp_path / "a" / "beside.gin").write_text("train.batch_size = 3\n")
    monkeypatch.chdir(tmp_path)
    configuration.parse(["a/mine.gin"])
    assert gin.query_parameter("train.batch_size") == 3
    assert gin.query_parameter("ASRModel.estimator") == "enumerate"


def test_an_included_file_finds_what_lies_beside_itself_first(tmp_path, monkeypatch):
    folders = [tmp_path / name for name in ("top/sub", "top", "here", "registered")]
    for number, folder in enumerate(folders, 1):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "leaf.gin").write_text(f"train.batch_size = {number}\n")
    (tmp_path / "top" / "mine.gin").write_text("include 'sub/mid.gin'\n")
    (tmp_path / "top" / "sub" / "mid.gin").write_text("import leaf_rules\ninclude 'leaf.gin'\n")
    (tmp_path / "top" / "sub" / "leaf_rules.py").write_text("")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(gin.config, "_LOCATION_PREFIXES", ["", str(tmp_path / "registered")])
    for number, folder in enumerate(folders, 1):
        configuration.parse([str(tmp_path / "top" / "mine.gin")])
        assert gin.query_parameter("train.batch_size") == number
        (folder / "leaf.gin").unlink()
    assert "included gin file 'leaf.gin' is in none of" in message_of([str(tmp_path / "top" / "mine.gin")])
    registered = gin.config._LOCATION_PREFIXES
    assert registered == ["", str(tmp_path / "registered")]  # as it was
    assert sys.modules.pop("leaf_rules")


def test_what_lies_beside_a_file_wins_over_the_current_folder_and_other_files(tmp_path, monkeypatch):
    for number, name in enumerate(("a", "b", "here"), 1):
        (tmp_path / name / "scenes").mkdir(parents=True)
        (tmp_path / name / "mine.gin").write_text("include 'rules.gin'\ninclude 'scenes/mnist_count13.gin'\n")
        (tmp_path / name / "rules.gin").write_text(f"train.batch_size = {number}\n")
        (tmp_path / name / "scenes" / "mnist_count13.gin").write_text(f"train.warmup_steps = {number}\n")
    monkeypatch.chdir(tmp_path / "here")
    for number, name in enumerate(("a", "b"), 1):
        configuration.parse([str(tmp_path / name / "mine.gin")])
        assert gin.query_parameter("train.batch_size") == number
        assert gin.query_parameter("train.warmup_steps") == number


def test_rules_that_nothing_uses_are_told():
    assert message_of(["scenes/mnist_count13.gin"]) == (
        "RULES is set, but nothing uses %RULES: add a model file, such as models/asr.gin."
    )
    configuration.parse(["models/vae.gin", "scenes/mnist_count13.gin"])  # which no rule can act on


def test_defaults_as_gin_writes_them():
    configuration.parse([])
    assert configuration.default_text("TightWindows.slack_px") == "2.0"
    assert configuration.default_text("train.batch_size") == "64"
    assert configuration.default_text("evaluate.output_dir") in (None, "None")
    for name in ("CountInSet.counts", "train.nothing", "nothing.at_all", "RULES"):
        assert configuration.default_text(name) is None


def test_later_files_and_then_bindings_win(tmp_path):
    for number in (1, 2):
        (tmp_path / f"{number}.gin").write_text(f"train.batch_size = {number}\ntrain.num_steps = {number}\n")
    configuration.parse([str(tmp_path / "1.gin"), str(tmp_path / "2.gin")], ["train.num_steps = 7"])
    assert gin.query_parameter("train.batch_size") == 2
    assert gin.query_parameter("train.num_steps") == 7


def test_a_required_value_without_a_binding_is_named():
    configuration.parse([])
    with pytest.raises(RuntimeError) as caught:
        gin.get_configurable("CountInSet")()
    assert configuration.one_line(caught.value).startswith("CountInSet.counts has no value")


def test_merged_config_holds_what_was_used_and_what_is_only_bound():
    configuration.parse(
        [],
        ["RULES = [@CountInSet()]", "CountInSet.counts = (1, 3)", "evaluate.rules = %RULES", "train.batch_size = 5"],
    )
    gin.get_configurable("CountInSet")()
    text = configuration.merged_config()
    settings = configuration.parse_settings(text)
    assert settings["CountInSet.counts"] == "(1, 3)"
    assert settings["CountInSet.strength"] == "None"  # a default, used
    assert settings["evaluate.rules"] == "%RULES"  # bound, not used
    assert settings["RULES"] == "[@CountInSet()]"
    configuration.parse([], [text])  # and it is gin
    assert gin.query_parameter("train.batch_size") == 5


def test_settings_with_continued_lines_are_read_whole():
    long = [f"a{i:03d}" for i in range(40)]
    configuration.parse([], [f"X = {long!r}"])
    assert configuration.parse_settings(gin.config_str())["X"] == repr(long)


def test_the_first_difference_is_told_in_one_phrase():
    assert configuration.first_difference({"a": "1", "b": "2"}, {"a": "1", "b": "2"}) is None
    assert configuration.first_difference({"a": "1", "b": "2"}, {"a": "1", "b": "3"}) == "b is 2 there and 3 now"
    assert configuration.first_difference({"a": "1"}, {}) == "a is 1 there and not set now"


def test_a_module_of_ones_own_may_lie_beside_the_file_and_is_found_again(tmp_path, monkeypatch):
    """Rules of one's own: `import my_rules` works from any folder, and so does the configuration saved from it."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "rules_beside_gin.py").write_text(
        "import gin\n@gin.register\ndef answer(value=1):\n    return value\n"
    )
    (folder / "mine.gin").write_text(
        "import rules_beside_gin\ntrain.batch_size = @answer()\nanswer.value = 42\n"
    )
    monkeypatch.chdir(tmp_path)
    configuration.parse([str(folder / "mine.gin")])
    assert configuration.imported_module_folders() == [str(folder)]
    saved = tmp_path / "config.gin"
    saved.write_text(configuration.merged_config())
    assert "import rules_beside_gin" in saved.read_text()
    sys.modules.pop("rules_beside_gin")
    assert str(folder) not in sys.path
    gin.config._REGISTRY.pop("rules_beside_gin.answer")  # as in a process of its own
    configuration.parse([str(saved)], module_folders=[str(folder)])
    assert gin.query_parameter("answer.value") == 42


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import not_there_at_all\n", "can't be imported: ModuleNotFoundError: No module named 'not_there_at_all'"),
        ("x = (\n", r"is not valid Python: .*broken_rules.py, line 1\)"),
        ("1 / 0\n", "can't be imported: ZeroDivisionError: division by zero"),
    ],
)
def test_a_module_that_cannot_be_imported_is_not_called_missing(tmp_path, text, message):
    (tmp_path / "broken_rules.py").write_text(text)
    (tmp_path / "mine.gin").write_text("import broken_rules\n")
    told = message_of([str(tmp_path / "mine.gin")])
    assert re.match(f"module broken_rules, which {tmp_path}/mine.gin imports, {message}", told), told
    (tmp_path / "other.gin").write_text("import package_that_is_missing.inner\n")
    assert "package_that_is_missing" in message_of([str(tmp_path / "other.gin")])


def test_a_runs_own_module_comes_before_one_of_that_name_elsewhere(tmp_path, monkeypatch):
    for name in ("run", "here"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "twice_there.py").write_text(f"PLACE = '{name}'\n")
    (tmp_path / "config.gin").write_text("import twice_there\n")
    monkeypatch.chdir(tmp_path / "here")
    configuration.parse([str(tmp_path / "config.gin")], module_folders=[str(tmp_path / "run")])
    assert sys.modules.pop("twice_there").PLACE == "run"


def test_quickstart_parses_from_the_folder_that_holds_it(monkeypatch):
    """Its includes name folders, which must not be taken for Python packages."""
    monkeypatch.chdir(configuration.gin_folder())
    configuration.parse(["quickstart.gin"])
    assert gin.query_parameter("data.name") == "multi_sprites/count13"
