"""The configuration: the seed's file runs unchanged; every fault is one clear sentence with its place."""

from __future__ import annotations

import grp
import json
import os
import pwd
import tomllib
from pathlib import Path
from unittest.mock import Mock

import pytest

from obcd.config import loading
from obcd.config.endpoints import Endpoint
from obcd.config.loading import MAX_FILE_BYTES, find_configuration, find_root, load_settings, read_document
from obcd.config.settings import Settings
from obcd.config.writing import with_endpoints
from obcd.core.request.records import JobSettings
from obcd.errors import ConfigurationError
from tests.golden.wording import wording

EXAMPLES = Path(__file__).parents[3] / "etc" / "examples"

#: A file of ollama-batch-cluster, as its readers write it.
SEED = '''
model = "llama3.2"
system_message = """You are a pirate. You answer
every question in two sentences."""

[ollama_instances]
"server1:11432" = 0
"server1:11433" = 1
"server2:11432" = 0
'''


def write(folder: Path, text: str | bytes, name: str = "obcd.toml") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def fault(folder: Path, text: str | bytes) -> str:
    """Return what is said of a wrong configuration, without the file's name."""
    path = write(folder, text)
    with pytest.raises(ConfigurationError) as caught:
        load_settings(path)
    assert str(path) in str(caught.value)
    return str(caught.value).replace(f"the configuration {path} ", "").replace(str(folder), "DIR")


class TestSeed:
    def test_its_file_runs_unchanged(self, tmp_path: Path) -> None:
        settings = load_settings(write(tmp_path, SEED))

        assert [(item.name, item.gpu) for item in settings.endpoints()] == [
            ("server1:11432", 0),
            ("server1:11433", 1),
            ("server2:11432", 0),
        ]
        assert settings.endpoints()[0] == Endpoint(
            name="server1:11432", scheme="http", host="server1", port=11432, gpu=0, slots=None
        )
        job = settings.job_settings()
        assert job.model == "llama3.2"
        assert job.system == "You are a pirate. You answer\nevery question in two sentences."

    def test_nothing_at_all_is_a_configuration_too(self, tmp_path: Path) -> None:
        for settings in (load_settings(None), load_settings(write(tmp_path, ""))):
            assert [item.url for item in settings.endpoints()] == ["http://127.0.0.1:11434"]
            assert settings.job_settings() == JobSettings(model="llama3.2")

    def test_byte_order_mark_of_an_editor_does_no_harm(self, tmp_path: Path) -> None:
        path = write(tmp_path, b"\xef\xbb\xbf" + SEED.encode())

        assert load_settings(path).model == "llama3.2"
        assert 'model = "llama3.2"' in with_endpoints(path, {"a:1": {"gpu": 0}})

    def test_example_loads(self) -> None:
        settings = load_settings(EXAMPLES / "obcd.toml")

        schema = json.loads((EXAMPLES / "visit.schema.json").read_text("utf-8"))
        assert settings.job_settings("clinical").format == schema
        assert settings.job_settings().format is None


#: {what: (configuration, sentence)}
FAULTS = {
    "a template without a field": (
        "template = 'Summarise'",
        "is wrong at template: it names no field, so that all prompts would be the same: write {note} for the field",
    ),
    "a template that is malformed": (
        "[profiles.a]\ntemplate = 'Summarise {note'",
        "is wrong at profiles.a.template: a single `{` is in it, at character 11: write it twice",
    ),
    "a template with JSON in braces": (  # R41
        """template = 'Give {"a": 1} for {x}'""",
        "is wrong at template: the braces at character 6 hold JSON, no field's name: a brace is written {{, its end }}",
    ),
    "a kind of file that is none": (
        "accept = ['xlsx']",
        "is wrong at accept.0: must be 'jsonl', 'json', 'csv', 'tsv', 'parquet', 'gz', 'xz' or 'zst'",
    ),
    "an unknown key": (
        "modle = 'x'",
        "is wrong at modle: unknown key; did you mean `model`? `obcd check --keys` lists the keys there are",
    ),
    "endpoints by another name": (
        'endpoints = ["gpu1:11434"]',
        'is wrong at endpoints: unknown key; write [ollama_instances], with "host:port" = 0; `obcd check',
    ),
    "an option of Ollama at the top": (
        "temperature = 0",
        "is wrong at temperature: unknown key; write options = {temperature = …}; `obcd check",
    ),
    "the system message by another name": (
        "[profiles.a]\nsystem = 'x'",
        "is wrong at profiles.a.system: unknown key; write system_message; `obcd check",
    ),
    "an unknown table": ("[request]", "is wrong at request: unknown key; did you mean `requests`? `obcd check --keys`"),
    "an unknown key in a table": (
        "[requests]\nnumctx = 1",
        "is wrong at requests.numctx: unknown key; did you mean `num_ctx`?",
    ),
    "a key of another table": (
        "num_ctx = 4096",
        "is wrong at num_ctx: unknown key; it belongs into [requests] or [profiles.NAME]",
    ),
    "a key of the top level": (
        '[spool]\nsystem_message = "x"',
        "is wrong at spool.system_message: unknown key; it belongs into the top level or [",
    ),
    "an unknown key of an endpoint": (
        '[ollama_instances]\n"a:1" = {gpu = 0, slot = 4}',
        'is wrong at ollama_instances."a:1".slot: unknown key; did you mean `slots`?',
    ),
    "a key of ours inside": ("source = '/etc/passwd'", "is wrong at source: unknown key; did you mean `socket`"),
    "another key of ours inside": ("[schemas.x]\na = 1", "is wrong at schemas: unknown key; did you mean `schema`?"),
    "a number for a text": ("model = 3", "is wrong at model: must be a string, not 3"),
    "an empty model": ("model = ''", "is wrong at model: string should have at least 1 character, not ''"),
    "a text for a number": (
        "[requests]\nnum_ctx = '4096'",
        "is wrong at requests.num_ctx: must be \"auto\" or a number from 16 to 16777216, not '4096'",
    ),
    "a table for a text": ("[model]\na = 1", "is wrong at model: must be a string"),
    "a text for a table": ("requests = 'x'", "is wrong at requests: must be a table, not 'x'"),
    "a number too small": (
        "[requests]\nnum_ctx = 0",
        'is wrong at requests.num_ctx: must be "auto" or a number from 16 to 16777216, not 0',
    ),
    "no attempts": (
        "[requests]\nattempts = 0",
        "is wrong at requests.attempts: must be at least 1, not 0",
    ),
    "a limit of nothing": (
        "[requests]\nrequest_timeout_seconds = 0",
        "is wrong at requests.request_timeout_seconds: must be more than 0, not 0",
    ),
    "a limit without end": ("[requests]\ndrain_seconds = inf", "is wrong at requests.drain_seconds: must be"),
    "a limit that is no number": ("[spool]\nsettle_seconds = nan", "is wrong at spool.settle_seconds: must be"),
    "an unknown option": (
        "[requests]\noptions = {temprature = 0}",
        "is wrong at requests.options: `options.temprature` is not an option of Ollama",
    ),
    "an option of a wrong type": (
        "[requests]\noptions = {temperature = 'hot'}",
        "is wrong at requests.options: `options.temperature` must be a number, not a string",
    ),
    "a date as an option": (
        "[requests]\noptions = {seed = 2026-11-22}",
        "is wrong at requests.options: `options.seed` must be a whole number, not a date",
    ),
    "a limit among the options": (
        "[requests]\noptions = {num_ctx = 4096}",
        "is wrong at requests.options: `num_ctx` has its own key beside `options`: set it there",
    ),
    "a limit among a profile's options": (
        "[profiles.x]\noptions = {num_predict = 5}",
        "is wrong at profiles.x.options: `num_predict` has its own key beside `options`: set it there",
    ),
    "accept as a word": ("accept = 'csv'", "is wrong at accept: must be a list, not 'csv'"),
    "a thought without level": ("think = 'hard'", "is wrong at think: `think` must be true, false, or one of low"),
    "a word for a switch": ("files = 'yes'", "is wrong at files: must be true or false, not 'yes'"),
    "a switch for a word": ("thoughts = false", "is wrong at thoughts: must be 'move' or 'keep', not false"),
    "a switch for a list": (
        "[profiles.p]\nignore = false",
        "is wrong at profiles.p.ignore: must be a list, not false",
    ),
    "a format of a word": ("format = 'xml'", "is wrong at format: must be 'json', not 'xml'"),
    "schema and format": (
        "format = 'json'\nschema = 'a.json'",
        "is wrong at schema: `schema` and `format` exclude each other: a schema already means JSON",
    ),
    "schema and format of a profile": (
        "[profiles.x]\nformat = 'json'\nschema = 'a.json'",
        "is wrong at profiles.x: `schema` and `format` exclude each other: a schema already means JSON",
    ),
    "no endpoint": ("[ollama_instances]", 'is wrong at ollama_instances: no endpoint in it: write "host:port" = GPU'),
    "endpoints as a list": ("ollama_instances = ['a:1']", "is wrong at ollama_instances: must be a table"),
    "a GPU by its name": (
        '[ollama_instances]\n"a:1" = "GPU-1"',
        "is wrong at ollama_instances.\"a:1\": must be a GPU index (0) or a table ({gpu = 0, slots = 4}), not 'GPU-1'",
    ),
    "a GPU of true": (
        '[ollama_instances]\n"a:1" = true',
        'is wrong at ollama_instances."a:1": must be a GPU index (0)',
    ),
    "a GPU below 0": (
        '[ollama_instances]\n"a:1" = -1',
        'is wrong at ollama_instances."a:1".gpu: must be at least 0, not -1',
    ),
    "no slots": (
        '[ollama_instances]\n"a:1" = {slots = 0}',
        'is wrong at ollama_instances."a:1".slots: must be "auto" or a number from 1 to 1024, not 0',
    ),
    "an endpoint twice": (
        '[ollama_instances]\n"A:11434" = 0\n"http://a:11434/" = 1',
        'is wrong at ollama_instances: "http://a:11434/" and "A:11434" are the same endpoint',
    ),
    "a key twice": (
        '[ollama_instances]\n"a:1" = 0\n"a:1" = 1\n',
        "is not TOML: Cannot overwrite a value (at line 3",
    ),
    "a table twice": (
        '[ollama_instances]\n"a:1" = 0\n[host]\n[ollama_instances]\n"a:2" = 1\n',
        "is not TOML: Cannot declare ('ollama_instances',) twice (at line 4, column 18); [ollama_instances] may occur "
        "only once: put the lines of the second one below the first [ollama_instances], without it",
    ),
    "a profile twice": (
        "[profiles.x]\n[profiles.x]\n",
        "is not TOML: Cannot declare ('profiles', 'x') twice (at line 2, column 12); [profiles.x] may occur only once",
    ),
    "a profile that is no folder": (
        '[profiles."../x"]',
        'is wrong at profiles."../x": it cannot be a profile: its name must be valid as the name of a folder',
    ),
    "a profile without name": ('[profiles.""]', 'is wrong at profiles."": it cannot be a profile'),
    "a hidden profile": ('[profiles.".obcd"]', 'is wrong at profiles.".obcd": it cannot be a profile'),
    "no TOML": ("model = llama3.2", "is not TOML: Invalid value (at line 1, column 9)"),
    "no UTF-8": (b"model = '\xff'", "is not UTF-8 at byte 10"),
    "digits without end": ("[requests]\nnum_ctx = " + "9" * 5000, "is not TOML: a number in it has too many digits"),
    "brackets without end": ("a = " + "[" * 100_000, "is not TOML: nested too deep"),
    "a schema that is not there": (
        "schema = 'none.json'",
        "is wrong at schema: cannot read DIR/none.json: No such file or directory",
    ),
    "a profile's schema that is not there": (
        "[profiles.x]\nschema = 'none.json'",
        "is wrong at profiles.x.schema: cannot read DIR/none.json: No such file or directory",
    ),
}


@pytest.mark.parametrize(("text", "sentence"), FAULTS.values(), ids=FAULTS)
def test_fault_is_told_with_its_place(text: str | bytes, sentence: str, tmp_path: Path) -> None:
    found = fault(tmp_path, text)

    assert found.startswith(sentence)
    assert "\n" not in found


@pytest.mark.parametrize(
    ("mode", "members", "sentence"),
    [
        (0o640, [], wording("is-for-members-of-group-obcd")),
        (0o640, ["ann", "bob"], wording("is-for-members-of-group-obcd-2")),
        (0o600, [], wording("is-not-yours-to-read-ask")),
    ],
    ids=["a stranger", "a new member", "a file of one user"],
)
def test_configuration_that_may_not_be_read_says_who_may(
    mode: int, members: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, "")
    path.chmod(mode)
    status = path.stat()
    group = grp.struct_group(("obcd", "x", 4711, members))
    monkeypatch.setattr(Path, "stat", lambda *_: os.stat_result([*status[:5], 4711, *status[6:]]))
    monkeypatch.setattr(loading, "read_file", Mock(side_effect=PermissionError(13, "Permission denied")))
    monkeypatch.setattr(grp, "getgrgid", {4711: group}.__getitem__)
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: pwd.struct_passwd(("bob", "x", uid, uid, "", "/", "/bin/sh")))

    with pytest.raises(ConfigurationError) as caught:
        read_document(path)

    assert str(caught.value) == wording("the-configuration", path, sentence)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", wording("it-must-be-host-port-e")),
        (":11434", wording("it-must-be-host-port-e")),
        ("http://", wording("it-must-be-host-port-e")),
        ("a:0", wording("its-port-must-be-a-number")),
        ("a:70000", wording("its-port-must-be-a-number")),
        ("a:http", wording("its-port-must-be-a-number")),
        ("a:-1", wording("its-port-must-be-a-number")),
        ("::1", wording("its-port-must-be-a-number-2")),
        ("[zz]:1", wording("it-must-be-host-port-e")),
        ("server 1:11434", wording("server-1-is-not-the-name")),
        ("server1:11432, server2", wording("its-port-must-be-a-number")),
        ("a..b:1", wording("a-b-is-not-the-name")),
        ("x" * 64 + ":1", wording("is-not-the-name-of-a")),
        ("ftp://a", wording("ftp-is-not-a-way-to")),
        ("http://u:p@a:1", wording("an-endpoint-is-host-port-or")),
        ("http://a:1/?q=1", wording("an-endpoint-is-host-port-or")),
    ],
)
def test_name_that_is_no_endpoint_is_refused_with_its_reason(name: str, reason: str, tmp_path: Path) -> None:
    found = fault(tmp_path, f'[ollama_instances]\n"{name}" = 0')

    assert found.startswith(wording("is-wrong-at-ollama-instances", name))
    assert found.endswith(reason)


def test_name_with_a_line_break_is_refused(tmp_path: Path) -> None:
    assert wording("is-not-the-name-of-a") in fault(tmp_path, '[ollama_instances]\n"a\\nb:1" = 0')


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("server1", "http://server1:11434"),
        ("server1:11432", "http://server1:11432"),
        ("127.0.0.1:1", "http://127.0.0.1:1"),
        ("[::1]:11434", "http://[::1]:11434"),
        ("http://server1", "http://server1:80"),
        ("https://gate.example.org/gpu0/", "https://gate.example.org:443/gpu0"),
        ("gpu_1.cluster.local:5", "http://gpu_1.cluster.local:5"),
        ("zürich:1", "http://zürich:1"),
    ],
)
def test_name_of_an_endpoint_becomes_its_url(name: str, url: str, tmp_path: Path) -> None:
    settings = load_settings(write(tmp_path, f'[ollama_instances]\n"{name}" = 3'))

    (endpoint,) = settings.endpoints()
    assert (endpoint.name, endpoint.url, endpoint.gpu) == (name, url, 3)


def test_slots_come_from_the_endpoint_or_from_requests(tmp_path: Path) -> None:
    text = '[ollama_instances]\n"a" = 0\n"b" = {slots = 16}\n"c" = {gpu = 2, slots = "auto"}\n[requests]\nslots = 7'

    settings = load_settings(write(tmp_path, text))

    assert [(item.gpu, item.slots) for item in settings.endpoints()] == [(0, 7), (0, 16), (2, None)]


def test_all_faults_are_told_at_once_each_with_its_place(tmp_path: Path) -> None:
    text = """
modle = "x"
[ollama_instances]
"a:0" = 0
"b:1" = "x"
"c d" = 0
[requests]
num_ctx = 1
options = {temprature = 0}
[profiles.".x"]
[profiles.y]
attempts = "many"
"""

    lines = fault(tmp_path, text).splitlines()

    assert lines[0] == "has 8 faults:"
    assert sorted(line.split(": ")[0] for line in lines[1:]) == [
        "  at modle",
        wording("at-ollama-instances-a-0"),
        wording("at-ollama-instances-b-1"),
        wording("at-ollama-instances-c-d"),
        '  at profiles.".x"',
        "  at profiles.y.attempts",
        wording("at-requests-num-ctx"),
        "  at requests.options",
    ]


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        (b"{", wording("is-not-json-expecting-property-name")),
        (b"[]", wording("is-not-a-json-schema-it")),
        (b"{}", wording("is-not-a-json-schema-it")),
        (b"\xff", wording("is-not-json")),
        (b"[" * 100_000, wording("is-not-json")),
    ],
)
def test_schema_file_that_is_none_is_refused(schema: bytes, reason: str, tmp_path: Path) -> None:
    write(tmp_path, schema, "a.json")

    found = fault(tmp_path, "schema = 'a.json'\n[profiles.x]\nschema = 'a.json'")

    assert found.startswith(f"has 2 faults:\n  at schema: DIR/a.json {reason}")
    assert wording("at-profiles-x-schema-dir-a", reason) in found


class TestProfiles:
    TEXT = """
model = "llama3.2"
system_message = "Be brief."
think = true
schema = "top.json"
[requests]
options = {temperature = 0.5, seed = 1}
num_ctx = 1024
num_predict = 50
attempts = 3
request_timeout_seconds = 7
[profiles.same]
[profiles.other]
model = "qwen2.5:7b"
system_message = ""
think = false
schema = "own.json"
options = {seed = 2}
num_ctx = 2048
num_predict = 60
attempts = 1
[profiles.json]
format = "json"
"""

    @pytest.fixture
    def settings(self, tmp_path: Path) -> Settings:
        write(tmp_path, '{"title": "top", "type": "object"}', "top.json")
        write(tmp_path, '{"title": "own", "type": "object"}', "own.json")
        return load_settings(write(tmp_path, self.TEXT))

    def test_profile_takes_what_it_leaves_out_from_the_top(self, settings: Settings) -> None:
        assert (
            settings.job_settings("same")
            == settings.job_settings()
            == JobSettings(
                model="llama3.2",
                system="Be brief.",
                options={"temperature": 0.5, "seed": 1},
                format={"title": "top", "type": "object"},
                think=True,
                num_ctx=1024,
                num_predict=50,
                attempts=3,
                request_timeout_seconds=7.0,
            )
        )

    def test_profile_wins_where_it_says_something(self, settings: Settings) -> None:
        assert settings.job_settings("other") == JobSettings(
            model="qwen2.5:7b",
            system="",
            options={"temperature": 0.5, "seed": 2},
            format={"title": "own", "type": "object"},
            think=False,
            num_ctx=2048,
            num_predict=60,
            attempts=1,
            request_timeout_seconds=7.0,
        )

    def test_context_that_is_planned_has_its_limit_and_a_profile_may_say_otherwise(self, tmp_path: Path) -> None:
        text = """
            [requests]
            num_ctx = "auto"
            num_ctx_max = 20000
            [profiles.same]
            [profiles.fixed]
            num_ctx = 4096
            [profiles.less]
            num_ctx_max = 8192
        """
        settings = load_settings(write(tmp_path, text))

        found = {name: settings.job_settings(name) for name in ("", "same", "fixed", "less")}
        assert {name: (item.num_ctx, item.num_ctx_max) for name, item in found.items()} == {
            "": (20000, 20000),
            "same": (20000, 20000),
            "fixed": (4096, None),
            "less": (8192, 8192),
        }
        assert settings.requests.usual_context == 8192

    def test_profile_alone_may_have_its_context_planned(self, tmp_path: Path) -> None:
        settings = load_settings(write(tmp_path, '[requests]\nnum_ctx = 1024\n[profiles.own]\nnum_ctx = "auto"'))

        assert (settings.job_settings().num_ctx, settings.job_settings().num_ctx_max) == (1024, None)
        assert settings.job_settings("own").num_ctx_max == 32768
        assert settings.requests.usual_context == 1024

    def test_format_of_a_profile_wins_over_the_schema_of_the_top(self, settings: Settings) -> None:
        assert settings.job_settings("json").format == "json"

    def test_profile_that_is_not_there(self, settings: Settings) -> None:
        with pytest.raises(KeyError):
            settings.job_settings("none")


ENDPOINTS = {"127.0.0.1:40001": {"gpu": 0, "slots": 4}, "127.0.0.1:40002": {"gpu": 1, "slots": 2}}


class TestWriting:
    def test_only_endpoints_and_model_change(self, tmp_path: Path) -> None:
        # given
        source = EXAMPLES / "obcd.toml"
        before = load_settings(source)

        # when
        after = load_settings(write(tmp_path, with_endpoints(source, ENDPOINTS, "other:1b")))

        # then
        assert [(item.name, item.gpu, item.slots) for item in after.endpoints()] == [
            ("127.0.0.1:40001", 0, 4),
            ("127.0.0.1:40002", 1, 2),
        ]
        assert after.model == "other:1b"
        assert after.job_settings("clinical") == JobSettings.from_json(
            {**before.job_settings("clinical").to_json(), "model": "other:1b"}
        )

    def test_defaults_alone_can_be_written(self, tmp_path: Path) -> None:
        after = load_settings(write(tmp_path, with_endpoints(None, ENDPOINTS)))

        assert len(after.endpoints()) == 2
        assert after.model == "llama3.2"

    @pytest.mark.parametrize(
        "text",
        [
            'You are \\"x\\".\\n\\\\d+\\t',
            "C:\\\\temp\\\\new",
            "[a] = 1 # no",
            "'''",
            "ü😀",
        ],
    )
    def test_text_reads_back_as_it_was(self, text: str, tmp_path: Path) -> None:
        source = write(tmp_path, f'system_message = "{text}"')

        written = with_endpoints(source, ENDPOINTS)

        assert tomllib.loads(written)["system_message"] == tomllib.loads(source.read_text())["system_message"]

    @pytest.mark.parametrize("text", ["\\u0001\\u007f", "\\\\x41"])
    def test_text_that_would_read_back_differently_is_refused(self, text: str, tmp_path: Path) -> None:
        source = write(tmp_path, f'system_message = "{text}"')

        with pytest.raises(ConfigurationError, match=wording("holds-a-value-that-cannot-be")):
            with_endpoints(source, ENDPOINTS)


class TestFinding:
    def test_file_that_was_named_and_is_not_there(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(ConfigurationError, match=wording("no-configuration-at-none-toml-give")):
            find_configuration(str(tmp_path / "none.toml"))
        monkeypatch.setenv("OBCD_CONFIG", str(tmp_path / "none.toml"))
        with pytest.raises(ConfigurationError, match=wording("no-configuration-at")):
            find_configuration(None)

    def test_option_wins_over_environment_over_the_users_own(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "obcd").mkdir()
        own, named, given = write(tmp_path / "obcd", ""), write(tmp_path, "", "b.toml"), write(tmp_path, "", "c.toml")
        monkeypatch.setattr("obcd.config.places.SYSTEM_CONFIGURATION", tmp_path / "none")
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
        monkeypatch.delenv("OBCD_CONFIG", raising=False)
        assert find_configuration(None) == own

        monkeypatch.setenv("OBCD_CONFIG", str(named))
        assert find_configuration(None) == named
        assert find_configuration(str(given)) == given

    def test_root_comes_from_option_environment_file_system_or_home(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("obcd.config.places.SYSTEM_CONFIGURATION", tmp_path / "none")
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
        monkeypatch.delenv("OBCD_ROOT", raising=False)
        plain = Settings()
        named = load_settings(write(tmp_path, "[spool]\nroot = '/srv/obcd'"))
        assert find_root(None, plain) == tmp_path / "obcd"
        assert find_root(None, named) == Path("/srv/obcd")

        monkeypatch.setenv("OBCD_ROOT", "/mnt/obcd")
        assert find_root(None, named) == Path("/mnt/obcd")
        assert find_root("~/x", named) == Path.home() / "x"

        monkeypatch.delenv("OBCD_ROOT")
        monkeypatch.setattr("obcd.config.places.SYSTEM_CONFIGURATION", write(tmp_path, "", "system.toml"))
        assert find_root(None, plain) == Path("/var/spool/obcd")


def test_user_without_a_home_is_told_to_give_a_root(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "OBCD_ROOT", "OBCD_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as it is for a uid without an entry
    monkeypatch.setattr("obcd.config.places.SYSTEM_CONFIGURATION", Path("/nowhere/obcd.toml"))

    assert find_configuration(None) is None
    with pytest.raises(ConfigurationError, match=wording("there-is-no-home-folder-for")):
        find_root(None, load_settings(None))


@pytest.mark.parametrize("name", ["obcd.toml", "visit.schema.json"])
def test_fifo_in_place_of_a_file_is_refused_and_not_waited_for(tmp_path: Path, name: str) -> None:
    (tmp_path / "obcd.toml").write_text('schema = "visit.schema.json"\n')
    (tmp_path / "visit.schema.json").write_text('{"type": "object"}')
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)

    with pytest.raises(ConfigurationError, match=wording("it-is-not-a-regular-file", name)):
        load_settings(tmp_path / "obcd.toml")


@pytest.mark.parametrize("name", ["obcd.toml", "visit.schema.json"])
def test_file_that_is_far_too_long_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "obcd.toml").write_text('schema = "visit.schema.json"\n')
    (tmp_path / "visit.schema.json").write_text('{"type": "object"}')
    (tmp_path / name).write_bytes(b" " * (MAX_FILE_BYTES + 1))

    with pytest.raises(ConfigurationError, match=wording("it-is-longer-than-1048576-bytes", name)):
        load_settings(tmp_path / "obcd.toml")


def test_aliases_of_a_profile_go_before_those_of_all_and_their_models_count_as_asked_for(tmp_path: Path) -> None:
    text = 'aliases = {"a" = "one", "b" = "two"}\n[profiles.x]\naliases = {"b" = "three"}\n'

    settings = load_settings(write(tmp_path, text))

    assert settings.job_settings("x").aliases == {"a": "one", "b": "three"}
    assert settings.models() >= {"one:latest", "two:latest", "three:latest"}
