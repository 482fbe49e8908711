"""The words of the project: the glossary of CONTRIBUTING.md, and the verbs that summary lines start with."""

from __future__ import annotations

import re
from pathlib import Path

VERBS = frozenset(
    """
    Add Adjust Align Append Apply Approximate Ask Assemble Assert Assign Augment Average Blend Build Cache
    Calculate Call Change Check Choose Classify Clear Clip Close Collect Combine Compare Complete Compose Compute
    Configure Connect Consume Convert Copy Correct Count Cover Create Crop Cut Decide Decode Define Delete Derive
    Describe Detect Determine Discard Display Divide Download Drop Embed Encode End Ensure Enter Estimate Evaluate
    Exclude Execute Exit Expand Export Extract Fetch Fill Filter Find Finish Fit Flatten Fold Follow Format Forward
    Freeze Generate Get Give Go Group Guess Handle Hash Hide Identify Ignore Import Initialise Insert Inspect
    Interpolate Invert Iterate Join Keep Label Leave Limit Link List Load Locate Lock Log Look Make Map Mark Mask
    Match Measure Merge Mirror Mix Move Name Normalise Number Offer Open Order Overlay Pad Parse Plan Plot Pool
    Predict Prefetch Prepare Pretrain Print Process Project Publish Push Put Query Raise Rank Read Rebuild
    Recognise Record Reduce Refuse Register Release Remove Rename Render Reopen Repeat Replace Report Reproduce
    Request Rescale Reset Reshape Resize Resolve Restore Resume Return Reverse Rotate Round Run Sample Save Scale
    Score Search Segment Select Send Serve Set Show Shuffle Simulate Skip Sort Split Stack Standardise Start Stop
    Store Stream Submit Sum Summarise Switch Take Test Track Train Transfer Transform Translate Try Turn Undo
    Unfreeze Unpack Update Upload Use Validate Verify Visit Wait Walk Warn Weight Wrap Write Yield
    """.split()
)
"""Verbs in the imperative; a new one is added here when no other one fits."""


def glossary(page: Path) -> list[str]:
    """Return a regular expression for every word of the left column of the glossary that stands in backticks."""
    section = page.read_text(encoding="utf-8").partition("## Glossary")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("|")]
    words = [word for row in rows for word in re.findall(r"`([^`]+)`", row)]
    assert len(words) > 40
    return [rf"(?<!there )\b{re.escape(word)}\b" if word[0].isalnum() else re.escape(word) for word in words]
