"""The built-in vocabulary is complete, and every mistake in a file is reported with its line."""

from pathlib import Path

import pytest

from av2tsam_cli.avsbench_format import AVSS_CLASSES, S4_CATEGORIES
from av2tsam_cli.errors import MediaError, UsageError
from av2tsam_cli.synth.scenes import NAMES
from av2tsam_cli.words.vocabulary import Vocabulary, load_vocabulary, read_vocabulary

BUILTIN = Path(__file__).parents[2] / "av2tsam_cli" / "words" / "vocabulary.toml"

DOG = """\
[[source]]
name = "dog"
sounds = ["a dog barking"]
"""


def write(folder: Path, text: str, name: str = "mine.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def problems(folder: Path, text: str, name: str = "mine.toml") -> list[tuple[int | None, str]]:
    _, found = read_vocabulary(write(folder, text, name))
    return [(problem.line, problem.text) for problem in found]


@pytest.fixture(scope="module")
def builtin() -> Vocabulary:
    return load_vocabulary()


def test_the_builtin_vocabulary_passes_its_own_checks() -> None:
    vocabulary, found = read_vocabulary(BUILTIN)
    assert found == []
    assert vocabulary == load_vocabulary()


def test_the_builtin_vocabulary_covers_avsbench(builtin: Vocabulary) -> None:
    assert len(builtin.sources) >= 150
    assert sorted(source.s4 for source in builtin.sources if source.s4) == sorted(S4_CATEGORIES)
    assert {source.avss for source in builtin.sources} - {""} == set(AVSS_CLASSES[1:])
    assert all(source.avss for source in builtin.sources if source.s4)
    assert (len(S4_CATEGORIES), len(AVSS_CLASSES), AVSS_CLASSES[18]) == (23, 71, "donkey")


def test_the_builtin_vocabulary_knows_what_nano_draws(builtin: Vocabulary) -> None:
    for name in NAMES:
        assert builtin.find(name).sounds


def test_the_builtin_vocabulary_has_background_sounds(builtin: Vocabulary) -> None:
    names = {background.name for background in builtin.backgrounds}
    assert names >= {"silence", "noise", "wind", "rain", "background music", "room tone"}


def test_entries_have_the_values_of_the_file(builtin: Vocabulary) -> None:
    dog = builtin.find("dog")
    assert "a dog barking" in dog.sounds
    assert (dog.looks, dog.all_instances, dog.avss, dog.s4) == ("dog", False, "dog", "dog_barking")
    assert builtin.find("crowd").all_instances
    assert builtin.find("tank").looks == "military tank"


@pytest.mark.parametrize("name", ["puppy", "PUPPY", " dog ", "Dog"])
def test_a_source_is_found_by_name_and_synonym(name: str, builtin: Vocabulary) -> None:
    assert builtin.find(name).name == "dog"


def test_hyphens_and_underscores_do_not_matter(builtin: Vocabulary) -> None:
    assert builtin.find("acoustic_guitar") is builtin.find("Acoustic-Guitar")


def test_a_selection_has_the_given_sources_once_and_all_backgrounds(builtin: Vocabulary) -> None:
    chosen = builtin.select(["fiddle", "dog", "puppy", "violin"])
    assert [source.name for source in chosen.sources] == ["violin", "dog"]
    assert chosen.backgrounds == builtin.backgrounds


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        (["dog", "violn"], "unknown name 'violn'; did you mean 'violin'?"),
        (["xyzzy"], "unknown name 'xyzzy'; see 'av2tsam vocabulary show'"),
        (["rain"], "'rain' is a background sound"),
        ([], "no names are given"),
    ],
)
def test_a_selection_reports_unknown_names(
    names: list[str], complaint: str, builtin: Vocabulary
) -> None:
    with pytest.raises(UsageError, match=complaint.replace("?", r"\?")):
        builtin.select(names)


def test_a_text_file_has_a_name_per_line(tmp_path: Path, builtin: Vocabulary) -> None:
    text = "# my list\ndog\n\nkazoo  # a toy\ntoy  piano = a toy piano;a  music toy \r\n"
    dog, kazoo, piano = load_vocabulary(write(tmp_path, text, "mine.txt")).sources
    assert (dog.sounds, dog.avss) == (builtin.find("dog").sounds, "dog")
    assert (kazoo.sounds, kazoo.looks, kazoo.avss) == (("kazoo",), "kazoo", "")
    assert (piano.name, piano.sounds) == ("toy piano", ("a toy piano", "a music toy"))


def test_what_an_entry_leaves_out_is_that_of_the_builtin_one(
    tmp_path: Path, builtin: Vocabulary
) -> None:
    text = '[[source]]\nname = "puppy"\nlooks = "small dog"\n[[background]]\nname = "rain"\n'
    vocabulary = load_vocabulary(write(tmp_path, text))
    (puppy,), (rain,) = vocabulary.sources, vocabulary.backgrounds
    assert (puppy.name, puppy.looks, puppy.sounds) == (
        "puppy",
        "small dog",
        builtin.find("dog").sounds,
    )
    assert puppy.synonyms == ()
    assert rain.sounds == ("rain falling",)


def test_the_builtin_backgrounds_are_used_unless_the_file_has_some(
    tmp_path: Path, builtin: Vocabulary
) -> None:
    assert load_vocabulary(write(tmp_path, DOG)).backgrounds == builtin.backgrounds
    own = DOG + '[[background]]\nname = "hum"\nsounds = ["an engine humming"]\n'
    assert [b.name for b in load_vocabulary(write(tmp_path, own)).backgrounds] == ["hum"]


def test_a_background_that_the_file_has_as_a_source_is_left_out(tmp_path: Path) -> None:
    vocabulary = load_vocabulary(write(tmp_path, "rain\nstorm = thunder\n", "mine.txt"))
    names = {background.name for background in vocabulary.backgrounds}
    assert "wind" in names
    assert not names & {"rain", "thunder"}


@pytest.mark.parametrize(
    ("line", "text", "complaint"),
    [
        (3, '[[source]]\nname = "dog"\nsounds "x"\n', "not valid TOML (Expected '=' after a key"),
        (4, '[[source]]\nname = "dog"\n\nsounds = ["a", \n', "not valid TOML"),
        (3, '[[source]]\nname = "dog"\nname = "cat"\n', "not valid TOML (Cannot overwrite a value"),
        (1, '[source]\nname = "dog"\n', "start each entry with [[source]]"),
        (1, 'name = "dog"\n', "'name' belongs to no entry; write [[source]]"),
        (5, DOG + '\n[[sorce]]\nname = "cat"\n', "unknown entry 'sorce'; did you mean 'source'?"),
        (5, "\n" + DOG + 'sound = ["x"]\n', "unknown key 'sound'; did you mean 'sounds'?"),
        (4, DOG + "[[source]]\nsounds = ['a cat meowing']\n", "the entry has no name"),
        (4, DOG + 'looks = ""\n', "'looks' must be a text"),
        (4, DOG + 'all_instances = "yes"\n', "'all_instances' must be true or false"),
        (4, DOG + 'synonyms = "puppy"\n', "'synonyms' must be a list of names"),
        (3, '[[source]]\nname = "dog"\nsounds = []\n', "'sounds' must be a list of phrases"),
        (3, '[[source]]\nname = "dog"\nsounds = [1]\n', "'sounds' must be a list of phrases"),
        (2, "[[source]]\nname = 3\n", "'name' must be a text"),
        (2, '[[source]]\nname = "cat/dog"\n', "the name 'cat/dog' contains '/'"),
        (4, DOG + 'avss = "dogs"\n', "unknown avss value 'dogs'; did you mean 'dog'?"),
        (4, DOG + 'avss = "background"\n', "unknown avss value 'background'"),
        (4, DOG + 's4 = "dog_bark"\n', "did you mean 'dog_barking'?"),
        (
            5,
            DOG + '[[source]]\nname = "Dog"\nsounds = ["x"]\n',
            "'Dog' is already used by 'dog' (line 1)",
        ),
        (
            6,
            DOG + '[[source]]\nname = "wolf"\nsynonyms = ["dog"]\n',
            "'dog' is already used by 'dog'",
        ),
        (
            6,
            DOG + '[[source]]\nname = "wolf"\nsounds = ["a dog barking"]\n',
            "is already used by 'dog'",
        ),
        (
            5,
            DOG + '[[background]]\nname = "dog"\nsounds = ["x"]\n',
            "'dog' is already used by 'dog'",
        ),
        (6, DOG + '[[background]]\nname = "hum"\nlooks = "x"\n', "unknown key 'looks'"),
        (1, 'source = [{name = "emu"}, {name = "emu"}]\n', "already used by 'emu' (line 1)"),
        (1, 'source = [{name = "dog", sund = ["x"]}]\n', "unknown key 'sund'"),
    ],
)
def test_mistakes_in_toml_are_reported_with_their_line(
    line: int, text: str, complaint: str, tmp_path: Path
) -> None:
    ((found_line, found),) = problems(tmp_path, text)
    assert complaint in found
    assert found_line == line


@pytest.mark.parametrize(
    ("line", "text", "complaint"),
    [
        (2, "dog\ndog\n", "'dog' is already used by 'dog' (line 1)"),
        (3, "dog\ncat\npuppy\n", "'a dog barking' is already used by 'dog' (line 1)"),
        (1, "= a dog barking\n", "'name' must be a text"),
        (2, "cat\ndog =\n", "'sounds' must be a list of phrases"),
        (1, "[[source]]\n", "a TOML file needs the ending .toml"),
        (None, "# nothing yet\n", "contains no source; add names, one per line"),
    ],
)
def test_mistakes_in_text_are_reported_with_their_line(
    line: int | None, text: str, complaint: str, tmp_path: Path
) -> None:
    ((found_line, found),) = problems(tmp_path, text, "mine.txt")
    assert complaint in found
    assert found_line == line


def test_an_empty_toml_file_contains_no_source(tmp_path: Path) -> None:
    assert problems(tmp_path, "")[0][1].startswith("contains no source; add an entry")
    assert "contains no source" in problems(tmp_path, '[[background]]\nname = "rain"\n')[0][1]


def test_all_problems_are_listed_in_the_order_of_the_lines(tmp_path: Path) -> None:
    text = '[[source]]\nname = "dog"\nsound = ["x"]\n\n[[source]]\nname = ""\nlooks = 1\n' + DOG
    assert [line for line, _ in problems(tmp_path, text + "avss = 'wlf'\n")] == [3, 6, 7, 11]


def test_loading_reports_the_first_problem_and_how_to_see_the_others(tmp_path: Path) -> None:
    path = write(tmp_path, "dog\ndog\ndog\n", "mine.txt")
    with pytest.raises(MediaError) as caught:
        load_vocabulary(path)
    assert str(caught.value) == (
        f"{path}, line 2: 'dog' is already used by 'dog' (line 1); keep it in one of the two "
        f"(1 more: av2tsam vocabulary check {path})"
    )


def test_files_that_cannot_be_read_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"gone\.toml: file not found"):
        load_vocabulary(tmp_path / "gone.toml")
    with pytest.raises(MediaError, match="cannot be read"):
        load_vocabulary(tmp_path)
    latin = tmp_path / "latin.txt"
    latin.write_bytes("dog\nfl\xfcte\n".encode("latin-1"))
    with pytest.raises(MediaError, match=r"latin\.txt, line 2: not UTF-8"):
        load_vocabulary(latin)
    bom = tmp_path / "bom.txt"
    bom.write_bytes(b"\xef\xbb\xbfdog\r\n")
    assert load_vocabulary(bom).sources[0].name == "dog"
