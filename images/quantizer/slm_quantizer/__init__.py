"""A model becomes one small image: converted, quantized, verified against the original, packed."""
