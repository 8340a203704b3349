"""The roofline by hand, what must grow with what, and the phones it is made for."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib.resources import files
from math import sqrt

import pytest

from benchmarks import devices
from benchmarks.cost import Cost
from benchmarks.devices import Cluster, Device
from benchmarks.predict import predict, runs_on
from mobile_llm.errors import InvalidInput

# Columns of the project's table of phone hardware: the comment beside a figure names the one it is from.
COLUMNS = {"device", "soc", "year", "ram_gb", "cpu_clusters_ghz", "isa", "peak_bw_gbps", "npu", "confidence", "source"}
FIGURES = {"soc", "year", "ram_gb", "peak_bandwidth_gbps", "dotprod", "i8mm", "fp16", "npu", "confidence", "clusters"}
PHONE = Device(
    name="a phone",
    tier="budget",
    os="android",
    soc="a chip",
    year=2024,
    ram_gb=(1, 2),
    peak_bandwidth_gbps=10.0,
    dotprod=True,
    i8mm=False,
    fp16=True,
    npu="-",
    confidence="C",
    source="made up",
    note="",
    clusters=(Cluster(2, "A78", 2.0), Cluster(4, "A55", 1.0)),
)
# Two of four threads on the fast cores: 2 x 2 GHz x 16 + 2 x 1 GHz x 8.
PEAK = 80.0
FAST = Cost(tokens=128, linear=8 * 10**9, attention=0, weight_bytes=0, file_bytes=10**8, arithmetic="float32")


def test_the_peak_is_that_of_the_fastest_cores() -> None:
    assert PHONE.peak_gops("float32", 4) == PEAK
    assert PHONE.peak_gops("float32", 1) == 32
    assert PHONE.peak_gops("int8", 4) == 4 * PEAK
    assert PHONE.peak_gops("float16", 4) == 2 * PEAK
    assert replace(PHONE, dotprod=False).peak_gops("int8", 4) == PEAK
    assert replace(PHONE, fp16=False).peak_gops("float16", 4) == PEAK


def test_latency_bound_by_operations() -> None:
    found = predict("p", PHONE, "onnx/fp32", FAST)
    assert found.low_ms == pytest.approx(100 / 0.6)
    assert found.high_ms == pytest.approx(100 / 0.15)
    assert found.latency_ms == pytest.approx(sqrt(found.low_ms * found.high_ms))
    assert (found.bound, found.grade, found.tokens) == ("compute", "spec-only", 128)


def test_latency_bound_by_reading_weights() -> None:
    found = predict("p", PHONE, "onnx/fp32", replace(FAST, linear=10, weight_bytes=10**9))
    assert found.low_ms == pytest.approx(100 / 0.76)
    assert found.high_ms == pytest.approx(100 / 0.1)
    assert found.bound == "memory"


def test_attention_of_an_int8_artifact_multiplies_in_float32() -> None:
    found = predict("p", PHONE, "onnx/int8", replace(FAST, linear=0, attention=8 * 10**9, arithmetic="int8"))
    assert found.low_ms == pytest.approx(100 / 0.6)


def test_memory_fits_depends_or_does_not() -> None:
    """Of 1 GB an app may have half; an artifact needs one to three times its file, and 30 MB."""
    answers = {
        size: predict("p", PHONE, "x", replace(FAST, file_bytes=size)).fits for size in (10**8, 3 * 10**8, 10**9)
    }
    assert answers == {10**8: True, 3 * 10**8: None, 10**9: False}
    assert predict("p", PHONE, "x", FAST).memory_bytes == (130_000_000, 330_000_000)


@pytest.mark.parametrize("name", devices.names())
def test_more_work_takes_longer_on_every_phone(name: str) -> None:
    device = devices.load(name)
    cost = Cost(128, 3 * 10**9, 10**8, 10**7, 10**8, "float32")
    found = predict(name, device, "onnx/fp32", cost)
    assert 0 < found.low_ms < found.latency_ms < found.high_ms
    assert predict(name, device, "x", replace(cost, linear=2 * cost.linear)).latency_ms > found.latency_ms
    assert predict(name, device, "x", replace(cost, attention=2 * cost.attention)).latency_ms > found.latency_ms
    assert predict(name, device, "x", replace(cost, weight_bytes=10**10)).bound == "memory"


def test_a_faster_phone_is_never_slower() -> None:
    times = [predict(name, devices.load(name), "x", FAST).latency_ms for name in devices.names()]
    assert times == sorted(times, reverse=True)
    assert times[0] > 5 * times[-1]


def test_core_ml_is_predicted_for_apple_only() -> None:
    assert runs_on(devices.load("iphone-13"), "coreml")
    assert not runs_on(devices.load("galaxy-a54"), "coreml")
    assert runs_on(devices.load("galaxy-a54"), "tflite")


def test_eight_phones_from_budget_to_flagship() -> None:
    chosen = devices.select(["all"])
    assert len(chosen) == 8
    assert {device.tier for device in chosen.values()} == {"budget", "mid-range", "flagship"}
    assert {device.os for device in chosen.values()} == {"android", "ios"}


@pytest.mark.parametrize("name", devices.names())
def test_a_phone_adds_up_and_names_its_sources(name: str) -> None:
    device = devices.load(name)
    assert device.source
    assert device.confidence in ("A", "B", "C")
    assert device.ram_gb[0] <= device.ram_gb[1]
    assert device.fp16 or not device.i8mm
    clocks = [cluster.ghz for cluster in device.clusters]
    assert clocks == sorted(clocks, reverse=True)
    assert sum(cluster.count for cluster in device.clusters) in (6, 8)
    text = files("benchmarks.devices").joinpath(f"{name}.toml").read_text(encoding="utf-8")
    sourced = dict(re.findall(r"^(\w+) = .*# (\w+)", text, re.MULTILINE))
    assert sourced.keys() >= FIGURES
    assert set(sourced.values()) <= COLUMNS


@pytest.mark.parametrize("name", ["nokia-3310", "cores", "../devices/iphone-13", ""])
def test_an_unknown_phone_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(InvalidInput, match=r"known are redmi-9a, .*galaxy-s25, or all"):
        devices.load(name)


def test_a_core_without_figures_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no core 'Z80'"):
        replace(PHONE, clusters=(Cluster(1, "Z80", 1.0),)).peak_gops("float32", 1)
