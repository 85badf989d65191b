"""``manage.py doctor``: what is wrong here, and how is it mended?

Each module has one subject: facts (a small dataclass), a function that gathers them, and a function
that judges them, which is where the rules are.
"""
