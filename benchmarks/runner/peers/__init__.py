"""Other people's solvers as programs: a file in, a word and a witness out."""
