"""What the user touches: `neuc.compile`, the command line, importers, pipelines and reports.

Nothing is imported here, so that `neuc --version` and a cached compile stay quick. A function in this folder that does
more than wire parts together belongs a floor below.
"""
