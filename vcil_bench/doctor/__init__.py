"""What a machine can do: a report of it, and checks of the whole path on its GPUs.

Nothing here is part of a run; the checks start the project's own commands, as a user would, and look at what
they leave.
"""
