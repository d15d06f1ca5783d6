"""Licences: found in card, files and annotation, and held against the policy."""

from pathlib import Path

import pytest

from slmkit import licences
from slmkit.licences import Licence, check, find
from slmkit.run import Context, RunFailed
from slmkit.sources import fetch
from slmops.contract import Data, ExampleFormat, LicensePolicy, Reason, Sink, Source, TrainRun
from tests.unit.images.fakeregistry import FakeRegistry

APACHE = Path(__file__).parents[3] / "LICENSE"
MIT = """MIT License

Copyright (c) 2026 Somebody

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated documentation
files (the "Software"), to deal in the Software without restriction, including without limitation the rights to use, copy,
modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit persons to whom the
Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""
TUESDAYS = "You may use this model on Tuesdays.\n"


@pytest.fixture(autouse=True)
def nothing_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(licences, "seen", {})


def card(folder: Path, front: str) -> Path:
    (folder / "README.md").write_text(f"---\n{front}\n---\n# A model\nlicense: nonsense\n")
    return folder


@pytest.mark.parametrize(
    ("front", "expression"),
    [
        ("license: apache-2.0", "Apache-2.0"), ("license: MIT", "MIT"), ("license: gpl-3.0", "GPL-3.0-only"),
        ("license: llama3.1", "LicenseRef-llama3.1"), ("license: gemma", "LicenseRef-gemma"),
        ("license: other\nlicense_name: qwen-research\nlicense_link: https://x/y", "LicenseRef-qwen-research"),
        ("license:\n- mit\n- apache-2.0", "Apache-2.0 AND MIT"), ("license: mit OR apache-2.0", "Apache-2.0 OR MIT"),
        ("license: other", ""), ("license: unknown", ""), ("tags: [a]", ""), ("license: 5", ""), ("license: [", ""),
        ("- a", ""), ("license: " + "[" * 1000, ""), ("license: my own words!", "LicenseRef-my-own-words"),
        ("license: other\nlicense_name: unknown", ""),
    ],
)  # fmt: skip
def test_the_cards_front_matter_is_read(tmp_path: Path, front: str, expression: str) -> None:
    found = find(card(tmp_path, front))
    assert (found.expression, found.where) == (expression, "README.md" if expression else "")


def test_texts_are_compared_with_spdx(tmp_path: Path) -> None:
    (tmp_path / "LICENSE.txt").write_text(MIT)
    assert find(tmp_path) == Licence("MIT", "LICENSE.txt")
    card(tmp_path, "license: mit")
    assert find(tmp_path) == Licence("MIT", "LICENSE.txt, README.md")


def test_card_and_text_that_disagree_both_count(tmp_path: Path) -> None:
    (tmp_path / "LICENSE").write_text(APACHE.read_text())
    assert find(card(tmp_path, "license: mit")).expression == "Apache-2.0 AND MIT"


def test_a_text_that_nobody_knows_has_a_name_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "LICENSE").write_text(TUESDAYS)
    found = find(tmp_path).expression
    assert found.startswith("LicenseRef-text-")
    (tmp_path / "LICENSE").write_text(TUESDAYS.replace("Tuesdays", "Wednesdays"))
    assert find(tmp_path).expression != found
    assert find(card(tmp_path, "license: mit")).expression.endswith("AND MIT"), "the card does not speak for the text"
    own = card(tmp_path, "license: other\nlicense_name: weekdays")
    assert find(own).expression == "LicenseRef-weekdays", "a licence of the model's own comes with its text"


def test_an_annotation_counts_and_nothing_is_nothing(tmp_path: Path) -> None:
    assert find(tmp_path, "MIT") == Licence("MIT", licences.ANNOTATION)
    assert find(tmp_path, "NOASSERTION") == find(tmp_path) == Licence()


def verdict(expression: str, allow: str = "", deny: str = "") -> str:
    policy = LicensePolicy(allow=tuple(allow.split()), deny=tuple(deny.split()))
    try:
        check("hf://o/m", Licence(expression, "README.md"), policy)
    except RunFailed as failed:
        return "refused" if failed.reason is Reason.LICENSE_REFUSED else failed.message
    return "let in"


@pytest.mark.parametrize(
    ("expression", "allow", "deny", "outcome"),
    [
        ("MIT", "MIT Apache-2.0", "", "let in"), ("Apache-2.0", "MIT", "", "refused"), ("MIT", "mit", "", "let in"),
        ("GPL-3.0-only", "gpl-3.0", "", "let in"), ("MIT OR GPL-3.0-only", "MIT", "", "let in"),
        ("MIT AND GPL-3.0-only", "MIT", "", "refused"), ("MIT AND Apache-2.0", "MIT Apache-2.0", "", "let in"),
        ("LicenseRef-gemma", "MIT", "", "refused"), ("LicenseRef-gemma", "LicenseRef-Gemma", "", "let in"),
        ("MIT", "", "GPL-3.0-only", "let in"), ("GPL-3.0-only", "", "GPL-3.0-only", "refused"),
        ("MIT OR GPL-3.0-only", "", "GPL-3.0-only", "let in"), ("MIT AND GPL-3.0-only", "", "GPL-3.0-only", "refused"),
        ("MIT", "MIT", "MIT", "refused"), ("", "MIT", "", "refused"), ("", "", "MIT", "let in"),
        ("GPL-2.0-only WITH Classpath-exception-2.0", "GPL-2.0-only", "", "let in"),
        ("GPL-2.0-only WITH Classpath-exception-2.0", "", "GPL-2.0-only", "refused"),
    ],
)  # fmt: skip
def test_a_policy_decides(expression: str, allow: str, deny: str, outcome: str) -> None:
    assert verdict(expression, allow, deny) == outcome


def test_a_policy_that_names_no_licence_is_a_slip() -> None:
    with pytest.raises(RunFailed, match="Apache2 is no identifier") as failed:
        check("hf://o/m", Licence("MIT", "README.md"), LicensePolicy(allow=("Apache2",)))
    assert failed.value.reason is Reason.INVALID_CONFIGURATION


def base(registry: FakeRegistry, files: dict[str, bytes], **policy: tuple[str, ...]) -> Source:
    registry.artifact("slm/base", files)
    return Source(uri=f"oci://{registry.host}/slm/base", license_policy=LicensePolicy(**policy) if policy else None)


def test_a_model_is_refused_with_the_licence_and_where_it_stands(registry: FakeRegistry, tmp_path: Path) -> None:
    source = base(registry, {"README.md": b"---\nlicense: gemma\n---\n"}, allow=("MIT", "Apache-2.0"))
    with pytest.raises(RunFailed) as failed:
        fetch(source, tmp_path, registry.client())
    assert failed.value.reason is Reason.LICENSE_REFUSED
    assert failed.value.message == (
        f"{source.uri}: its licence is LicenseRef-gemma (README.md); only MIT, Apache-2.0 is let in"
    )


def test_an_unknown_licence_is_refused_where_there_is_an_allow_list(registry: FakeRegistry, tmp_path: Path) -> None:
    source = base(registry, {"config.json": b"{}"}, allow=("MIT",))
    with pytest.raises(
        RunFailed, match=r"its licence is not known: no license in README\.md, no LICENSE file"
    ) as failed:
        fetch(source, tmp_path, registry.client())
    assert failed.value.reason is Reason.LICENSE_REFUSED


def test_what_was_found_goes_into_report_and_annotations(registry: FakeRegistry, tmp_path: Path) -> None:
    context = Context(tmp_path)
    source = base(registry, {"README.md": b"---\nlicense: apache-2.0\n---\n"})
    context.inputs["base"] = fetch(source, tmp_path / "base", registry.client())
    context.inputs["train"] = "oci://elsewhere"
    assert context.licenses == {"base": "Apache-2.0"}
    data = Data(source=Source(uri="oci://elsewhere"), format=ExampleFormat.MESSAGES)
    run = TrainRun(run="r", train=data, output=Sink(repository="r.example/x"))
    assert context.lineage(run)["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert context.lineage(run)["slmops.dev/license.base"] == "Apache-2.0"


def test_a_data_set_has_no_model_licence(registry: FakeRegistry, tmp_path: Path) -> None:
    registry.artifact("slm/data", {"README.md": b"---\nlicense: mit\n---\n"})
    fetch(Source(uri=f"oci://{registry.host}/slm/data"), tmp_path, registry.client(), "dataset")
    assert licences.seen == {}
