"""Parts of the page; each keeps its own sources equal to the newest snapshot."""
