"""Management commands of llamactl: run, prepare, drain, doctor, check_config."""
