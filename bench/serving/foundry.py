"""Foundry Local's own server with a model of ours: ``python foundry.py CACHE PLACE PORT NAME``.

It lists what a catalogue on the network names, and asks it at each request for what it does not know; so there is one here
that names our model. CACHE has the model's folder in it, PLACE is an empty one for what the SDK keeps.
"""

import json
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from foundry_local_sdk import Configuration, FoundryLocalManager


def catalogue(name: str) -> int:
    """A catalogue with one model; its port."""
    asset = f"azureml://registries/local/models/{name}/versions/1"
    about = {
        "assetId": asset, "name": name, "version": "1", "alias": name, "displayName": name, "publisher": "slmops",
        "inferenceTasks": ["chat-completion"], "deploymentOptions": ["Foundry Local on Devices"],
        "variantInformation": {
            "parents": [{"assetId": asset}],
            "variantMetadata": {"modelType": "ONNX", "device": "cpu", "executionProvider": "CPUExecutionProvider"},
        },
    }  # fmt: skip
    page = json.dumps({"summaries": [about], "totalCount": 1}).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port


def main(cache: str, place: str, port: str, name: str) -> None:
    """Serve."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    FoundryLocalManager.initialize(Configuration(
        app_name="slmops", app_data_dir=place, model_cache_dir=cache, logs_dir=f"{place}/logs",
        catalog_urls=[(f"http://127.0.0.1:{catalogue(name)}/asset-gallery/v1.0/models", None)],
        disable_nonessential_telemetry=True, web=Configuration.WebService(urls=f"http://127.0.0.1:{port}"),
    ))  # fmt: skip
    manager = FoundryLocalManager.instance
    manager.get_catalog().get_model_variant(f"{name}:1").load()
    manager.start_web_service()
    signal.pause()


if __name__ == "__main__":
    main(*sys.argv[1:])
