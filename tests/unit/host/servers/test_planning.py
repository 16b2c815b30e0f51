"""The `[host]` table and the cards, made into a plan."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from obcd.config.settings import Settings
from obcd.errors import ConfigurationError
from obcd.host.cards.card import GpuError
from obcd.host.servers.binding import PortRange
from obcd.host.servers.plan import HostPlan
from obcd.host.servers.planning import make_plan
from tests.golden.wording import wording
from tests.gpu_support import StandIns, card, card_uuid, cards, mig_uuid


def settings(**host: Any) -> Settings:
    return Settings.model_validate({"host": host})


def places(plan: HostPlan) -> list[tuple[str, str, int]]:
    return [(item.label, item.pin, item.port) for item in plan.servers]


def test_all_gives_one_server_per_card_from_the_base_port(stand_ins: StandIns) -> None:
    plan = make_plan(Settings())

    assert places(plan) == [(str(index), card_uuid(index), 11432 + index) for index in range(4)]
    assert (plan.ollama, plan.parallel, plan.vendor) == (str(stand_ins.bin / "ollama"), 16, "nvidia")
    assert (plan.servers[3].gpu, plan.servers[3].memory_bytes) == (3, 81559 * 2**20)


@pytest.mark.parametrize("is_shared", [False, True])
def test_plan_says_whether_people_use_the_servers_too(stand_ins: StandIns, is_shared: bool) -> None:
    assert make_plan(settings(**{"yield": is_shared})).yields is is_shared


def test_variables_are_whole_and_in_order(stand_ins: StandIns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    given = settings(gpus=[1], models=str(tmp_path), environment={"OLLAMA_DEBUG": "1", "OLLAMA_KEEP_ALIVE": "30m"})

    variables = make_plan(given).servers[0].variables

    assert list(variables.items()) == [
        ("CUDA_VISIBLE_DEVICES", card_uuid(1)),
        ("CUDA_DEVICE_ORDER", "PCI_BUS_ID"),
        ("OLLAMA_HOST", "127.0.0.1:11433"),
        ("OLLAMA_NUM_PARALLEL", "16"),
        ("OLLAMA_KEEP_ALIVE", "30m"),
        ("OLLAMA_LOAD_TIMEOUT", "900s"),
        ("OLLAMA_CONTEXT_LENGTH", "8192"),
        ("OLLAMA_VULKAN", "0"),
        ("OLLAMA_NOPRUNE", "1"),
        ("OLLAMA_NO_CLOUD", "1"),
        ("LLAMA_ARG_CACHE_RAM", "2048"),
        ("HOME", "/home/someone"),
        ("OLLAMA_MODELS", str(tmp_path)),
        ("OLLAMA_DEBUG", "1"),
    ]


def test_list_names_indices_uuids_and_beginnings_of_uuids_in_its_own_order(stand_ins: StandIns) -> None:
    plan = make_plan(settings(gpus=[2, card_uuid(0), "GPU-00000003"]), base_port=20000)

    assert places(plan) == [("2", card_uuid(2), 20002), ("0", card_uuid(0), 20000), ("3", card_uuid(3), 20003)]


def test_card_that_is_gone_shifts_no_other_to_its_port(stand_ins: StandIns) -> None:
    stand_ins.describe(cards(4, lost=[1]))

    plan = make_plan(Settings())

    assert [(item.label, item.port) for item in plan.servers] == [("0", 11432), ("2", 11434), ("3", 11435)]


def test_card_in_mig_mode_gives_one_server_per_instance(stand_ins: StandIns) -> None:
    stand_ins.describe(cards(3, mig={1: 2}))

    everything = make_plan(Settings())
    some = make_plan(settings(gpus=[mig_uuid(1, 1), 0]))

    assert [item.label for item in everything.servers] == ["0", "1.0", "1.1", "2"]
    assert everything.servers[2].variables["CUDA_VISIBLE_DEVICES"] == mig_uuid(1, 1)
    assert [(item.label, item.gpu) for item in some.servers] == [("1.1", 1), ("0", 0)]


def test_mig_mode_without_instances_is_refused(stand_ins: StandIns) -> None:
    stand_ins.describe([card(0), card(1, mig=[])])

    with pytest.raises(ConfigurationError, match=wording("gpu-1-has-no-instances")):
        make_plan(Settings())


def test_zero_is_one_server_on_the_cpu_that_asks_no_driver(stand_ins: StandIns) -> None:
    stand_ins.describe([], driver="not-loaded")

    plan = make_plan(Settings(), gpus=0)

    (server,) = plan.servers
    assert (server.label, server.program, server.pin, server.gpu) == ("cpu", "cpu", "", 0)
    assert (server.variables["CUDA_VISIBLE_DEVICES"], server.variables["ROCR_VISIBLE_DEVICES"]) == ("-1", "-1")


@pytest.mark.parametrize(
    ("gpus", "words"),
    [
        ([7], wording("host-gpus-names-7-which-is")),
        (["GPU-ffff"], wording("names-gpu-ffff-which-is-not")),
        (["GPU-0000"], wording("the-beginning-of-several")),
        (["GPU-"], wording("not-on-this-machine")),
        (["2"], "names '2'"),
        ([1, 1], "twice"),
        ([0, "GPU-00000000"], r"names GPU 0 .* twice"),
        ([], wording("names-no-card")),
    ],
)
def test_card_that_cannot_be_meant_is_refused_with_what_there_is(
    stand_ins: StandIns, gpus: list[int | str], words: str
) -> None:
    with pytest.raises(ConfigurationError, match=words):
        make_plan(settings(gpus=gpus))


def test_fault_of_the_command_line_names_the_option(stand_ins: StandIns) -> None:
    with pytest.raises(ConfigurationError, match=r"^--gpus names 9"):
        make_plan(Settings(), gpus=[9])


def test_whole_uuids_are_taken_as_they_are_where_nobody_can_tell(stand_ins: StandIns) -> None:
    stand_ins.describe([], driver="no-library")

    plan = make_plan(settings(gpus=[card_uuid(5), mig_uuid(6, 1)]))

    assert places(plan) == [("0", card_uuid(5), 11432), ("1", mig_uuid(6, 1), 11433)]


@pytest.mark.parametrize("gpus", ["all", [0], ["GPU-0000"], [card_uuid(1), 0]])
def test_anything_else_needs_a_driver(stand_ins: StandIns, gpus: Any) -> None:
    stand_ins.describe([], driver="no-library")

    with pytest.raises(GpuError):
        make_plan(settings(gpus=gpus))


def test_amd_takes_its_list_as_it_is(stand_ins: StandIns) -> None:
    plan = make_plan(settings(vendor="amd", gpus=[1, 3]))
    named = make_plan(settings(vendor="amd", gpus=["GPU-abc", 1]))

    assert places(plan) == [("1", "1", 11433), ("3", "3", 11435)]
    assert plan.servers[1].variables["ROCR_VISIBLE_DEVICES"] == "3"
    assert not [name for name in plan.servers[1].variables if name.startswith(("CUDA", "HIP"))]
    assert places(named) == [("0", "GPU-abc", 11432), ("1", "1", 11433)]


def test_amd_cannot_be_asked_for_all(stand_ins: StandIns) -> None:
    with pytest.raises(ConfigurationError, match=wording("name-the-cards")):
        make_plan(settings(vendor="amd"))


def test_ports_end_at_65535(stand_ins: StandIns) -> None:
    assert make_plan(settings(base_port=65532)).servers[-1].port == 65535
    with pytest.raises(ConfigurationError, match=wording("host-base-port-65533-is-too")):
        make_plan(settings(base_port=65533))


def test_missing_ollama_is_said_with_how_to_get_it(stand_ins: StandIns) -> None:
    (stand_ins.bin / "ollama").unlink()

    with pytest.raises(ConfigurationError, match=wording("no-program-ollama-on-path-install")):
        make_plan(Settings())


@pytest.mark.parametrize(
    ("bind", "name", "listens"),
    [
        ("127.0.0.1", "127.0.0.1", "127.0.0.1:11432"),
        ("127.0.0.2", "127.0.0.2", "127.0.0.2:11432"),
        ("localhost", "localhost", "localhost:11432"),
        ("::1", "[::1]", "[::1]:11432"),
        ("0.0.0.0", socket.gethostname(), "0.0.0.0:11432"),
        ("::", socket.gethostname(), "[::]:11432"),
        ("10.0.0.5", "10.0.0.5", "10.0.0.5:11432"),
        ("[fd00::5]", "[fd00::5]", "[fd00::5]:11432"),
        ("gpu1.cluster", "gpu1.cluster", "gpu1.cluster:11432"),
    ],
)
def test_name_is_how_the_coordinator_reaches_the_address(
    stand_ins: StandIns, bind: str, name: str, listens: str
) -> None:
    plan = make_plan(settings(bind=bind))

    assert (plan.name, plan.servers[0].variables["OLLAMA_HOST"]) == (name, listens)
    assert make_plan(settings(bind=bind, name="host7")).name == "host7"


@pytest.mark.parametrize("bind", ["10.0.0.5:11432", "http://10.0.0.5", "[]", "a b"])
def test_bind_is_an_address_and_no_more(stand_ins: StandIns, bind: str) -> None:
    with pytest.raises(ConfigurationError, match=wording("is-not-an-address")):
        make_plan(settings(bind=bind))


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("OLLAMA_HOST", "0.0.0.0", wording("use-bind-and-base-port")),
        ("CUDA_VISIBLE_DEVICES", "0", "use gpus"),
        ("HIP_VISIBLE_DEVICES", "0", "use gpus"),
        ("OLLAMA_NUM_PARALLEL", "4", "use num_parallel"),
        ("OBCD_SLOT", "x", "reserved for obcd"),
        ("A=B", "x", wording("not-a-variable")),
        ("", "x", wording("not-a-variable")),
        ("A", "x\0y", wording("not-a-variable")),
    ],
)
def test_variable_that_would_break_the_plan_is_refused(stand_ins: StandIns, name: str, value: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        make_plan(settings(environment={name: value}))


def test_models_need_a_whole_path(stand_ins: StandIns) -> None:
    with pytest.raises(ConfigurationError, match=wording("models-models-is-not-a-whole")):
        make_plan(settings(models="models"))


def test_load_timeout_and_context_follow_the_requests(stand_ins: StandIns) -> None:
    given = Settings.model_validate({"requests": {"load_timeout_seconds": 604800.0, "num_ctx": 4096}})

    variables = make_plan(given).servers[0].variables

    assert (variables["OLLAMA_LOAD_TIMEOUT"], variables["OLLAMA_CONTEXT_LENGTH"]) == ("604800s", "4096")


def test_without_home_the_folder_of_systemd_takes_its_place(
    stand_ins: StandIns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)

    home = make_plan(Settings()).servers[0].variables["HOME"]
    monkeypatch.delenv("STATE_DIRECTORY")

    assert home == str(tmp_path)
    with pytest.raises(ConfigurationError, match=wording("home-is-not-set")):
        make_plan(Settings())


@pytest.mark.parametrize("gpus", ["all", "given"])
def test_inside_slurm_only_the_given_cards_have_servers(
    stand_ins: StandIns, monkeypatch: pytest.MonkeyPatch, gpus: str
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,3")

    assert [item.pin for item in make_plan(settings(gpus=gpus)).servers] == [card_uuid(1), card_uuid(3)]
    assert [item.pin for item in make_plan(settings(gpus=[2])).servers] == [card_uuid(2)]  # a person named it
    assert len(make_plan(settings(gpus=gpus), "all").servers) == 4


def test_a_given_card_in_mig_mode_has_a_server_for_each_instance(
    stand_ins: StandIns, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_ins.describe(cards(2, mig={1: 2}))

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert [item.pin for item in make_plan(Settings(), "given").servers] == [mig_uuid(1, 0), mig_uuid(1, 1)]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", mig_uuid(1, 1))
    assert [item.label for item in make_plan(Settings(), "given").servers] == ["1.1"]


def test_amd_s_given_cards_are_a_list(stand_ins: StandIns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROCR_VISIBLE_DEVICES", "2,3")

    assert [item.pin for item in make_plan(settings(vendor="amd"), "given").servers] == ["2", "3"]


def test_free_ports_and_another_address_stand_in_the_plan(stand_ins: StandIns) -> None:
    plan = make_plan(Settings(), ports=PortRange(0, 0), bind="127.0.0.2")

    assert len({item.port for item in plan.servers}) == 4
    assert [item.variables["OLLAMA_HOST"] for item in plan.servers] == [f"127.0.0.2:{i.port}" for i in plan.servers]
