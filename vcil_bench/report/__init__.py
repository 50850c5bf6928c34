"""Tables and curves from records; imports neither torch nor any method."""
