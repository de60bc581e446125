"""Market prices: collected, imported, and read with where they come from and how old they are."""
