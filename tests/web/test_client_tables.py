"""Tables of pandas, polars and Arrow in, and answers out in the same library, with order, index and types kept."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel

import obcd
from obcd.errors import InputError
from tests.unit.client.conftest import StandInDaemon, echo

pytestmark = pytest.mark.web

SCHEMA = {
    "type": "object",
    "properties": {
        "age": {"type": ["integer", "null"]}, "weight": {"type": "number"}, "smokes": {"type": "boolean"},
        "name": {"type": "string"}, "drugs": {"type": "array", "items": {"type": "string"}},
    },
}  # fmt: skip
ANSWERS = {
    "a": {"age": 54, "weight": 80, "smokes": True, "name": "Ann", "drugs": ["x"]},
    "b": {"age": None, "weight": 70.5, "smokes": False, "name": "Bob", "drugs": []},
    "c": None,
}


class Visit(BaseModel):
    age: int | None


@pytest.fixture(autouse=True)
def daemon(stand_in_daemon: StandInDaemon, monkeypatch: pytest.MonkeyPatch) -> StandInDaemon:
    """Return a daemon that works whenever somebody waits."""
    monkeypatch.setattr("obcd.client.jobs.time.sleep", lambda _: stand_in_daemon.work(stand_in_daemon.reply))
    return stand_in_daemon


def by_answers(line: dict[str, Any]) -> Any:
    return ANSWERS[line["prompt"]]


@pytest.fixture
def pandas() -> Any:
    return pytest.importorskip("pandas", reason="pandas is not installed: pip install 'obcd[test-web]'")


@pytest.fixture
def polars() -> Any:
    return pytest.importorskip("polars", reason="polars is not installed: pip install 'obcd[test-web]'")


@pytest.mark.filterwarnings("ignore::obcd.ObcdWarning")
def test_column_for_a_pandas_table_keeps_order_and_index(pandas: Any, daemon: StandInDaemon) -> None:
    df = pandas.DataFrame({"note": ["a", None, "c", "d"], "n": [1, 2, 3, 4]}, index=["w", "x", "y", "z"])
    shuffled = df.sample(frac=1, random_state=3)

    shuffled["summary"] = obcd.ask(shuffled, "{note} {n}")

    back = shuffled.loc[["w", "x", "y", "z"], "summary"]
    assert back.isna().tolist() == [False, True, False, False]
    assert back.dropna().tolist() == ["<a 1>", "<c 3>", "<d 4>"]
    assert str(back.dtype) == "string"
    assert daemon.sent == [f"{row.note} {row.n}" for row in shuffled.itertuples() if row.note and row.note == row.note]


@pytest.mark.filterwarnings("ignore::obcd.ObcdWarning")
def test_schema_gives_typed_columns_and_a_class_its_objects(pandas: Any, daemon: StandInDaemon) -> None:
    daemon.reply = by_answers
    df = pandas.DataFrame({"note": ["a", "b", "c"]}, index=[30, 20, 10])

    typed = obcd.ask(df, "{note}", schema=SCHEMA)
    assert {name: str(dtype) for name, dtype in typed.dtypes.items()} == {
        "age": "Int64", "weight": "Float64", "smokes": "boolean", "name": "string", "drugs": "object",
    }  # fmt: skip
    assert typed.index.tolist() == [30, 20, 10]
    assert typed["age"].isna().tolist() == [False, True, True]
    assert df.join(typed).loc[20, "weight"] == 70.5

    objects = obcd.ask(df, "{note}", schema=Visit)
    assert objects.tolist()[:2] == [Visit(age=54), Visit(age=None)]
    assert objects[10] is None


def test_table_without_rows_has_answers_of_the_same_types(pandas: Any, polars: Any, daemon: StandInDaemon) -> None:
    daemon.reply = by_answers
    df = pandas.DataFrame({"note": ["a", "b"]})
    full, none = (obcd.ask(frame, "{note}", schema=SCHEMA) for frame in (df, df[df.note == "z"]))

    assert len(none) == 0
    assert list(none) == list(full)
    scalars = ["age", "weight", "smokes", "name"]  # the type of a list is that of its values
    assert none.dtypes[scalars].to_dict() == full.dtypes[scalars].to_dict()
    assert str(obcd.ask(df.note[:0]).dtype) == "string"
    assert obcd.ask(polars.DataFrame({"note": []}), "{note}", schema=SCHEMA).schema["age"] == polars.Int64
    assert obcd.ask(polars.Series([], dtype=polars.String)).dtype == polars.String


def test_results_are_a_table_with_failures_that_are_found(pandas: Any, daemon: StandInDaemon) -> None:
    daemon.reply = lambda line: None if line["prompt"] == "b" else echo(line)
    df = pandas.DataFrame({"note": ["a", "b"], "ward": ["3b", "4"]}, index=[7, 8])

    found = obcd.submit(df, "{note}", keep=["ward"], key="visits").wait().to_pandas()

    assert list(found) == ["id", "ward", "response", "error", "model", "seconds", "prompt_tokens", "eval_tokens"]
    assert found.index.tolist() == [7, 8]
    assert found.loc[found["error"].notna(), "error"].to_dict() == {8: "server_error: it broke"}
    assert found.loc[7, ["ward", "response"]].tolist() == ["3b", "<a>"]
    assert len(obcd.attach("visits").to_pandas()) == 2


def test_values_of_pandas_are_written_as_json_holds_them(pandas: Any, daemon: StandInDaemon) -> None:
    numpy = pytest.importorskip("numpy")
    df = pandas.DataFrame({
        "day": pandas.to_datetime(["2026-11-22", None]), "x": [1.5, math.nan],
        "n": pandas.array([1, None], dtype="Int64"), "kind": pandas.Categorical(["u", None]),
        "v": [numpy.array([1, 2]), numpy.float32(2)],
    })  # fmt: skip

    obcd.ask(df, "{day?} {x?} {n?} {kind?} {v}")

    assert daemon.sent == ["2026-11-22T00:00:00 1.5 1 u [1, 2]", "    2.0"]
    with pytest.raises(InputError, match="two columns"):
        obcd.ask(pandas.DataFrame([[1, 2]], columns=["a", "a"]), "{a}")


@pytest.mark.filterwarnings("ignore::obcd.ObcdWarning")
def test_polars_tables_and_columns(polars: Any, daemon: StandInDaemon) -> None:
    daemon.reply = by_answers
    df = polars.DataFrame({"note": ["a", "b", "c"], "when": [datetime(2026, 11, 22, tzinfo=UTC)] * 3})

    typed = obcd.ask(df, "{note}", schema=SCHEMA)
    assert isinstance(typed, polars.DataFrame)
    assert typed.schema == polars.Schema({
        "age": polars.Int64, "weight": polars.Float64, "smokes": polars.Boolean, "name": polars.String,
        "drugs": polars.List(polars.String),
    })  # fmt: skip
    assert typed["age"].to_list() == [54, None, None]
    daemon.reply = echo
    assert obcd.ask(df["note"], "say {text}").to_list() == ["<say a>", "<say b>", "<say c>"]
    assert obcd.submit(df, "{note}", keep=["when"]).wait().to_polars().height == 3


@pytest.mark.filterwarnings("ignore::obcd.ObcdWarning")
def test_arrow_tables_batches_and_columns(daemon: StandInDaemon) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    daemon.reply = by_answers
    table = pyarrow.table({"note": ["a", "b", "c"], "other": [1, 2, 3]})

    typed = obcd.ask(table, "{note}", schema=SCHEMA)
    assert typed.schema.field("age").type == pyarrow.int64()
    assert typed["age"].to_pylist() == [54, None, None]
    daemon.reply = echo
    for rows in (table.to_batches()[0], table.to_reader()):
        answers = obcd.ask(rows, "<{note}>", key=f"arrow{len(daemon.sent)}")
        assert answers.to_pylist() == ["<<a>>", "<<b>>", "<<c>>"]
    assert obcd.ask(table["note"], key="column").to_pylist() == ["<a>", "<b>", "<c>"]
    assert obcd.submit(table, "{note}!").wait().to_arrow()["response"].to_pylist() == ["<a!>", "<b!>", "<c!>"]


def test_integer_beyond_64_bits_is_kept(pandas: Any, polars: Any, daemon: StandInDaemon) -> None:
    daemon.reply = lambda _: {"age": 10**30}
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}}

    assert obcd.ask(pandas.DataFrame({"note": ["a"]}), "{note}", schema=schema)["age"].tolist() == [10**30]
    assert obcd.ask(polars.DataFrame({"note": ["a"]}), "{note}", schema=schema)["age"].to_list() == [10**30]


def test_data_set_of_hugging_face_is_an_iterable_of_rows(daemon: StandInDaemon) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed: pip install 'obcd[test-web]'")

    assert obcd.ask(datasets.Dataset.from_dict({"note": ["a", "b"]}), "<{note}>") == ["<<a>>", "<<b>>"]
