"""Shows what a comparison found: in the terminal, and as one HTML file."""
