"""The interactive report: one HTML file that needs no network and holds every run, not only the means."""

from .document import PaperTable, build
from .thumbnails import Thumbnails

__all__ = ["PaperTable", "Thumbnails", "build"]
