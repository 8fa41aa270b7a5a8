"""Exact Hamming search: windows of consecutive codes among the codes of a collection."""
