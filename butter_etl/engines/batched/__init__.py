"""The `torch` engine: the runs of a stack in batched matrix products, on CPU or CUDA."""
