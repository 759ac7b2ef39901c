"""The speed table: tlbench beside the tools that people use, on the same work in the same run.

``python -m speed`` (or ``tox -e speed``) measures every row of `speed.works`, checks that the numbers of both sides
agree, and exits 1 where a bar is missed or numbers differ. What a row compares stands in `speed.works`; how its two
sides are called stands in the module that the row names as its theme.
"""
