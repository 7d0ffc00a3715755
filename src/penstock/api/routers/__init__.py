"""One noun a file: what can be done with it over HTTP."""
