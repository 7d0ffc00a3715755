"""The worker process: models loaded and warmed, index and parsers open, and only then jobs leased."""
