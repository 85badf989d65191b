"""Everything that llamactl knows of llama.cpp."""
