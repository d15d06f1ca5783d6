"""The operator's own settings: what the file may say, and how a mistake in it is told."""

import ipaddress
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from slmops.settings import Settings, SettingsError, load


def written(tmp_path: Path, content: Any) -> Path:
    path = tmp_path / "settings.yaml"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def problem(tmp_path: Path, content: Any) -> str:
    path = written(tmp_path, content)
    with pytest.raises(SettingsError) as caught:
        load(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    return text.removeprefix(f"{path}: ")


def test_no_file_and_an_empty_file_are_the_defaults(tmp_path: Path) -> None:
    assert load(None) == load(written(tmp_path, "")) == load(written(tmp_path, "# nothing\n")) == Settings()


def test_fields_are_written_as_in_kubernetes(tmp_path: Path) -> None:
    content = {
        "watchNamespaces": ["farm", "mill"],
        "resyncSeconds": 60,
        "plainHttpRegistries": ["registry.local:5000"],
        "defaultResources": {"memoryLimit": "8Gi"},
        "images": {"trainer": "registry.example/slm/trainer@sha256:" + "0" * 64},
    }
    found = load(written(tmp_path, content))
    assert found.watch_namespaces == ("farm", "mill")
    assert found.resync_seconds == 60
    assert found.plain_http_registries == ("registry.local:5000",)
    assert (found.default_resources.memory_limit, found.default_resources.memory) == ("8Gi", "1Gi")
    assert found.images.trainer.endswith("0" * 64)
    assert found.images.bench == Settings().images.bench


def test_the_formats_of_the_quantizer_are_a_list_of_known_names(tmp_path: Path) -> None:
    assert Settings().quantizer.backends == ("ONNX", "Safetensors")
    assert load(written(tmp_path, {"quantizer": {"backends": ["ONNX", "GGUF"]}})).quantizer.backends == ("ONNX", "GGUF")
    assert problem(tmp_path, {"quantizer": {"backends": ["ONNX", "gguf"]}}).startswith("quantizer.backends.1: ")
    assert problem(tmp_path, {"quantizer": {"backends": []}}).startswith("quantizer.backends: ")


def test_json_is_fine_too(tmp_path: Path) -> None:
    assert load(written(tmp_path, '{"workers": 3}')).workers == 3


@pytest.mark.parametrize(
    ("content", "field"),
    [
        ({"worker": 3}, "worker"),
        ({"images": {"trianer": "x"}}, "images.trianer"),
        ({"defaultResources": {"gpu": "1"}}, "defaultResources.gpu"),
        ({"workers": "many"}, "workers"),
        ({"workers": 0}, "workers"),
        ({"workers": 1.5}, "workers"),
        ({"workers": None}, "workers"),
        ({"resyncSeconds": 1}, "resyncSeconds"),
        ({"resyncSeconds": float("nan")}, "resyncSeconds"),
        ({"resyncSeconds": float("inf")}, "resyncSeconds"),
        ({"logLevel": "loud"}, "logLevel"),
        ({"httpPort": 70000}, "httpPort"),
        ({"watchNamespaces": "farm"}, "watchNamespaces"),
        ({"watchNamespaces": ["Farm"]}, "watchNamespaces.0"),
        ({"watchNamespaces": ["farm/../../nodes"]}, "watchNamespaces.0"),
        ({"watchNamespaces": ["farm\n"]}, "watchNamespaces.0"),
        ({"watchNamespaces": {"farm": True}}, "watchNamespaces"),
        ({"leaseName": ""}, "leaseName"),
        ({"images": {"trainer": "-x"}}, "images.trainer"),
        ({"images": {"trainer": "registry.example/x@sha256:short"}}, "images.trainer"),
        ({"images": {"trainer": "registry.example/x\n"}}, "images.trainer"),
        ({"images": []}, "images"),
        ({"defaultResources": {"memory": "1 GB"}}, "defaultResources.memory"),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, content: Any, field: str) -> None:
    found = problem(tmp_path, content)
    assert found.startswith(f"{field}: ")
    assert len(found) > len(field) + 5, "and what is wrong with it"


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    found = problem(tmp_path, {"workers": 0, "logLevel": "loud", "x": 1})
    assert [part.split(":")[0] for part in found.split("; ")] == ["workers", "logLevel", "x"]


def test_what_stands_in_a_wrong_field_is_not_told(tmp_path: Path) -> None:
    """Somebody may have pasted a password there, and the text goes to the Pod's log."""
    assert "canary" not in problem(tmp_path, {"images": {"trainer": "user:canary@registry"}, "httpPort": "canary"})


@pytest.mark.parametrize(
    "content", ["- a", "text", "3", "workers: [", b"\xff\xfe\x00", "a: b: c", "!!python/object:x {}"]
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, content: str | bytes) -> None:
    assert problem(tmp_path, content)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"absent\.yaml: No such file or directory"):
        load(tmp_path / "absent.yaml")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="Is a directory"):
        load(tmp_path)


# --- what the chart lets through


CHART = Path(__file__).parents[2] / "charts" / "slmops"
FOUR, SIX = re.findall(r"\$(?:four|six) := `(.*)`", (CHART / "templates" / "_helpers.tpl").read_text())
ADDRESSES = st.one_of(
    st.ip_addresses().map(str),
    st.ip_addresses(v=6).map(lambda address: address.exploded),
    st.text("0123456789abcdefF:.", max_size=20),
    st.lists(st.sampled_from(["", ":", "::", "1", "ffff", "12345", "256", "10", "."]), max_size=18).map("".join),
)


@given(ADDRESSES, st.one_of(st.just(""), st.integers(0, 200).map(lambda length: f"/{length}"), st.just("/08")))
def test_the_chart_refuses_every_range_that_the_operator_would_refuse(address: str, length: str) -> None:
    """Else the chart is installed and its operator ends with 2."""
    if re.fullmatch(f"({FOUR}|{SIX})", address + length):
        Settings.model_validate({"egress": {"internalRanges": [address + length]}})


@given(st.ip_addresses(), st.integers(0, 128))
def test_the_chart_takes_every_range(address: ipaddress.IPv4Address | ipaddress.IPv6Address, length: int) -> None:
    assume(getattr(address, "ipv4_mapped", None) is None)  # newer versions of Python write it with dots
    text = f"{address}/{min(length, address.max_prefixlen)}"
    assert re.fullmatch(f"({FOUR}|{SIX})", text)
    (found,) = Settings.model_validate({"egress": {"internalRanges": [text]}}).egress.internal_ranges
    assert found == str(ipaddress.ip_network(text, strict=False))


def test_the_charts_own_values_are_taken_by_the_operator() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    found = Settings.model_validate({name: values[name] for name in ("egress", "logLevel", "workers", "resyncSeconds")})
    assert found.egress == Settings().egress
