"""Protocol files (YAML) and the class lists they name.

The folder is installed as ``vcil_bench.protocols``. Imported under its bare name it would be a second copy of
everything in it, so that is refused.
"""

if __name__ != "vcil_bench.protocols":
    raise ImportError(f"{__name__!r} is installed as 'vcil_bench.protocols'; import it under that name")
