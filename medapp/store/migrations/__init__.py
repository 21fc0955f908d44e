"""How older projects become newer ones."""
