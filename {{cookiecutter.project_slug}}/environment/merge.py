"""Where upgrades were merged until 0.3.0, and nothing more.

`make upgrade` of 0.2.0 takes a version without this file for one without the verb.
"""
