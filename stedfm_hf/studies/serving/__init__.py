"""`stedfm study serve`: web pages on which people take part in a study.

What a participant sees is a function of the study file and of the stored answers, so that nothing is kept between
requests: a reload, the back button, a second tab or a restart of the server shows the next trial. Every form names the
trial that it answers, and an answer is stored once.
"""
