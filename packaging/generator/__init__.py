"""Manual pages and completions, from what the program itself knows."""
