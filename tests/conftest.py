"""What all tests share: hypothesis draws the same examples in every run, so that CI is repeatable.

To look for new failures: ``pytest --hypothesis-profile=explore``.
"""

from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None)
settings.load_profile("repeatable")
