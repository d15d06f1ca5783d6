"""Which formats an installation can make: what each needs, and how a variant of another one is refused before any Job."""

from collections.abc import Mapping, Sequence

from slmops.api.conditions import ConditionType
from slmops.api.variant import Format, Variant
from slmops.settings import Settings
from slmops.state import Problem

NEEDS: Mapping[Format, str] = {
    "ONNX": "Microsoft Olive and ONNX Runtime GenAI",
    "Safetensors": "PyTorch and compressed-tensors",
    "GGUF": "a quantizer built with --backends gguf, and in it llama.cpp's convert_hf_to_gguf.py, llama-quantize and "
    "llama-server",
    "OpenVINO": "optimum-intel and nncf",
    "MLX": "mlx-lm",
    "QNN": "Qualcomm's AI Runtime SDK and a program of yours that calls it",
    "TFLite": "Google's LiteRT Torch and a program of yours that calls it",
    "PyTorchMobile": "PyTorch's ExecuTorch and a program of yours that calls it",
}
"""The tool chain of each format."""
GUIDE = "docs/quantization.md#backends"


def unavailable(variants: Sequence[Variant], settings: Settings) -> Problem | None:
    """Why not all of the variants can be built here; None where they can."""
    backends = settings.quantizer.backends
    missing = [variant for variant in variants if variant.format not in backends]
    if not missing:
        return None
    first = missing[0]
    others = f"; likewise {', '.join(variant.name for variant in missing[1:])}" if missing[1:] else ""
    message = (
        f"spec.variants[{first.name}].format: {first.format} needs {NEEDS[first.format]}, which the quantizer's image of "
        f"this installation does not have{others}. It makes {', '.join(backends)}: take one of those, or install an image "
        f"with that tool chain and add {first.format} to quantizer.backends of the chart ({GUIDE})"
    )
    return Problem(ConditionType.ACCEPTED, "BackendUnavailable", message)
