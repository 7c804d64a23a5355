"""The command line. It needs the extra `cli`: typer and rich are imported by its commands, never by the library."""
