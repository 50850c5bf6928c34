"""The interactive report: one HTML file that needs no network and holds every run, not only the means."""

from .document import PaperTable, build

__all__ = ["PaperTable", "build"]
