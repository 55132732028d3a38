"""Repair: two ledgers find out in what they differ, and exchange exactly that.

Push (flooding of news) is fast and may lose; this pull makes every loss good on a new link and every 10 s.
"""
