"""Where in the index a collection lies: its passages under an id, its pictures beside them, in vectors of their own
size. What happens to the one place happens to the other; an engine knows them as two collections, no more."""


def pictures_place(index_id: str) -> str:
    """Where the vectors of the pictures are. It exists only where there are pictures and an image model."""
    return f"{index_id}_pictures"


def places(index_id: str) -> tuple[str, str]:
    """All that must be purged, dropped and tidied for a collection."""
    return index_id, pictures_place(index_id)
