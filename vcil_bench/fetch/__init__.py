"""Fetching of datasets and weights: a table of sources, downloads that resume, archives unpacked into place.

A dataset comes from its publishers' addresses, a mirror or a folder, and lies then as its adapter expects it
(``vcil_bench.data.datasets``). Nothing is written outside the folder that was named.
"""
