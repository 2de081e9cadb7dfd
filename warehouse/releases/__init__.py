from warehouse.releases.release import (
    Release,
    ReleaseError,
    card_path,
    content_hash,
    create_release,
    delete_release,
    find_release,
    get_release,
    local_release,
)

__all__ = [
    "Release",
    "ReleaseError",
    "card_path",
    "content_hash",
    "create_release",
    "delete_release",
    "find_release",
    "get_release",
    "local_release",
]
