"""Measurements behind the package's claims, each run by one command."""
