# %% [markdown]
# # From ten annotated crops to masks of whole fields
#
# After this tutorial you can train a segmenter on ten small annotated images, compare it with
# simple methods, apply it to whole fields, and measure every object in µm².
#
# You need no GPU. On two CPU cores everything takes about two minutes. Lines that start with `!`
# are commands: in a terminal, type them without the `!`. The other lines are Python.
#
# ## 1. Annotated crops
#
# The images of this tutorial are **simulated**, so that everyone can run it and the truth is known.
# Each crop shows rings and fibres side by side. The command writes images and masks of three
# splits: 10 to train on, 6 to choose the best weights, and 20 to test the result.

# %%
# !stedfm data simulate --structures rings fibres --mixed --splits train=10 validation=6 test=20 --output annotated

# %% [markdown]
# Your own folder looks the same: `images/a.tif` with `masks/a.tif`. In a mask, 0 is background and
# every other number is a class. You can draw masks in ImageJ, Fiji, napari or QuPath; [Annotate
# images](../how-to/annotate.md) shows which files work and what to annotate. Folders for the splits
# are optional: without them, the command divides the images itself, about 70 % to train and 15 %
# each for validation and test.

# %% alt="Four simulated training crops above their masks: rings blue, fibres orange"
import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Image
from matplotlib.colors import ListedColormap

from stedfm_hf import read_image
from stedfm_hf.reports import label_colours, show_image, style
from stedfm_hf.reports.figures import legend

plt.rcParams["figure.dpi"] = 150
classes = ["rings", "fibres"]
colours = label_colours(classes)
mask_colours = ListedColormap(["#F1F3F5", *colours.values()])

images = sorted(Path("annotated/images/train").glob("*.tif"))[:4]

with style():
    figure, rows = plt.subplots(2, 4, figsize=(7.6, 3.9), gridspec_kw={"wspace": 0.05, "hspace": 0.05})
    for (above, below), path in zip(rows.T, images):
        image = read_image(path)
        mask = read_image(str(path).replace("images", "masks"))
        show_image(above, image.array[0], pixel_size_nm=image.pixel_size_nm[1])
        below.imshow(mask.array[0], cmap=mask_colours, vmin=0, vmax=2, interpolation="nearest")
        below.set(xticks=[], yticks=[], frame_on=False)
    rows[0, 0].set_ylabel("image")
    rows[1, 0].set_ylabel("mask")
    legend(rows[1, 0], colours, loc="upper center", bbox_to_anchor=(2.1, -0.03), ncols=2)

# %% [markdown]
# *Four of the ten training crops (simulated) and their masks. Both structures have the same
# distribution of intensities, so a threshold finds where something is, but not which structure it
# is.*
#
# ## 2. Train the segmenter
#
# Training starts from `demo`, a small encoder that comes with the package and was trained on
# **simulated images only**. For images from a microscope use [the published
# weights](../how-to/convert-weights.md): `--model ./stedfm-vit-small`. 150 steps are few, so that
# the tutorial is short; without `--max-steps` the command chooses the length from the data.

# %%
# !stedfm finetune segmentation --model demo --dataset annotated --max-steps 150 --num-evaluations 5 --output my-segmenter

# %% [markdown]
# `iou`, intersection over union, is the overlap of predicted and true mask: 1 is perfect, 0 is
# none. The folder `my-segmenter` holds the weights that were best on the validation crops. If you
# stop the command, run it again: it resumes.

# %% alt="Loss on training and validation crops, and IoU on the validation crops, over the training steps"
Image("my-segmenter/figures/curve.png", width=760)

# %% [markdown]
# *Left: the loss on training and validation crops. Right: the overlap with the validation masks;
# the dashed line marks the weights that are kept. Training helps as long as the validation curve
# improves. If only the training loss improves, the network memorises your ten crops: annotate more.
# Compare each loss with itself: training crops are altered at random, validation crops are not.*
#
# ## 3. Compare it with simple methods
#
# Would a threshold do as well? `stedfm evaluate segmentation` scores the 20 test crops, which
# nothing was trained or chosen on, for the segmenter and for simpler methods.

# %%
# !stedfm evaluate segmentation --model ./my-segmenter --dataset annotated --min-area-px 20 --output my-masks

# %% alt="Intersection over union of the segmenter and of the baselines for rings and fibres"
metrics = json.loads(Path("my-masks/metrics.json").read_text())
names = {method["key"]: method["name"] for method in metrics["methods"]}
scores = pd.DataFrame(metrics["summary"]).query("metric == 'iou'").set_index(["method", "class"])
methods = list(names)[::-1]

with style():
    figure, panels = plt.subplots(1, 2, figsize=(7.6, 2.8), sharey=True, gridspec_kw={"wspace": 0.16})
    for axes, name in zip(panels, classes):
        for place, method in enumerate(methods):
            mean, low, high = scores.loc[(method, name), ["mean", "low", "high"]]
            axes.barh(place, mean, height=0.7, color=colours[name], alpha=1 if place == len(methods) - 1 else 0.45)
            axes.plot([low, high], [place, place], color="#1F2933", linewidth=1.4)
            axes.text(high + 0.02, place, f"{mean:.2f}", va="center")
        axes.set(title=name, xlim=(0, 1), xlabel="Mean IoU of the test crops")
    panels[0].set_yticks(range(len(methods)), [names[method] for method in methods])

# %%
for name in classes:
    best = max(methods, key=lambda method: scores.loc[(method, name), "mean"])
    print(f"{name}: best is {names[best]}, mean IoU {scores.loc[(best, name), 'mean']:.2f}")

# %% [markdown]
# *Bars: mean over the test crops; lines: 95 % intervals. Full colour is the segmenter that you
# trained. It is worth its training where it is above every baseline. Where a baseline is as good,
# use the baseline. Otsu's threshold finds bright pixels, but cannot tell two structures apart: it
# assigns all of them to the more frequent one.*
#
# Good pixels are not yet good objects. The column `f1` of the table counts objects that overlap an
# annotated one by an IoU above 0.5. Look at it before you count objects or compare their areas.
#
# ## 4. Segment whole fields
#
# Three larger fields, again simulated, stand for your acquisitions. A field may have any size and
# needs no mask.

# %%
# !stedfm data simulate --structures rings fibres --mixed --per-structure 3 --first-index 900 --height 512 --width 512 --no-masks --output fields
# !stedfm segment fields/images --model ./my-segmenter --min-area-px 20 --output segmented

# %% [markdown]
# For every field the folder `segmented` holds the class of every pixel, the objects, and the
# probabilities, as TIFF files that ImageJ and Fiji open. `--min-area-px 20` leaves regions out of
# the table that are smaller than 20 pixels: most are noise.

# %% alt="A simulated field, and the same field with the predicted rings and fibres in colour"
field = "mixed_00900.tif"
image = read_image(f"fields/images/{field}")
labels = read_image(f"segmented/{field}.labels1.tif")

with style():
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.6, 3.9), gridspec_kw={"wspace": 0.04})
    for axes in (left, right):
        show_image(axes, image.array[0], pixel_size_nm=image.pixel_size_nm[1])
    where = np.ma.masked_equal(labels.array[0], 0)
    right.imshow(where, cmap=mask_colours, vmin=0, vmax=2, alpha=0.6, interpolation="nearest")
    left.set_title("field")
    right.set_title("prediction")
    legend(right, colours, loc="upper center", bbox_to_anchor=(0.5, -0.01), ncols=2)

# %% [markdown]
# *Left: a simulated field. Right: the predicted classes in colour. Look for mistakes: where rings
# end or cross, some pixels are assigned to fibres. Look at every kind of field that you have before
# you trust a table: fields that are dimmer or denser than the annotated crops can fail without a
# warning.*
#
# ## 5. Measure the objects
#
# `objects.parquet` has one row for each object, a connected region of a class.

# %%
objects = pd.read_parquet("segmented/objects.parquet")
columns = ["path", "class", "area_px", "area_um2", "equivalent_diameter_um", "eccentricity", "mean_intensity"]
objects[columns].head().round(3)

# %%
print(objects.groupby(["path", "class"])["area_um2"].agg(["count", "median", "sum"]).round(3))

# %% alt="Histograms of the areas of the objects, for rings and fibres"
edges = np.geomspace(objects["area_um2"].min(), objects["area_um2"].max(), 25)

with style():
    figure, axes = plt.subplots(figsize=(7.0, 3.0))
    for name in classes:
        areas = objects.loc[objects["class"] == name, "area_um2"]
        label = f"{name} ({len(areas)} objects)"
        axes.hist(areas, edges, histtype="stepfilled", color=colours[name], alpha=0.45, label=label)
        axes.axvline(areas.median(), color=colours[name], linestyle="--")
    axes.set(xscale="log", xlabel="Area of an object (µm²)", ylabel="Number of objects")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.legend()

# %% [markdown]
# *Areas of all objects in the three fields, on a logarithmic axis; dashed lines are medians. Most
# objects are small, because the stripes of the rings are separate regions. Touching structures
# count as one object, and a broken structure counts as several, so compare areas between conditions
# that were segmented by the same model. Three fields describe these fields, not a population.*
#
# ## What to conclude, and what not
#
# - Ten annotated crops are enough to start. Whether they are enough for your question, the test
#   crops tell.
# - These numbers hold for **simulated images** and a short training. They say nothing about your
#   microscope.
# - The packaged encoder was trained on images of the same simulator, which favours it here.
# - Test on images of other cells, dishes and days than those you trained on. `--source-pattern`
#   keeps crops of one field together.
#
# ## Next
#
# | you want to | read |
# |---|---|
# | annotate images of your own | [Annotate images](../how-to/annotate.md) |
# | train longer, from other weights, or on overlapping classes | [Fine-tune a segmenter](../how-to/finetune-segmentation.md) |
# | know which numbers to report | [Evaluate segmenters](../how-to/evaluate-segmentation.md) |
# | segment stacks, `.msr` files or very large fields | [Segment fields](../how-to/segment.md) |
