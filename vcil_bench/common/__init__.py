"""What any part of the harness may need: errors, configuration, files, random streams, text on a terminal."""
