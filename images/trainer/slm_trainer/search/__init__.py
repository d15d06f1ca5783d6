"""A search for hyperparameters with Optuna: choose values, judge a trial while it trains, show what came of all.

Optuna's study lives in memory alone and is made anew each time, from what the run is told of the trials so far.
"""
