"""Where parts come from besides the page and REST: a watched folder, a camera."""
