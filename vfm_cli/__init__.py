"""The command line: options in, one call down, a table or a picture out."""
