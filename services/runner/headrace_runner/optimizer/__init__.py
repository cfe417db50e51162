"""Makes variants of a model that cost less, measures what each one costs and gives away, and chooses.

`core` decides and knows neither files nor clocks; the modules beside it build, run, time and write.
"""
