"""The service on the line: a store that loses nothing, the line's decisions in plain Python, REST and pages on top.

Of these modules only app.py, auth.py and the folders api/ and pages/ know of the web.
"""
