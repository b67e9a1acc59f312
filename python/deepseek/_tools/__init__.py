"""Programs for those who work on the package; nothing imports them."""
