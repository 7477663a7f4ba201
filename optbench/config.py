"""What every declarable record shares, whatever room it stands in."""

#: Set as ``__pydantic_config__`` on the frozen dataclasses that a suite file can name: extra keys are errors,
#: so that a misspelt one is never ignored.
FORBID_EXTRA = {"extra": "forbid"}
