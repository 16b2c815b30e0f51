"""What a server is started with, and what marks it."""

from __future__ import annotations

import logging
import shlex
from pathlib import Path

import pytest

from obcd.errors import ConfigurationError
from obcd.host.cards.card import GpuError, Reason
from obcd.host.servers import leftovers
from obcd.host.servers.launcher import Launch, check_card, check_models, is_foreign, server_environment, shell_line
from obcd.host.servers.plan import HostPlan, Server
from tests.golden.wording import wording
from tests.gpu_support import StandIns, card_uuid, cards, mig_uuid

RUNTIME = Path("/run/obcd-host")


def make_launch(pin: str = card_uuid(2), vendor: str = "nvidia", **variables: str) -> Launch:
    shown = {"CUDA_VISIBLE_DEVICES": pin, "OLLAMA_HOST": "127.0.0.1:11434", **variables}
    server = Server(label="2", pin=pin, gpu=2, card="", memory_bytes=0, port=11434, variables=shown)
    plan = HostPlan(
        bind="127.0.0.1", name="a", vendor=vendor, ollama="/opt/my ollama/ollama", parallel=4, servers=(server,)
    )
    return Launch(plan=plan, server=server, runtime=RUNTIME, supervisor=None)


@pytest.mark.parametrize(
    "name",
    [
        "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL",
        "GGML_VK_VISIBLE_DEVICES", "LLAMA_ARG_N_GPU_LAYERS", "OLLAMA_HOST", "OLLAMA_LLM_LIBRARY", "NOTIFY_SOCKET",
        "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "SUPERVISOR_ENABLED", "OBCD_ROOT", "OBCD_DIE_WITH_PARENT",
    ],
)  # fmt: skip
def test_foreign_variable_is_not_handed_down(name: str) -> None:
    assert is_foreign(name)
    assert name not in server_environment(make_launch(), {name: "foreign"}) or not name.startswith(("HIP", "OBCD"))
    assert server_environment(make_launch(), {name: "foreign"}).get(name) != "foreign"


@pytest.mark.parametrize("name", ["PATH", "HOME", "HTTPS_PROXY", "LD_LIBRARY_PATH", "CUDA_CACHE_PATH", "OLLAMA_MODELS"])
def test_other_variables_are(name: str) -> None:
    assert server_environment(make_launch(), {name: "kept"})[name] == "kept"


def test_the_plan_wins_and_the_slot_is_marked() -> None:
    found = server_environment(make_launch(OLLAMA_MODELS="/planned"), {"OLLAMA_MODELS": "/inherited"})

    assert found["OLLAMA_MODELS"] == "/planned"
    assert found["OBCD_SLOT"] == "/run/obcd-host:2"


def test_shell_line_makes_the_same_environment() -> None:
    inherited = {
        "PATH": "/bin",
        "OLLAMA_HOST": "0.0.0.0",
        "HIP_VISIBLE_DEVICES": "1",
        "OLLAMA_DEBUG": "1",
        "OBCD_SLOT": "/x:1",
    }
    wanted = make_launch(NAME="two words; $HOME 'quoted'\nline")

    words = shlex.split(shell_line(wanted, inherited))
    made = dict(inherited)
    assert (words[0], words[-2:]) == ("env", ["/opt/my ollama/ollama", "serve"])
    rest = words[1:-2]
    while rest[:1] == ["-u"]:
        del made[rest[1]]
        rest = rest[2:]
    made |= dict(item.split("=", 1) for item in rest)

    marked = server_environment(wanted, inherited)
    assert marked.pop("OBCD_SLOT")  # one by hand is nobody's leftover
    assert made == marked


def test_card_that_is_there_passes(stand_ins: StandIns) -> None:
    stand_ins.describe(cards(4, mig={1: 2}))

    for pin in (card_uuid(2), mig_uuid(1, 1)):
        assert check_card(make_launch(pin)) is None  # type: ignore[func-returns-value]


def test_lost_card_is_named_with_those_that_are_left(stand_ins: StandIns) -> None:
    stand_ins.describe(cards(3, lost=[2]))

    with pytest.raises(GpuError, match=wording("gpu-2-gpu-00000002-is-lost")):
        check_card(make_launch())


def test_sick_driver_is_no_reason_to_try(stand_ins: StandIns) -> None:
    stand_ins.describe([], driver="mismatch")

    with pytest.raises(GpuError) as caught:
        check_card(make_launch())

    assert caught.value.reason is Reason.MISMATCH


def test_where_nobody_can_tell_the_card_is_taken_to_be_there(
    stand_ins: StandIns, caplog: pytest.LogCaptureFixture
) -> None:
    stand_ins.describe([], driver="no-library")

    with caplog.at_level(logging.WARNING):
        check_card(make_launch())

    assert wording("gpu-2-is-not-checked") in caplog.text


def test_nobody_asks_nvidia_for_the_cpu_or_amd(stand_ins: StandIns, caplog: pytest.LogCaptureFixture) -> None:
    stand_ins.describe([], driver="mismatch")

    check_card(make_launch(pin=""))
    check_card(make_launch(pin="1", vendor="amd"))

    assert caplog.text == ""


def test_models_folder_has_to_be_one(tmp_path: Path) -> None:
    check_models(make_launch().server)
    check_models(make_launch(OLLAMA_MODELS=str(tmp_path)).server)

    with pytest.raises(ConfigurationError, match=wording("is-no-folder")):
        check_models(make_launch(OLLAMA_MODELS=str(tmp_path / "none")).server)


@pytest.mark.parametrize(
    ("environment", "label", "is_ours"),
    [
        (b"A=1\0OBCD_SLOT=/run/obcd-host:2\0B=2\0", "2", True),
        (b"OBCD_SLOT=/run/obcd-host:2", "2", True),
        (b"OBCD_SLOT=/run/obcd-host:2.1\0", "2", False),
        (b"OBCD_SLOT=/run/obcd-host:12\0", "2", False),
        (b"X_OBCD_SLOT=/run/obcd-host:2\0", "2", False),
        (b"A=OBCD_SLOT=/run/obcd-host:2\0", "2", False),
        (b"OBCD_SLOT=/run/other:2\0", "2", False),
        (b"", "2", False),
        (b"OBCD_SLOT=/run/obcd-host:2.1\0", None, True),
        (b"OBCD_SLOT=/run/obcd-host:cpu\0", None, True),
        (b"OBCD_SLOT=/run/obcd-host:/x:2\0", None, False),
        (b"OBCD_SLOT=/run/obcd-host-2:1\0", None, False),
        (b"OBCD_SLOT=/run/obcd-host:\0", None, False),
    ],
)
def test_mark_is_the_whole_of_folder_and_slot(environment: bytes, label: str | None, is_ours: bool) -> None:
    assert leftovers._mark(RUNTIME, label)(environment) is is_ours
