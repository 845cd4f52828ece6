"""The `fused` engine: one run after the other in compiled epochs, on CPU."""
