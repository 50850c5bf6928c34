"""One run: planned and refused before any work, then learned, evaluated and recorded task by task."""
