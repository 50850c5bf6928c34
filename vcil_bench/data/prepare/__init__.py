"""Preparing a dataset: every video is read once, and what was found is kept and reported."""
