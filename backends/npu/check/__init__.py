"""The independent checker: every rule of an array, written down once more from the documentation.

It imports the data classes of designs and machines and nothing else of neuc: no placer, router or resource pass.
"""
