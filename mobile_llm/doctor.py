"""What is installed, what each ability still needs, and whether the versions go together.

Ranges are those of this package's own metadata (pyproject.toml), tested versions those of `tested.json`; nothing is
imported to find out. Not covered: whether a package that is there also works (`make test` says that).
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from mobile_llm.machine import available_memory, cpu, free_disk

DISTRIBUTION = "mobile-llm"
# What a person wants to do, and the extra that brings it.
ABILITIES = {
    "run ONNX artifacts": "",
    "run TFLite artifacts": "tflite",
    "run Core ML artifacts": "coreml",
    "take texts inside ONNX artifacts": "text-input",
    "serve OpenAI's clients": "serve",
    "fine-tune": "finetune",
    "export to ONNX": "export-onnx",
    "export to TFLite": "export-tflite",
    "export to Core ML": "export-coreml",
    "export GGUF files": "gguf",
    "export with LoRA adapters": "adapters",
    "export torch modules and Keras models": "export-modules",
    "benchmark": "benchmark",
}
_TESTED = Path(__file__).with_name("tested.json")
State = Literal["tested", "in range", "missing", "out of range"]


@dataclass(frozen=True)
class Package:
    """A requirement and what is installed of it (None: nothing)."""

    name: str
    wanted: str
    installed: str | None
    tested: str | None

    @property
    def state(self) -> State:
        if self.installed is None:
            return "missing"
        if not SpecifierSet(self.wanted).contains(self.installed, prereleases=True):
            return "out of range"
        same = self.tested is not None and self.installed.partition("+")[0] == self.tested
        return "tested" if same else "in range"


@dataclass(frozen=True)
class Ability:
    """`command` brings what is missing or out of range; "" where nothing is. `reason` where no command would help."""

    name: str
    packages: tuple[Package, ...]
    command: str = ""
    reason: str = ""

    @property
    def ready(self) -> bool:
        return not self.command and not self.reason


@dataclass(frozen=True)
class Machine:
    """Bytes; None where the system does not say."""

    python: str
    python_supported: bool
    system: str
    cpu: str
    features: tuple[str, ...]
    notes: tuple[str, ...]
    memory_available: int | None
    disk_free: int


def abilities() -> list[Ability]:
    """Every ability, in the order in which a person meets them."""
    tested = json.loads(_TESTED.read_text(encoding="utf-8"))["versions"]
    return [_ability(name, extra, tested) for name, extra in ABILITIES.items()]


def machine(place: Path) -> Machine:
    """This machine; the disk is that of `place`."""
    name, features = cpu()
    supported = SpecifierSet(metadata(DISTRIBUTION)["Requires-Python"] or "").contains(platform.python_version())
    return Machine(
        platform.python_version(),
        supported,
        f"{platform.system()} {platform.machine()}",
        name,
        features,
        tuple(_notes(platform.machine(), features)),
        available_memory(),
        free_disk(place),
    )


def broken(found: list[Ability], here: Machine) -> list[str]:
    """Sentences on what cannot work: the base runtime's needs, and whatever is installed outside its range."""
    sentences = [] if here.python_supported else [f"Python {here.python} is not among the supported versions"]
    packages = {package.name: package for ability in found for package in ability.packages}
    base = {package.name for package in found[0].packages}
    for package in packages.values():
        if package.state == "out of range":
            sentences.append(f"{package.name} {package.installed} is installed, and {package.wanted} is needed")
        elif package.state == "missing" and package.name in base:
            sentences.append(f"{package.name} is not installed, and nothing runs without it")
    return sentences


def _ability(name: str, extra: str, tested: Mapping[str, str]) -> Ability:
    packages = tuple(_package(requirement, tested) for requirement in _needed(extra))
    if extra == "coreml" and platform.system() != "Darwin":
        return Ability(name, packages, reason="Core ML runs on a Mac only; elsewhere its artifacts are evaluated")
    wrong = any(package.state in ("missing", "out of range") for package in packages)
    target = f'"{DISTRIBUTION}[{extra}]"' if extra else DISTRIBUTION
    return Ability(name, packages, f"pip install --upgrade {target}" if wrong else "")


def _needed(extra: str) -> Iterator[Requirement]:
    """The requirements of the base and of an extra, each once; extras that it names are followed."""
    seen: set[str] = set()
    waiting, followed = ["", extra] if extra else [""], {"", extra}
    declared = [Requirement(text) for text in requires(DISTRIBUTION) or ()]
    while waiting:
        name = waiting.pop(0)
        for requirement in declared:
            if not _applies(requirement, name):
                continue
            if requirement.name == DISTRIBUTION:
                waiting += sorted(requirement.extras - followed)
                followed |= requirement.extras
            elif requirement.name not in seen:
                seen.add(requirement.name)
                yield requirement


def _applies(requirement: Requirement, extra: str) -> bool:
    """Whether it is of this extra (of none, for ""), on this system."""
    if requirement.marker is None:
        return not extra
    with_it, without = (requirement.marker.evaluate({"extra": name}) for name in (extra, ""))
    return with_it and (not extra or not without)


def _package(requirement: Requirement, tested: Mapping[str, str]) -> Package:
    try:
        installed = version(requirement.name)
    except PackageNotFoundError:
        installed = None
    return Package(requirement.name, str(requirement.specifier), installed, tested.get(requirement.name.lower()))


def _notes(architecture: str, features: tuple[str, ...]) -> Iterator[str]:
    """What the processor means for the figures of `mobile-llm benchmark`."""
    if not features:
        yield "the system does not say which instructions the processor has"
    elif architecture in ("x86_64", "AMD64") and not {"avx_vnni", "avx512_vnni"} & set(features):
        yield "no VNNI: int8 is slower here, relative to float32, than on a phone with dot products"
    elif architecture == "aarch64" and "i8mm" not in features:
        yield "no i8mm: int8 is slower here than on phones of 2022 and later"
