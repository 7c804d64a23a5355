"""The front door: every name in headrace.__all__ exists, once, and in the order that ruff's RUF022 keeps."""

import headrace


def test_every_exported_name_exists():
    assert [name for name in headrace.__all__ if not hasattr(headrace, name)] == []


def test_exports_are_sorted_and_unique():
    assert headrace.__all__ == sorted(set(headrace.__all__), key=order)


def order(name: str) -> tuple[int, str]:
    """CONSTANTS, then Classes, then functions."""
    if name.isupper() and len(name) > 1:
        return 0, name
    return (1, name) if name[0].isupper() else (2, name)
