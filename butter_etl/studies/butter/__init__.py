"""The BUTTER study: fully connected networks on tables."""
