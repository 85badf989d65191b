"""Everything that llamactl knows of MLX."""
