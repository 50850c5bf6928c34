"""Templates of ``vcil-bench new-method``; ``new_method.py`` is a method that works as it stands."""
