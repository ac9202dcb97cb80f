"""The command line: commands, progress and exit codes; everything else is called by its door."""
