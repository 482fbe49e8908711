"""The demo: simulate, train, embed, evaluate and report with one command, in a few minutes on two cores."""
