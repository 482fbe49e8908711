"""The words of the project: the glossary of CONTRIBUTING.md, and the verbs that summary lines start with."""

from __future__ import annotations

import re
from pathlib import Path

VERBS = frozenset(
    """
    Acquire Add Adjust Align Analyse Append Apply Approximate Arrange Ask Assemble Assert Assign Assume Augment Average
    Bind Blend Blur Build Cache Calculate Calibrate Call Change Check Choose Cite Classify Clean Clear Clip Clone
    Close Cluster Collect Combine Compare Complete Compose Compute Concatenate Configure Connect Consume Control
    Convert Copy Correct Count Cover Create Crop Cut Decide Decode Decrease Deduplicate Define Delegate Delete
    Deliver Derive Describe Detect Determine Discard Display Distribute Divide Download Downscale Draft Drop Embed
    Emit Emulate Encode End Ensure Enter Estimate Evaluate Exchange Exclude Execute Exit Expand Explain Export
    Extend Extract Fetch Fill Filter Find Finish Fit Flatten Fold Follow Format Forward Freeze Generate Get Give Go
    Group Grow Guess Handle Hash Hide Identify Ignore Import Increase Index Infer Inform Initialise Insert Inspect
    Integrate Interpolate Interpret Invert Iterate Join Keep Label Launch Lay Leave Limit Link List Load Locate
    Lock Log Look Lower Make Manage Map Mark Mask Match Measure Merge Mirror Mix Move Multiply Name Normalise
    Notify Number Obtain Offer Open Order Overlay Pad Parametrise Parse Permute Persist Place Plan Plot Pool
    Predict Prefetch Preload Prepare Pretrain Preview Print Process Project Promote Prove Publish Push Put Quantise
    Query Raise Rank Read Rebuild Reclaim Recognise Recompute Reconstruct Record Recover Redirect Reduce Refresh
    Refuse Register Regress Reject Relate Release Reload Remove Rename Render Reopen Repeat Replace Report
    Reproduce Request Resample Rescale Rescore Reserve Reset Reshape Resize Resolve Respond Restore Resume Retry
    Return Reuse Reverse Rewrap Rewrite Rotate Round Run Sample Save Scale Scan Scatter Schedule Score Search Seed
    Segment Select Send Serve Set Shift Shorten Show Shrink Shuffle Simulate Skip Smooth Sort Split Squeeze Stack
    Standardise Start Stop Store Stream Submit Subtract Suggest Sum Summarise Support Swap Sweep Switch Synchronise
    Take Test Threshold Tile Tokenise Touch Trace Track Train Transfer Transform Translate Trigger Trim Truncate
    Try Turn Undo Unfreeze Unpack Unwrap Update Upload Upscale Use Validate Verify View Visit Vote Wait Walk Warn
    Weigh Weight Wrap Write Yield Zero
    """.split()
)
"""Verbs in the imperative; a new one is added here when no other one fits."""


def glossary(page: Path) -> list[str]:
    """Return a regular expression for every word of the left column of the glossary that stands in backticks."""
    section = page.read_text(encoding="utf-8").partition("## Glossary")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("|")]
    words = [word for row in rows for word in re.findall(r"`([^`]+)`", row)]
    assert len(words) > 40
    return [
        rf"(?<!there )(?<!can be )\b{re.escape(word)}\b(?! longer\b)" if word[0].isalnum() else re.escape(word)
        for word in words
    ]
