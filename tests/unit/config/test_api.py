"""`[api]`: where it may listen, and which profile its batches may have."""

from __future__ import annotations

from pathlib import Path

import pytest

from obcd.config.loading import load_settings
from obcd.errors import ConfigurationError


def load(folder: Path, text: str, *, with_schemas: bool = True) -> str:
    path = folder / "obcd.toml"
    path.write_text(text, "utf-8")
    return load_settings(path, with_schemas=with_schemas).api.listen


def test_api_is_off_until_it_is_switched_on(tmp_path: Path) -> None:
    path = tmp_path / "obcd.toml"
    path.write_text("", "utf-8")

    assert not load_settings(path).api.enabled


@pytest.mark.parametrize("place", ["127.0.0.1:1", "127.8.9.1:65535", "[::1]:11480", "localhost:80", "unix:/run/x/y"])
def test_this_machine_alone_is_listened_to(tmp_path: Path, place: str) -> None:
    assert load(tmp_path, f'[api]\nlisten = "{place}"\n') == place


@pytest.mark.parametrize(
    "place", ["0.0.0.0:80", "[::]:80", "192.168.1.2:80", "10.0.0.1:11480", "gpu1:80", "8.8.8.8:53"]
)
def test_listener_that_others_reach_is_refused_with_the_reason(tmp_path: Path, place: str) -> None:
    with pytest.raises(ConfigurationError, match="TLS"):
        load(tmp_path, f'[api]\nlisten = "{place}"\n')


@pytest.mark.parametrize(
    "place",
    ["", "80", ":80", "127.0.0.1", "127.0.0.1:0x1", "127.0.0.1:99999", "http://127.0.0.1:80", "127.0.0.1:80/v1",
     "unix:x", "unix:", f"unix:/{'x' * 108}", "https://localhost:80"],
)  # fmt: skip
def test_listener_that_is_none_is_named(tmp_path: Path, place: str) -> None:
    with pytest.raises(ConfigurationError, match=r"at api\.listen"):
        load(tmp_path, f'[api]\nlisten = "{place}"\n')


def test_profile_of_the_batches_must_be_there_and_without_a_template(tmp_path: Path) -> None:
    rows = '[profiles.rows]\ntemplate = "{note}"\n'
    for profile in ("rows", "absent"):
        with pytest.raises(ConfigurationError, match=r"api\.profile"):
            load(tmp_path, f'{rows}[api]\nenabled = true\nprofile = "{profile}"\n')
        load(tmp_path, f'{rows}[api]\nprofile = "{profile}"\n')  # it is off
    load(tmp_path, f'{rows}[profiles.lines]\n[api]\nenabled = true\nprofile = "lines"\n')


def test_configuration_is_read_without_the_schemas_beside_it(tmp_path: Path) -> None:
    assert load(tmp_path, 'schema = "absent.json"\n', with_schemas=False)
    with pytest.raises(ConfigurationError):
        load(tmp_path, 'schema = "absent.json"\n')
