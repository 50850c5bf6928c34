"""One file, one method: every module here that does not begin with an underscore is found by itself.

The folder is installed as ``vcil_bench.methods``. Imported under its bare name it would be a second copy of
everything in it, so that is refused.
"""

if __name__ != "vcil_bench.methods":
    raise ImportError(f"{__name__!r} is installed as 'vcil_bench.methods'; import it under that name")
