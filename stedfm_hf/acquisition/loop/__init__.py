"""Simulated loop: overview, score, choose, acquire, update; policies compared by what they find per dose and time."""
