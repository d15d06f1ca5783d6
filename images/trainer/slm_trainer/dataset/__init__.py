"""What becomes of the records of a data set: filters that drop some, counts of why, and a report that a person can open.

Records go through one by one; what has to be remembered of them is on disk, so memory does not grow with the data.
"""
