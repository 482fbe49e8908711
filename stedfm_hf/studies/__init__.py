"""Studies that ask people about images: study files, answers, analysis, and power analysis with simulated raters.

Two contracts hold the package together: the study file (`study.py`) and the table of answers (`answers.py`). What is
shown next to a participant is a function of both (`plan.py`).
"""
