"""The cards that Slurm, Ray or a person gave: as the engines write them, and as CUDA reads them."""

from __future__ import annotations

import pytest

from obcd.errors import ConfigurationError
from obcd.host.cards.card import Card, GpuError, MigInstance, Reason
from obcd.host.cards.given import ClusterEngine, Given, find_engine, read_given, select
from tests.golden.wording import wording


def shown(count: int, name: str = "H100") -> list[Card]:
    return [Card(index=n, uuid=f"GPU-{n}{n}", name=name, memory_bytes=0) for n in range(count)]


def chosen(environ: dict[str, str], cards: list[Card]) -> list[str]:
    return [(part or card).uuid for card, part in select(read_given(environ), cards, environ)]


@pytest.mark.parametrize(
    ("environ", "count", "expected"),
    [
        ({"CUDA_VISIBLE_DEVICES": "2,3", "SLURM_JOB_ID": "7", "SLURM_JOB_GPUS": "2,3"}, 4, [2, 3]),
        ({"CUDA_VISIBLE_DEVICES": "3,1"}, 4, [3, 1]),
        # a device cgroup: the driver shows these two alone and counts them from 0, with and without Slurm's renumbering
        ({"CUDA_VISIBLE_DEVICES": "0,1", "SLURM_JOB_ID": "7", "SLURM_JOB_GPUS": "2,3"}, 2, [0, 1]),
        ({"SLURM_JOB_ID": "7", "SLURM_JOB_GPUS": "1,3"}, 2, [0, 1]),
        ({"SLURM_JOB_ID": "7", "SLURM_JOB_GPUS": "0-3", "SLURM_STEP_GPUS": "1"}, 4, [1]),
        ({"SLURM_JOB_ID": "7", "SLURM_JOB_GPUS": "1-3"}, 4, [1, 2, 3]),
        # as for CUDA, the list ends at the first entry that is no card, and a card that is not there is left out
        ({"CUDA_VISIBLE_DEVICES": "1,-1,2"}, 4, [1]),
        ({"CUDA_VISIBLE_DEVICES": "1,7"}, 4, [1]),
        ({"CUDA_VISIBLE_DEVICES": "1,1"}, 4, [1]),
        ({"CUDA_VISIBLE_DEVICES": "0", "RAY_RAYLET_PID": "12"}, 4, [0]),
    ],
)
def test_indices_are_those_of_the_shown_cards(environ: dict[str, str], count: int, expected: list[int]) -> None:
    assert chosen(environ, shown(count)) == [f"GPU-{n}{n}" for n in expected]


def test_uuids_their_beginnings_and_mig_instances_are_found() -> None:
    parts = (MigInstance(uuid="MIG-a", number=0), MigInstance(uuid="MIG-b", number=1))
    cards = [*shown(2), Card(index=2, uuid="GPU-22", name="H100", memory_bytes=0, instances=parts, is_mig=True)]

    assert chosen({"CUDA_VISIBLE_DEVICES": "GPU-11,MIG-b"}, cards) == ["GPU-11", "MIG-b"]
    assert chosen({"CUDA_VISIBLE_DEVICES": "GPU-0,GPU-,2"}, cards) == ["GPU-00", "GPU-22"]  # GPU- fits several


@pytest.mark.parametrize(
    ("environ", "who"),
    [
        ({"CUDA_VISIBLE_DEVICES": "", "SLURM_JOB_ID": "7", "SLURM_JOB_GPUS": "0"}, "Slurm"),
        ({"CUDA_VISIBLE_DEVICES": "NoDevFiles", "SLURM_JOB_ID": "7"}, "Slurm"),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, "the environment"),
        ({"SLURM_JOB_ID": "7"}, "Slurm"),
        ({"RAY_RAYLET_PID": "12"}, "Ray"),  # unset for a task without cards: none, and not all
        ({"RAY_JOB_ID": "01", "SLURM_JOB_ID": "7"}, "Ray"),
        ({}, "the environment"),
    ],
)
def test_where_nothing_was_given_there_is_no_card(environ: dict[str, str], who: str) -> None:
    with pytest.raises(GpuError, match=wording("gave-this-process-no-card", who)) as caught:
        read_given(environ)
    assert caught.value.reason is Reason.NO_CARD


def test_cards_that_the_driver_does_not_show_are_none() -> None:
    with pytest.raises(GpuError, match=wording("shows-none-of-them")):
        chosen({"CUDA_VISIBLE_DEVICES": "GPU-77"}, shown(2))


@pytest.mark.parametrize(
    "nonsense",
    [
        "9" * 5000,
        "1-" + "9" * 5000,
        "-".join("9" * 50),
        "a\x1b[2J\nb",
        "GPU-\u202e",
        "7",
        "7-5",
        "\u0663\u0663",
        "all",
        "2,3",
    ],
)
def test_nonsense_gives_no_card_and_reaches_no_terminal(nonsense: str) -> None:
    """`7` and `2,3` too: CUDA counts from 0 what it can see, so a list of other cards is one of another machine."""
    with pytest.raises(GpuError) as caught:
        chosen({"CUDA_VISIBLE_DEVICES": nonsense}, shown(nonsense.count(",") + 1))
    assert str(caught.value).isprintable()


def test_long_list_costs_little() -> None:
    text = ",".join(f"{first}-{first + 1024}" for first in range(2000))

    assert len(read_given({"SLURM_JOB_GPUS": text}).entries) < 2100


def test_indices_of_different_products_mean_something_only_by_bus_or_from_an_engine() -> None:
    cards = [*shown(1), Card(index=1, uuid="GPU-11", name="L4", memory_bytes=0)]

    with pytest.raises(ConfigurationError, match="PCI_BUS_ID"):
        chosen({"CUDA_VISIBLE_DEVICES": "0"}, cards)
    assert chosen({"CUDA_VISIBLE_DEVICES": "0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, cards) == ["GPU-00"]
    assert chosen({"CUDA_VISIBLE_DEVICES": "1", "SLURM_JOB_ID": "7"}, cards) == ["GPU-11"]
    assert chosen({"CUDA_VISIBLE_DEVICES": "GPU-1"}, cards) == ["GPU-11"]


def test_amd_s_list_comes_first_for_amd() -> None:
    environ = {"CUDA_VISIBLE_DEVICES": "0", "ROCR_VISIBLE_DEVICES": "2,3"}

    assert read_given(environ, "amd") == Given("ROCR_VISIBLE_DEVICES", ("2", "3"))
    assert read_given(environ).variable == "CUDA_VISIBLE_DEVICES"


def test_an_engine_is_known_by_its_variables() -> None:
    assert find_engine({"SLURM_JOB_ID": "7"}) is ClusterEngine.SLURM
    assert find_engine({"SLURM_JOB_ID": "7", "RAY_RAYLET_PID": "9"}) is ClusterEngine.RAY
    assert find_engine({"SLURM_JOB_ID": ""}) is None
