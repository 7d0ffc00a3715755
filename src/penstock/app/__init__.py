"""The objects of a process, built, started and closed in order."""

from penstock.app.services import Services, open_services

__all__ = ["Services", "open_services"]
