"""What every operation means, in numpy: the specification that passes and backends are tested against.

`core.py` runs modules; the other files hold one dialect's meanings each, written to be read.
"""
