"""vcil-bench: a benchmark harness for Video Class-Incremental Learning."""

from pathlib import Path

__version__ = "0.1.0"

# The top-level folders methods/ and protocols/ are installed as vcil_bench.methods and vcil_bench.protocols.
# In a tree that is not installed they lie beside this folder, so the tree's root joins the search path.
if not (Path(__file__).parent / "methods").is_dir():
    __path__.append(str(Path(__file__).resolve().parent.parent))
