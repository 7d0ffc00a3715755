"""Penstock: a self-hosted RAG server that stays fast and loses nothing under load."""

__version__ = "0.1.0"
