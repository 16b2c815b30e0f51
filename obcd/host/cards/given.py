"""The cards that Slurm, Ray or a person gave this process, from its environment. Pure.

    CUDA_VISIBLE_DEVICES=0,1 │ SLURM_STEP_GPUS=2,3 ─► Given ─► those of the shown cards

Without device cgroups nothing but these variables keeps the jobs of a machine apart: the driver shows all cards to all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from obcd.errors import ConfigurationError
from obcd.host.cards.card import Card, GpuError, MigInstance, Reason
from obcd.text import printable

#: The variables that name cards, the first that is set counts. Slurm's and Ray's list for CUDA is the narrowest: it is
#: that of the task or the actor. Slurm's own variables count the cards of the whole machine (sbatch(1)).
VARIABLES = {
    "nvidia": ("CUDA_VISIBLE_DEVICES", "SLURM_STEP_GPUS", "SLURM_JOB_GPUS"),
    "amd": ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES", "SLURM_STEP_GPUS", "SLURM_JOB_GPUS"),
}
#: Most cards of a list, and most digits of an index.
MOST_CARDS, MAX_DIGITS = 1024, 6
#: The word of Slurm for no card (src/plugins/gres/common/gres_common.c).
NO_FILES = "NoDevFiles"
#: Ray sets both for each of its workers (src/ray/raylet/worker_pool.cc).
RAY_VARIABLES = ("RAY_RAYLET_PID", "RAY_JOB_ID")
#: What to do where no card was given.
ASK = {
    "slurm": "request cards in the script, e.g. #SBATCH --gres=gpu:1",
    "ray": "request them for the actor, e.g. num_gpus=1",
    None: "set CUDA_VISIBLE_DEVICES, or name the cards, e.g. --gpus 0,1",
}


class ClusterEngine(StrEnum):
    """What started this process and gave it its cards."""

    SLURM = "slurm"
    RAY = "ray"


@dataclass(frozen=True, slots=True)
class Given:
    """The cards that were given.

    Attributes:
        variable: Which variable names them.
        entries: Its words: indices, UUIDs or beginnings of UUIDs.
    """

    variable: str
    entries: tuple[str, ...]

    @property
    def words(self) -> str:
        """The entries for people."""
        return printable(",".join(self.entries))[:200]

    @property
    def indices(self) -> tuple[int, ...]:
        """The entries as indices; () if one is a UUID."""
        numbers = [int(entry) for entry in self.entries if _is_index(entry)]
        return tuple(numbers) if len(numbers) == len(self.entries) else ()


def find_engine(environ: Mapping[str, str]) -> ClusterEngine | None:
    """Return the engine that started this process, None if it was a person or systemd.

    Ray comes first: a Ray cluster may itself run inside a Slurm job, and then its actors own the cards.
    """
    if any(environ.get(name) for name in RAY_VARIABLES):
        return ClusterEngine.RAY
    return ClusterEngine.SLURM if environ.get("SLURM_JOB_ID") else None


def read_given(environ: Mapping[str, str], vendor: str = "nvidia") -> Given:
    """Return the cards that the environment gives.

    Raises:
        GpuError: If it gives none. Without any variable that is so too: Ray leaves them unset for a task without cards.
    """
    variable = next((name for name in VARIABLES[vendor] if name in environ), None)
    entries = () if variable is None else tuple(_entries(environ[variable]))
    if variable is not None and entries:
        return Given(variable, entries)
    engine = find_engine(environ)
    why = f"{variable} is {environ[variable]!r:.80}" if variable else f"{VARIABLES[vendor][0]} is not set"
    who = {"slurm": "Slurm", "ray": "Ray", None: "the environment"}[engine]
    raise GpuError(Reason.NO_CARD, f"{who} gave this process no card ({why}): {ASK[engine]}")


def _entries(text: str) -> list[str]:
    """Return the words of a list of cards; as for CUDA, the list ends at the first entry that is not a card."""
    found: dict[str, None] = {}
    for word in map(str.strip, text.split(",")):
        first, dash, last = word.partition("-")
        if not word or word.startswith("-") or word == NO_FILES or len(found) > MOST_CARDS:
            break
        if dash and _is_index(first) and _is_index(last):  # Slurm's lists may have ranges
            found |= dict.fromkeys(map(str, range(int(first), min(int(last), int(first) + MOST_CARDS) + 1)))
        else:
            found[word] = None
    return list(found)


def _is_index(word: str) -> bool:
    """Return whether a word counts cards; longer numbers are nonsense, and Python refuses the longest ones."""
    return word.isdecimal() and len(word) <= MAX_DIGITS


def select(given: Given, cards: Sequence[Card], environ: Mapping[str, str]) -> list[tuple[Card, MigInstance | None]]:
    """Return which of the shown cards were given, in the order of the list; a MIG instance with its card.

    Raises:
        GpuError: If none of them is shown.
        ConfigurationError: If the indices have two meanings.
    """
    found = _by_index(given, cards, environ) if given.indices else _by_uuid(given, cards)
    if not found:
        shown = ", ".join(f"{card.index} ({card.uuid})" for card in cards)
        raise GpuError(
            Reason.NO_CARD,
            f"{given.variable} gives {given.words}, and NVIDIA's driver shows none of them, only "
            f"{shown}: check the variable, or name the cards with --gpus",
        )
    return found


def _by_index(given: Given, cards: Sequence[Card], environ: Mapping[str, str]) -> list[tuple[Card, MigInstance | None]]:
    by_index = {card.index: card for card in cards}
    is_of_machine = given.variable.startswith("SLURM_")
    if is_of_machine and not all(index in by_index for index in given.indices) and len(given.indices) == len(cards):
        return [(card, None) for card in cards]  # a device cgroup shows these alone, and the driver counts them from 0
    is_by_bus = environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID" or find_engine(environ) is not None
    if not is_by_bus and len({card.name for card in cards}) > 1:
        raise ConfigurationError(
            f"{given.variable} gives {given.words}, which CUDA counts from the fastest card, and this machine "
            "has cards of several products: set CUDA_DEVICE_ORDER=PCI_BUS_ID, or give UUIDs"
        )
    return [(by_index[index], None) for index in given.indices if index in by_index]


def _by_uuid(given: Given, cards: Sequence[Card]) -> list[tuple[Card, MigInstance | None]]:
    """Return the cards and instances whose UUIDs begin with an entry; of a list that mixes both forms, indices too."""
    there: list[tuple[Card, MigInstance | None]] = [(card, None) for card in cards]
    there += [(card, part) for card in cards for part in card.instances]
    found: list[tuple[Card, MigInstance | None]] = []
    for entry in given.entries:
        fits = [item for item in there if _is_meant(entry, *item)]
        if len(fits) == 1:  # as for CUDA, a beginning that fits several means none
            found += fits
    return found


def _is_meant(entry: str, card: Card, part: MigInstance | None) -> bool:
    if entry.isdecimal():
        return part is None and _is_index(entry) and card.index == int(entry)
    return (part or card).uuid.startswith(entry)
