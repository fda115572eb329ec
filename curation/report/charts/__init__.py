"""Charts as inline SVG, drawn here, that need no script and keep their text size at any width."""
