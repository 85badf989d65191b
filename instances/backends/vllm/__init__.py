"""Everything that llamactl knows of vLLM."""
