"""The model image: what servers look for is there, and a changed setting moves no weights."""

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from slm_bench.pull import pull
from slm_bench.sign import sign
from slm_quantizer.pack import ends, finish, layers, name_end, weight_bytes
from slmkit import trust
from slmkit.layers import Compression
from slmkit.lineage import walk
from slmkit.run import Context, RunFailed
from slmkit.variants import index
from slmops.contract import IndexRun, PullRun, QuantizeRun, Reason, Report, SignRun, Sink
from tests.unit.images.adapterbytes import adapter, beside
from tests.unit.images.fakeregistry import FakeRegistry
from tests.unit.images.onnxbytes import GOOD, WEIGHTS, graph, model, outside
from tests.unit.images.signers import signer

FILES = {
    "model.onnx": GOOD, "model.onnx.data": WEIGHTS, "chat_template.jinja": b"t",
    "tokenizer.json": b'{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}',
    "genai_config.json": b'{"model": {"context_length": 1024, "type": "qwen2", "decoder": {"filename": "model.onnx"}}, '
                         b'"search": {"num_beams": 1, "top_k": 50}}',
    "model_config.json": b'{"model_path": "/scratch/canary"}',
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "built"
    folder.mkdir()
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    return folder


def run(**generation: Any) -> QuantizeRun:
    return QuantizeRun.model_validate({
        "run": "r", "model": {"uri": "oci://r.example/m"}, "name": "barn", "variant": "cpu-int4", "precision": "INT4",
        "output": {"repository": "r.example/q"}, "generation": generation,
    })  # fmt: skip


def config(folder: Path) -> Any:
    return json.loads((folder / "genai_config.json").read_text())


def test_what_servers_look_for_is_added(folder: Path) -> None:
    finish(folder, run(max_length=512, temperature=0.5, top_p=0.8, repetition_penalty=1.1))
    assert config(folder)["search"] == {
        "num_beams": 1, "top_k": 50, "max_length": 512, "temperature": 0.5, "top_p": 0.8, "repetition_penalty": 1.1,
        "do_sample": True,
    }  # fmt: skip
    assert config(folder)["model"] == {"context_length": 1024, "type": "qwen2", "decoder": {"filename": "model.onnx"}}
    assert json.loads((folder / "inference_model.json").read_text()) == {"Name": "barn-cpu-int4:1"}


def test_answers_are_never_longer_than_the_models_context(folder: Path) -> None:
    finish(folder, run(max_length=9999))
    assert config(folder)["search"]["max_length"] == 1024


@pytest.mark.parametrize(
    ("named", "end", "expected"),
    [(None, 7, 7), (2, 7, [2, 7]), ([2, 3], 7, [2, 3, 7]), ([2, 7], 7, [2, 7]), (7, 7, 7), (2, None, 2),
     (None, None, None)],
)  # fmt: skip
def test_the_runtime_stops_at_the_templates_end_of_an_answer_too(
    folder: Path, named: Any, end: int | None, expected: Any
) -> None:
    content = json.loads(FILES["genai_config.json"])
    if named is not None:
        content["model"]["eos_token_id"] = named
    (folder / "genai_config.json").write_text(json.dumps(content))
    name_end(folder, end)
    assert config(folder)["model"].get("eos_token_id") == expected
    assert ends(folder) == ([] if expected is None else expected if isinstance(expected, list) else [expected])
    assert config(folder)["search"] == content["search"]


def test_temperature_zero_means_no_sampling(folder: Path) -> None:
    finish(folder, run(temperature=0))
    assert config(folder)["search"]["do_sample"] is False


@pytest.mark.parametrize("content", ["{}", '{"model": {}}', '{"model": {"context_length": 0}}'])
def test_a_model_that_does_not_say_its_context_gets_what_is_wanted(folder: Path, content: str) -> None:
    (folder / "genai_config.json").write_text(content)
    finish(folder, run(max_length=777))
    assert config(folder)["search"]["max_length"] == 777


def test_finishing_twice_changes_nothing(folder: Path) -> None:
    finish(folder, run())
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    finish(folder, run())
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first


def test_weights_and_settings_are_layers_of_their_own(folder: Path) -> None:
    finish(folder, run())
    weights, settings = layers(folder, "barn")
    assert set(weights.files) == {"models/barn/model.onnx", "models/barn/model.onnx.data"}
    assert set(settings.files) == {
        f"models/barn/{name}"
        for name in ("tokenizer.json", "chat_template.jinja", "genai_config.json", "inference_model.json")
    }
    assert b"canary" not in b"".join([*weights.chunks(), *settings.chunks()]), "nothing of the pod that built it"


def test_a_changed_setting_changes_the_small_layer_alone(folder: Path) -> None:
    finish(folder, run(temperature=0.1))
    before = [layer.measure() for layer in layers(folder, "barn")]
    finish(folder, run(temperature=0.2))
    after = [layer.measure() for layer in layers(folder, "barn")]
    assert after[0] == before[0]
    assert after[1] != before[1]


def test_files_in_folders_and_other_formats_are_packed_too(tmp_path: Path) -> None:
    for name in ("model.safetensors", "deep/part.gguf", "openvino_model.bin", "openvino_model.xml", "config.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * 10)
    weights, settings = layers(tmp_path, "barn")
    assert set(weights.files) == {
        f"models/barn/{n}" for n in ("model.safetensors", "deep/part.gguf", "openvino_model.bin")
    }
    assert set(settings.files) == {"models/barn/openvino_model.xml", "models/barn/config.json"}
    assert weight_bytes(tmp_path) == 30


def test_other_formats_have_their_defaults_in_the_models_own_file(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": 1, "do_sample": false}')
    wanted = run(temperature=0).model_copy(update={"format": "Safetensors"})
    finish(tmp_path, wanted)
    found = json.loads((tmp_path / "generation_config.json").read_text())
    assert (found["eos_token_id"], found["top_p"], found["do_sample"]) == (1, 0.9, False)
    assert [path.name for path in tmp_path.iterdir()] == ["generation_config.json"]


def unlike(folder: Path, other: Path) -> None:
    """The same files in another folder, in another order, with other times, rights and owners."""
    other.mkdir()
    for number, path in enumerate(sorted(folder.iterdir(), reverse=True)):
        copy = other / path.name
        copy.write_bytes(path.read_bytes())
        copy.chmod(0o600)
        os.utime(copy, (number, number))
        if os.geteuid() == 0:
            os.chown(copy, 1000 + number, 1000)


@pytest.mark.parametrize("compression", ["None", "Zstd"])
def test_the_same_folder_is_the_same_image_whoever_packs_it_whenever(
    folder: Path, tmp_path: Path, compression: Compression
) -> None:
    finish(folder, run())
    unlike(folder, tmp_path / "other")
    made, annotations = [], [{"a": "1", "b": "2"}, {"b": "2", "a": "1"}]
    for place in (folder, tmp_path / "other"):
        with FakeRegistry() as registry:  # a registry of its own: nothing is there beforehand
            sink = Sink(repository=f"{registry.host}/slm/q")
            client, said = registry.client(), annotations.pop()
            image = client.push_image(sink, layers(place, "barn", compression), said, architecture="amd64")
            made.append((image.reference.partition("@")[2], image.size))
            manifest = registry.manifests["slm/q", made[-1][0]][1]
            config = registry.blobs["slm/q", json.loads(manifest)["config"]["digest"]]
        assert b"created" not in manifest + config
        assert compression == "None" or b"tar+zstd" in manifest
    assert made[0] == made[1]


# --- variants for several platforms


def variants(registry: FakeRegistry, folder: Path, compression: Compression = "None") -> IndexRun:
    """Two images that differ in their platform, and what is to be made of them."""
    finish(folder, run())
    sink = Sink(repository=f"{registry.host}/slm/q")
    made = {
        platform: registry.client().push_image(
            sink, layers(folder, "barn", compression), {}, architecture=platform
        ).reference for platform in ("amd64", "arm64")
    }  # fmt: skip
    return IndexRun.model_validate({
        "run": "index", "registry": registry.settings, "output": sink, "annotations": {"who": "a"},
        "variants": [{"name": f"cpu-{platform}", "image": {"uri": f"oci://{reference}"}, "architecture": platform}
                     for platform, reference in made.items()],
    })  # fmt: skip


@pytest.mark.parametrize("compression", ["None", "Zstd"])
def test_an_index_leads_each_platform_to_its_variant(
    registry: FakeRegistry, folder: Path, tmp_path: Path, compression: Compression
) -> None:
    wanted = variants(registry, folder, compression)
    made = index(wanted, Context(work=tmp_path)).artifacts["index"]
    digest = made.reference.partition("@")[2]
    assert registry.manifests["slm/q", digest][0] == "application/vnd.oci.image.index.v1+json"
    found = registry.manifest("slm/q", digest)
    assert found["mediaType"] == registry.manifests["slm/q", digest][0]
    assert found["annotations"]["who"] == "a"
    for each, entry in zip(wanted.variants, found["manifests"], strict=True):
        kind, body = registry.manifests["slm/q", entry["digest"]]
        assert each.image.uri.endswith(entry["digest"])
        assert (entry["mediaType"], entry["size"]) == (kind, len(body))
        assert entry["platform"] == {"architecture": each.architecture, "os": "linux"}
        assert entry["annotations"] == {"slmops.dev/variant": each.name}
        assert made.size == sum(layer["size"] for layer in json.loads(body)["layers"]), "they share them"
    again = index(wanted, Context(work=tmp_path)).artifacts["index"]
    assert again.reference == made.reference, "the same variants are the same index"


def test_an_index_is_signed_with_its_documents_and_let_in_where_its_provenance_is_asked_for(
    registry: FakeRegistry, folder: Path, tmp_path: Path
) -> None:
    owner = signer(tmp_path / "owner")
    report = index(variants(registry, folder), Context(work=tmp_path))
    made = report.artifacts["index"]
    sign(SignRun(run="s", artifacts=report.artifacts, key=owner.files, registry=registry.settings,
                 output=Sink(repository=f"{registry.host}/slm/q")), Context(work=tmp_path))  # fmt: skip
    wanted = owner.wants(made.reference, provenance=True)
    assert trust.verified(wanted, registry.client()).uri == f"oci://{made.reference}"


def test_the_way_back_leads_from_an_index_to_its_variants(registry: FakeRegistry, folder: Path, tmp_path: Path) -> None:
    wanted = variants(registry, folder)
    made = index(wanted, Context(work=tmp_path)).artifacts["index"]
    links = {link.role: link.uri for link in walk(registry.client(), made.reference)}
    assert links == {f"variant.{each.name}": each.image.uri for each in wanted.variants}


def test_an_index_of_images_elsewhere_is_refused(registry: FakeRegistry, folder: Path, tmp_path: Path) -> None:
    wanted = variants(registry, folder)
    other = wanted.model_copy(update={"output": Sink(repository=f"{registry.host}/slm/other")})
    with pytest.raises(RunFailed) as failed:
        index(other, Context(work=tmp_path))
    assert failed.value.reason is Reason.INVALID_CONFIGURATION


# --- and on the node: what was packed has arrived


def pulled(folder: Path, context: Context) -> Report:
    return pull(PullRun(run="r", model_path=str(folder)), context)


def test_every_byte_of_an_image_is_read(folder: Path) -> None:
    context = Context()
    report = pulled(folder.parent, context)
    assert report.evaluation["model"].weight_bytes == sum(len(content) for content in FILES.values())
    assert (context.progress.step, context.progress.of) == (len(FILES), len(FILES))
    again = Context()
    pulled(folder.parent, again)
    assert again.inputs == context.inputs
    content = bytearray(FILES["model.onnx.data"])
    content[-1] ^= 1
    (folder / "model.onnx.data").write_bytes(content)
    changed = Context()
    pulled(folder.parent, changed)
    assert changed.inputs != context.inputs, "a single bit shows"
    (folder / "chat_template.jinja").rename(folder / "chat_template.jinjb")  # the order stays
    renamed = Context()
    pulled(folder.parent, renamed)
    assert renamed.inputs != changed.inputs, "and a name"


@pytest.mark.parametrize("problem", ["no folder", "empty", "no configuration", "two models", "no graph"])
def test_an_image_that_no_server_could_use_is_refused(folder: Path, tmp_path: Path, problem: str) -> None:
    if problem == "no folder":
        folder = tmp_path / "missing"
    elif problem == "empty":
        folder = tmp_path / "empty"
        folder.mkdir()
    elif problem == "no configuration":
        (folder / "genai_config.json").unlink()
    elif problem == "two models":
        (folder / "deep").mkdir()
        (folder / "deep" / "genai_config.json").write_text("{}")
    else:
        (folder / "model.onnx").unlink()
    with pytest.raises(RunFailed) as failed:
        pulled(folder, Context())
    assert failed.value.reason is Reason.UNSUPPORTED_MODEL


def test_a_file_that_cannot_be_read_is_a_failure(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = hashlib.file_digest

    def broken(file: Any, name: str) -> Any:
        if file.name.endswith("model.onnx.data"):
            raise OSError(errno.EIO, "Input/output error", file.name)
        return digest(file, name)

    monkeypatch.setattr(hashlib, "file_digest", broken)
    with pytest.raises(OSError, match="Input/output error"):
        pulled(folder, Context())


@pytest.mark.parametrize(
    ("hostile", "words"),
    [
        ("a link", "tokenizer.json: is a link that leaves the folder"),
        ("external data elsewhere", "model.onnx: '../../etc/passwd' is no name of a file in the model's folder"),
        ("data that is cut off", "model.onnx: model.onnx.data ends before the external data"),
        ("a library", "genai_config.json: custom_ops_library names a place or a library"),
        ("a template", "chat_template.jinja: the chat template makes more than"),
    ],
)
def test_a_model_that_must_not_be_loaded_is_refused_on_the_node(folder: Path, hostile: str, words: str) -> None:
    if hostile == "a link":
        (folder / "tokenizer.json").unlink()
        (folder / "tokenizer.json").symlink_to("/etc/passwd")
    elif hostile == "external data elsewhere":
        (folder / "model.onnx").write_bytes(model(graph((), [outside("w", [1], {"location": "../../etc/passwd"})])))
    elif hostile == "data that is cut off":
        (folder / "model.onnx.data").write_bytes(WEIGHTS[:-1])
    elif hostile == "a library":
        config = {"model": {"decoder": {"filename": "model.onnx", "session_options": {"custom_ops_library": "x"}}}}
        (folder / "genai_config.json").write_text(json.dumps(config))
    else:
        (folder / "chat_template.jinja").write_text("{% for n in range(99999) %}{{ 'x' * 99999 }}{% endfor %}")
    context = Context()
    with pytest.raises(RunFailed) as failed:
        pulled(folder, context)
    assert failed.value.reason is Reason.UNSAFE_SOURCE
    assert failed.value.message.startswith(words)
    assert context.progress.stage == "Starting", "nothing of it was read"


# --- adapters


def titles(folder: Path) -> dict[str, str]:
    """Digests of the layers by title."""
    return {layer.title: layer.measure().digest for layer in layers(folder, "barn")}


def test_each_adapter_is_a_layer_and_a_changed_one_changes_its_own_and_the_list_alone(folder: Path) -> None:
    finish(folder, run())
    plain = titles(folder)
    beside(folder, {"irrigation": adapter(), "weights": adapter(rank=2)})
    before = titles(folder)
    assert list(before) == ["weights", "settings", "adapter.irrigation", "adapter.weights", "adapters", "graph"]
    assert before["settings"] == plain["settings"]
    beside(folder, {"irrigation": adapter(first=0.25), "weights": adapter(rank=2)})
    after = titles(folder)
    assert {title for title in after if after[title] != before[title]} == {"adapter.irrigation", "adapters"}
    found = {layer.title: set(layer.files) for layer in layers(folder, "barn")}
    assert found["adapter.irrigation"] == {"models/barn/adapters/irrigation.onnx_adapter"}
    assert (found["graph"], found["weights"]) == ({"models/barn/model.onnx"}, {"models/barn/model.onnx.data"})
    (folder / "model.onnx").write_bytes(b"with other places")
    assert titles(folder)["weights"] == before["weights"], "no weight is moved for a new place"
