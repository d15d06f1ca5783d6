"""What a program with Foundry Local's SDK does with a model folder: register it, list it, load it, ask it.

``ask.py FOLDER PLACE QUESTION…``, in an environment of its own, since the SDK pins the runtime's version. PLACE is an empty
folder for what the SDK keeps. Prints JSON: ``listed``, ``loaded``, ``context``, ``answers``.
"""

import json
import sys
from pathlib import Path

from foundry_local_sdk import (
    CatalogType,
    ChatSession,
    Configuration,
    FoundryLocalManager,
    MessageItem,
    ModelInfoBuilder,
    Request,
    RequestOptions,
    SearchOptions,
    TextItem,
)


def ask(model: object, question: str) -> str:
    """A greedy answer."""
    with ChatSession(model) as session:
        session.set_options(
            RequestOptions(search=SearchOptions(temperature=0.0, do_sample=False, max_output_tokens=64))
        )
        with Request().add_item(MessageItem.user(question)) as request, session.process_request(request) as response:
            return "".join(text for item in response for text in texts(item))


def texts(item: object) -> list[str]:
    """The text in a part of an answer."""
    if isinstance(item, TextItem):
        return [item.text]
    return [part.text for part in getattr(item, "parts", ()) if isinstance(part, TextItem)]


def main(folder: Path, place: Path, questions: list[str]) -> None:
    """Do it."""
    # An address where nobody listens: the public catalogue is no part of this.
    FoundryLocalManager.initialize(Configuration(
        app_name="slmops", app_data_dir=str(place), model_cache_dir=str(place / "models"), logs_dir=str(place / "logs"),
        catalog_urls=[("http://127.0.0.1:9/asset-gallery/v1.0/models", None)], disable_nonessential_telemetry=True,
    ))  # fmt: skip
    manager = FoundryLocalManager.instance
    catalog = manager.get_catalog(CatalogType.LOCAL)
    name = json.loads((folder / "inference_model.json").read_text())["Name"]
    with ModelInfoBuilder() as about:
        about.set_string_property("task", "chat-completion")
        model = catalog.register_model(folder, name, about)
    listed = [each.id for each in catalog.list_models()]
    model.load()
    loaded = [each.id for each in catalog.get_loaded_models()]
    answers = [ask(model, question) for question in questions]
    print(json.dumps({"listed": listed, "loaded": loaded, "context": model.context_length, "answers": answers}))
    model.unload()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
