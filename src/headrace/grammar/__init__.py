"""Constraints on an answer: from a schema, an expression or a grammar to the tokens that may come next.

`translate.py` says what each kind of constraint means, `compiler.py` refuses those that cannot be met, `state.py` is
where one answer stands, and `masks.py` has the tokens that a step's answers may go on with. The parser is llguidance.
"""
