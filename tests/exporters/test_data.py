"""Reading labelled texts: what is read, and the sentence that each kind of bad input gets."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from exporters.data import Dataset, load_dataset, load_texts
from mobile_llm.errors import InvalidInput

Write = Callable[[str, str | bytes], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file and gives its path."""

    def write(name: str, content: str | bytes) -> str:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


def test_csv_keeps_commas_quotes_newlines_and_emoji(write: Write) -> None:
    path = write("a.csv", '\ufefftext,label\n"so, ""good""\nindeed",1\n很好 🙂,0\n\n')
    data = load_dataset(path)
    assert data == Dataset(('so, "good"\nindeed', "很好 🙂"), (1, 0), ("0", "1"), path)


def test_jsonl_and_named_columns(write: Write) -> None:
    path = write("a.jsonl", '{"review": "fine", "mood": "good", "id": 3}\n\n{"review": "bad", "mood": "awful"}\n')
    data = load_dataset(path, text_column="review", label_column="mood")
    assert (data.texts, data.labels, data.label_names) == (("fine", "bad"), (1, 0), ("awful", "good"))
    assert load_texts(path, text_column="review") == ("fine", "bad")


def test_integer_labels_are_ordered_as_numbers(write: Write) -> None:
    path = write("a.jsonl", "".join(f'{{"text": "t", "label": {n}}}\n' for n in (10, 2, 0)))
    assert load_dataset(path).label_names == ("0", "2", "10")


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.csv", "", "a.csv has no rows; it needs"),
        ("a.csv", "text,label\n", "a.csv has no rows; it needs"),
        (
            "a.csv",
            "review,label\nx,1\n",
            "a.csv row 1 (line 2) has no column 'text' (found: review, label); name",
        ),
        (
            "a.csv",
            "text,stars\nx,1\n",
            "has no column 'label' (found: text, stars); name the right one with --label",
        ),
        ("a.csv", 'text,label\n"a\nb",1\n  ,0\n', "a.csv row 2 (line 4) has no text in 'text'; write one"),
        ("a.csv", "text,label\nx,\n", "a.csv row 1 (line 2) has '' for a label; use a string or an integer"),
        (
            "a.csv",
            "text,label\nx,1\na, b,0\n",
            "a.csv row 2 (line 3) has 3 fields where the header has 2; put quotes",
        ),
        (
            "a.csv",
            b"text,label\nx,1\ncaf\xe9,0\n\xff,0\n",
            "a.csv row 2 (line 3) is not UTF-8; save the file",
        ),
        ("a.csv", 'text,label\n"x,1\ny,0\n', "is not proper CSV (unexpected end of data); correct it"),
        (
            "a.csv",
            "text,label\n" + "x" * 200_000 + ",1\n",
            "line 2 is not proper CSV (field larger than field limit",
        ),
        (
            "a.jsonl",
            '{"text": "x", "label": 1}\n{"text": \n',
            "a.jsonl row 2 (line 2) is not valid JSON (Expecting value",
        ),
        ("a.jsonl", '["x", 1]\n', "a.jsonl row 1 (line 1) is not a JSON object; write"),
        ("a.jsonl", '{"text": "x"}\n', "a.jsonl row 1 (line 1) has no column 'label' (found: text)"),
        ("a.jsonl", '{"text": "x", "label": 1.5}\n', "has 1.5 for a label; use a string or an integer"),
        ("a.jsonl", '{"text": "x", "label": true}\n', "has True for a label; use a string or an integer"),
        ("a.jsonl", '{"text": 7, "label": 1}\n', "a.jsonl row 1 (line 1) has no text in 'text'"),
        ("a.jsonl", '{"text": "\\ud800", "label": 1}\n', "a.jsonl row 1 (line 1) is not UTF-8"),
        ("a.tsv", "text,label\nx,1\n", "a.tsv is none of .csv, .jsonl"),
    ],
)
def test_bad_files_get_one_sentence(write: Write, name: str, content: str | bytes, sentence: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        load_dataset(write(name, content))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"gone\.csv is not a file; pass a \.csv or \.jsonl file"):
        load_dataset(str(tmp_path / "gone.csv"))


def _data(*labels: str, names: tuple[str, ...]) -> Dataset:
    return Dataset(tuple(f"text {i}" for i in range(len(labels))), tuple(map(names.index, labels)), names, "data.csv")


def test_labels_follow_the_order_of_a_model() -> None:
    data = _data("bad", "good", "bad", names=("bad", "good"))
    assert data.with_label_names(("good", "neutral", "bad")).labels == (2, 0, 2)


def test_integers_stand_for_positions_where_a_model_has_words() -> None:
    data = _data("0", "1", "1", names=("0", "1"))
    assert data.with_label_names(("negative", "positive")).label_names == ("negative", "positive")
    assert data.with_label_names(("1", "0")).labels == (1, 0, 0)


def test_an_unseen_label_is_named_with_its_row() -> None:
    data = _data("bad", "meh", names=("bad", "meh"))
    with pytest.raises(InvalidInput, match=r"data\.csv row 2 has the label 'meh', which is not among .*bad, good"):
        data.with_label_names(("bad", "good"))


def test_labels_can_be_renamed_and_all_must_be() -> None:
    data = _data("0", "1", names=("0", "1"))
    assert data.renamed({"0": "negative", "1": "positive"}).label_names == ("negative", "positive")
    for names in ({"0": "negative"}, {"0": "same", "1": "same"}, {"0": "a", "1": "b", "2": "c"}):
        with pytest.raises(InvalidInput, match=r"the labels of data\.csv are 0, 1; give each"):
            data.renamed(names)


def test_a_split_is_stratified_seeded_and_loses_nothing() -> None:
    data = _data(*["a"] * 90, *["b"] * 10, names=("a", "b"))
    kept, held_out = data.split(0.1, seed=3)
    assert (held_out.labels.count(0), held_out.labels.count(1)) == (9, 1)
    assert sorted(kept.texts + held_out.texts) == sorted(data.texts)
    assert data.split(0.1, seed=3) == (kept, held_out)
    assert data.split(0.1, seed=4) != (kept, held_out)


def test_a_label_with_one_row_cannot_be_held_out() -> None:
    with pytest.raises(InvalidInput, match="single row with the label 'b'"):
        _data("a", "a", "b", names=("a", "b")).split(0.1, seed=0)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An importable package with ten rows, which must not be imported, and a secret beside it."""
    folder = tmp_path / "lib" / "some_reviews"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise SystemExit('imported')")
    rows = "".join(f"text {i},{i % 2},{'web' if i < 6 else 'a&b'}\n" for i in range(10))
    (folder / "all.csv").write_text("text,label,site\n" + rows)
    (tmp_path / "lib" / "secret.csv").write_text("text,label\nx,1\n")
    (folder / "link.csv").symlink_to(tmp_path / "lib" / "secret.csv")
    monkeypatch.syspath_prepend(tmp_path / "lib")
    return "package:some_reviews/all.csv"


def test_a_package_is_read_without_running_it(package: str) -> None:
    assert load_dataset(package).texts == tuple(f"text {i}" for i in range(10))


def test_filters_then_shuffle_then_rows(package: str) -> None:
    web = load_dataset(f"{package}?where=site:web")
    assert web.texts == tuple(f"text {i}" for i in range(6))
    assert load_texts(f"{package}?where=site:web&where=label:1") == ("text 1", "text 3", "text 5")
    assert load_texts(f"{package}?where=site:a%26b&rows=0:1") == ("text 6",)
    first = load_texts(f"{package}?rows=0:4&shuffle=1&where=site:web")
    rest = load_texts(f"{package}?where=site:web&shuffle=1&rows=4:6")
    assert sorted(first + rest) == sorted(web.texts)


def test_a_shuffle_is_the_same_everywhere(package: str) -> None:
    assert [int(text[5:]) for text in load_texts(f"{package}?shuffle=1")] == [9, 8, 0, 3, 5, 4, 6, 2, 7, 1]


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("package:not_there_at_all/a.csv", "the package 'not_there_at_all' is not installed; pip install it"),
        ("package:some-reviews/a.csv", "is not package:NAME/PATH, NAME as it is imported"),
        ("package:some_reviews", "is not package:NAME/PATH"),
        ("package:some_reviews/gone.csv", "the package some_reviews has no file gone.csv; name"),
        ("package:some_reviews/../secret.csv", "leaves the folder of the package some_reviews"),
        ("package:some_reviews//etc/passwd", "leaves the folder of the package some_reviews"),
        ("package:some_reviews/link.csv", "leaves the folder of the package some_reviews"),
        ("package:some_reviews/all.csv?where=site:tv", "no row has 'site' equal to 'tv' (found: a&b, web)"),
        ("package:some_reviews/all.csv?where=color:red", "(found: none: there is no such column)"),
        (
            "package:some_reviews/all.csv?rows=5:11",
            "rows=5:11 in package:some_reviews/all.csv?rows=5:11 is not within",
        ),
        ("package:some_reviews/all.csv?rows=3:3", "is not within 0:10; correct it"),
        (
            "package:some_reviews/all.csv?take=3",
            "'take=3' in package:some_reviews/all.csv?take=3 is not where=",
        ),
        ("package:some_reviews/all.csv?rows=0:2&rows=3:4", "'rows=3:4' in"),
    ],
)
def test_bad_package_sources_get_one_sentence(package: str, source: str, sentence: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        load_dataset(source)
    assert sentence in str(caught.value)


def test_reading_data_imports_nothing_heavy() -> None:
    code = "import sys, exporters.data; print({'torch', 'transformers', 'numpy', 'rich'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
