"""The runtime on an edge node: the OpenAI API over ONNX Runtime GenAI, one model image, one process."""
