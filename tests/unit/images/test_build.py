"""Building: an image's tag says what is in it, and all that is in it is in the tag."""

import argparse
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.unit.images.fakeregistry import Answer, FakeRegistry

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def build() -> ModuleType:
    """The script ``images/build.py``."""
    path = list(sys.path)
    spec = importlib.util.spec_from_file_location("images_build", ROOT / "images" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    sys.path[:] = path
    return module


@pytest.fixture
def tree(build: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small copy of the repository: what the bench image is made of."""
    monkeypatch.setattr(build, "ROOT", tmp_path)
    for name in (
        "images/bench/Containerfile", "images/bench/constraints.txt", "operator/slmops/__init__.py",
        "operator/slmops/contract/train.py", "images/kit/slmkit/run.py", "images/bench/slm_bench/bench.py",
        "images/bench/slm_bench/deep/er.py", "images/edge/slm_edge/server.py",
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def tag(build: ModuleType) -> str:
    found = build.fingerprint(build.IMAGES["bench"], "", None)
    assert re.fullmatch(r"[0-9a-f]{16}", found)
    return str(found)


def test_the_same_tree_has_the_same_tag(build: ModuleType, tree: Path) -> None:
    before = tag(build)
    (tree / "images/edge/slm_edge/server.py").write_text("another image's")
    (tree / "images/bench/slm_bench/__pycache__").mkdir()
    (tree / "images/bench/slm_bench/__pycache__/bench.cpython-313.pyc").write_text("made by Python")
    assert tag(build) == before


@pytest.mark.parametrize(
    "name",
    ["images/bench/Containerfile", "images/bench/constraints.txt", "operator/slmops/contract/train.py",
     "images/kit/slmkit/run.py", "images/bench/slm_bench/bench.py", "images/bench/slm_bench/deep/er.py",
     "images/bench/slm_bench/new.py", "images/kit/slmkit/new.py"],
)  # fmt: skip
def test_what_goes_into_the_image_changes_its_tag(build: ModuleType, tree: Path, name: str) -> None:
    before = tag(build)
    (tree / name).write_text("changed")
    assert tag(build) != before


def test_a_file_that_moves_changes_the_tag(build: ModuleType, tree: Path) -> None:
    before = tag(build)
    (tree / "images/bench/slm_bench/deep/er.py").rename(tree / "images/bench/slm_bench/deep/other.py")
    assert tag(build) != before


def test_base_and_form_are_in_the_tag(build: ModuleType, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = build.IMAGES["bench"]
    tags = {build.fingerprint(image, form, base) for form in ("", "cuda") for base in (None, "debian")}
    monkeypatch.setitem(build.bases.PACKAGES, "python", ["python3", "curl"])
    tags.add(build.fingerprint(image, "", None))
    assert len(tags) == 5


def test_the_tool_chains_that_are_asked_for_are_in_the_tag_of_the_quantizer_alone(build: ModuleType) -> None:
    tags = {
        name: {build.fingerprint(build.IMAGES[name], "", None, wanted) for wanted in ([], ["mlx"], ["mlx", "openvino"])}
        for name in ("quantizer", "edge")
    }
    assert {name: len(found) for name, found in tags.items()} == {"quantizer": 3, "edge": 1}


def test_every_tool_chain_has_a_program_and_pinned_packages(build: ModuleType) -> None:
    programs = {path.stem for path in build.BACKENDS.glob("*.py")}
    assert programs == {path.stem for path in build.BACKENDS.glob("*.txt")} == {"gguf", "mlx", "openvino"}
    for name in programs:
        lines = (build.BACKENDS / f"{name}.txt").read_text().splitlines()
        assert all("--hash=sha256:" in line or line.endswith(" \\") for line in lines)


def test_who_builds_a_model_and_who_serves_it_have_the_same_runtime() -> None:
    """A model that a newer builder made fails to load in an older runtime."""
    pins = [
        dict(
            re.findall(
                r"^(onnxruntime(?:-genai)?)==(\S+)", (ROOT / "images" / name / "constraints.txt").read_text(), re.M
            )
        )
        for name in ("quantizer", "edge")
    ]
    assert pins[0] == pins[1]
    assert set(pins[0]) == {"onnxruntime", "onnxruntime-genai"}


@pytest.mark.parametrize("name", ["operator", "edge", "bench", "trainer", "quantizer"])
def test_all_that_is_copied_into_an_image_is_in_its_tag(build: ModuleType, name: str) -> None:
    image = build.IMAGES[name]
    copied: set[str] = set()
    for line in (ROOT / "images" / name / "Containerfile").read_text().splitlines():
        if line.startswith("COPY "):
            copied |= set(line.split()[1:-1])
    constraints = f"images/{name}/constraints{'-${FORM}' if name == 'trainer' else ''}.txt"
    assert copied == {constraints, *image.sources}
    assert all((ROOT / source).exists() for source in image.sources)
    strays = [
        path
        for source in image.sources
        for path in (ROOT / source).rglob("*")
        if path.is_file() and path.suffix not in (*build.CODE, ".pyc")
    ]
    assert strays == [], "only these are in the tag"


def options(registry: FakeRegistry) -> argparse.Namespace:
    return argparse.Namespace(registry=registry.host, plain_http=True)


def test_what_the_registry_has_is_not_built_again(
    build: ModuleType, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = build.IMAGES["bench"]
    digest = registry.publish("slmops/bench", {"layers": []}, build.fingerprint(image, "", None))

    def never(*command: object) -> str:
        raise AssertionError(command)

    monkeypatch.setattr(build, "_run", never)
    wanted = argparse.Namespace(registry=registry.host, plain_http=True, form="cpu", base=None, backends=[])
    assert build.build(image, wanted) == f"{registry.host}/slmops/bench@{digest}"


def test_what_the_registry_does_not_have_or_does_not_tell_is_built(build: ModuleType, registry: FakeRegistry) -> None:
    assert build.pushed(options(registry), "slmops/bench", "missing") is None
    registry.always("HEAD ", Answer(500))
    assert build.pushed(options(registry), "slmops/bench", "missing") is None


def test_a_registry_that_is_not_there_is_named(build: ModuleType, registry: FakeRegistry) -> None:
    nobody = argparse.Namespace(registry="127.0.0.1:9", plain_http=True)
    with pytest.raises(SystemExit, match=r"127\.0\.0\.1:9 does not answer"):
        build.pushed(nobody, "slmops/bench", "x")


def test_a_command_that_fails_is_shown_with_its_words(build: ModuleType) -> None:
    with pytest.raises(SystemExit) as ended:
        build._run(sys.executable, "-c", "import sys; sys.exit('no space left')")
    assert "no space left" in str(ended.value)
    assert build._run(sys.executable, "-c", "print('fine')") == "fine\n"
