# %% [markdown]
# # What does this attribute look like?
#
# After this tutorial you can find the direction of an attribute in the space of embeddings, generate
# images along it, and check with measurements how much of what you see you may believe.
#
# You need no GPU and no training: the packaged pipeline `demo` generates the images. It is small and
# was trained on **simulated images only**. On two CPU cores everything takes a few minutes. Lines
# that start with `!` are commands: in a terminal, type them without the `!`. The other lines are
# Python.
#
# ## 1. Images with a known attribute
#
# An *attribute* varies from image to image: the density of a protein, the periodicity of a
# structure, the age of a culture. The images of this tutorial are **simulated**, so that the truth is
# known. They show puncta of varying density (`density_per_um2`), and actin, where a fraction of the
# light comes from periodic rings (`ring_visibility`) and the rest from fibres.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import tifffile
from IPython.display import Image

from stedfm_hf.data.simulation.attribute_set import simulate_attribute_set
from stedfm_hf.data.simulation.attributes import simulate_attributes
from stedfm_hf.reports import show_image, style

plt.rcParams["figure.dpi"] = 150
simulate_attribute_set("crops", counts={"train": 300}, seed=1)  # 300 of each structure

puncta, actin = Path("puncta"), Path("actin")
for folder in (puncta, actin):
    folder.mkdir(exist_ok=True)
    for number in range(6):
        crop = simulate_attributes(folder.name, seed=2, index=number)
        per_um = {"imagej": True, "resolution": (50, 50), "metadata": {"unit": "um"}}  # pixels of 20 nm
        tifffile.imwrite(folder / f"cell_{number}.tif", crop.image, **per_um)

# %% [markdown]
# The data set `crops` has the attributes in its column `metadata`. The walks below start from the six
# images of each folder, which are not in the data set. With images of your own, [build a data
# set](../how-to/build-a-dataset.md) with a number or a class for each image.
#
# ## 2. Find the direction
#
# `stedfm attribute fit` embeds the crops, and finds the direction in which the number grows:

# %%
# !stedfm attribute fit --dataset crops --target density_per_um2 --model demo --output density

# %% [markdown]
# Only the 300 images of puncta have this number; the others are left out. The *distance* of an image
# along the direction is negative if its number is below the mean of the fitted images, and positive
# if it is above. The score is the rank correlation of the true number with the distance along the direction, for
# source images that the direction was **not** fitted to. If its interval includes 0, stop here: the
# embeddings do not tell the attribute, and images along the direction would show something else.
#
# ## 3. Walk along it
#
# `stedfm attribute walk` finds the noise from which the pipeline generates each image, keeps it, and
# moves only the embedding. The walk leads from the distance of the 5 % of crops with the lowest
# density to that of the 5 % with the highest. For comparison, it leads as far along three random
# directions:

# %%
# !stedfm attribute walk puncta --direction density --model demo --num-inference-steps 25 --random-directions 3 --output walks

# %% alt="Three walks from low to high density of puncta; the first image of each row is the given one"
table = pd.read_parquet("walks/walks.parquet")
own = table[table["direction"] == "density_per_um2"]


def show_walks(folder, rows, count=3):
    """Show the first walks: the given image, then the generated ones."""
    with style():
        figure, grid = plt.subplots(count, 6, figsize=(7.6, 1.35 * count), gridspec_kw={"wspace": 0.05, "hspace": 0.25})
        for line, file in zip(grid, rows["file"].unique()):
            stack = tifffile.imread(Path(folder) / file)
            line[0].set_title("given image")
            for axes, image, distance in zip(line, stack, [None, *rows.loc[rows["file"] == file, "reached"]]):
                show_image(axes, image, limits=(0, np.percentile(stack, 99.8)))
                if distance is not None:
                    axes.set_title(f"{distance:+.1f}")


show_walks("walks", own)

# %% [markdown]
# *Each row is a walk. The numbers are the distances of the embeddings of the generated images.* All
# images of a row start from the same noise, so that what does not belong to the attribute stays
# similar. `walks/report.html` shows all walks.
#
# **These images are not measurements.** They show what the network has learnt about the attribute.
# Two questions must be answered before you believe them.
#
# ### Do the images go where they were sent?

# %% alt="Reached distance over wanted distance of the generated images"
Image("walks/figures/reached.png", width=420)

# %% [markdown]
# *On the dashed line, the embedding of the generated image is where it was moved to.* The slope that
# the command prints says it in a number: 1 is ideal, and below 0.5 the command warns. The grey points
# are the walks in random directions, along which the distance is not meant to change.
#
# ### Does the attribute change, and more than by chance?
#
# `stedfm attribute measure` measures brightness, bright spots, morphology and resolution in all
# images, with confidence intervals over the source images:

# %%
# !stedfm attribute measure walks --output measured

# %%
changes = pd.read_parquet("measured/changes.parquet")
changes["random, largest"] = [np.abs(values).max() for values in changes["random_changes"]]
shown = changes[["attribute", "change", "change_low", "change_high", "spearman", "random, largest"]]
shown[shown["attribute"].isin(["objects", "brightness", "area", "resolution_nm"])].round(3)

# %% [markdown]
# `objects` counts the bright spots. Trust a change only if its interval excludes 0, its rank
# correlation (`spearman`) is near 1 or -1, and it is at least twice the largest change along a random
# direction. Other attributes may change, too: more puncta also make an image brighter.
#
# ## 4. Compare with the truth
#
# Only a simulation has this step: the same cells with more and more puncta, next to the first walk.

# %% alt="First row: simulated images of the same cell with growing density; second row: the walk"
first = own[own["file"] == own["file"].iloc[0]]
truth = [simulate_attributes("puncta", seed=2, index=0, density_per_um2=value).image for value in (1.5, 3, 5, 7, 8.5)]
walk = tifffile.imread(Path("walks") / first["file"].iloc[0])[1:]

with style():
    figure, grid = plt.subplots(2, 5, figsize=(6.6, 2.8), gridspec_kw={"wspace": 0.05, "hspace": 0.08})
    for line, images, name in zip(grid, (truth, walk), ("simulated", "walk")):
        line[0].set_ylabel(name)
        for axes, image in zip(line, images):
            show_image(axes, image)

# %% [markdown]
# *Top: the simulator adds puncta to one cell. Bottom: the walk that starts from this cell.* The
# network never saw two images of one cell. It has learnt how images of low and of high density
# differ, and keeps what the noise determines: a punctum can move or change its brightness.
#
# ## 5. A walk that goes only part of the way
#
# Now the visibility of rings, in images of actin:

# %%
# !stedfm attribute fit --dataset crops --target ring_visibility --model demo --output rings
# !stedfm attribute walk actin --direction rings --model demo --num-inference-steps 25 --output ring-walks

# %% alt="Three walks from low to high visibility of rings"
ring_table = pd.read_parquet("ring-walks/walks.parquet")
show_walks("ring-walks", ring_table[ring_table["direction"] == "ring_visibility"])

# %%
slopes = {
    name: np.polyfit(rows["wanted"], rows["reached"], 1)[0]
    for name, rows in (("density", own), ("rings", ring_table[ring_table["direction"] == "ring_visibility"]))
}
pd.Series(slopes, name="slope of reached over wanted distance").round(2).to_frame()

# %% [markdown]
# The embeddings tell the attribute: the score of the fit is high. But the generated images follow
# only part of the way: the slope is below 0.5, and the command warns. Rings appear in the images, but
# fewer than the embedding asked for. Believe that they appear, not how much: this small network has
# learnt puncta and widths better than regular rings. A longer training on more images, or a GPU,
# would be the cure; looking harder at the images is not.
#
# ## What to conclude, and what not
#
# - A walk shows what a network associates with an attribute. Use it to form a hypothesis, then test
#   the hypothesis on microscope images.
# - Check the held-out score, the reached distances, and the random directions, in this order. If one
#   of them fails, there is nothing to see in the images.
# - Attributes that go together in your images go together in a walk. `--orthogonal-to brightness`
#   keeps one of them.
# - These images are **simulated**, and the pipeline was trained on images of the same simulator.
#
# ## Next
#
# | you want to | read |
# |---|---|
# | train a pipeline on your images | [Generate images](../how-to/generate.md) |
# | know the options of directions and walks | [Show what an attribute looks like](../how-to/show-an-attribute.md) |
# | know how well this pipeline does | [Benchmark of generation](../benchmarks/generation.md) |
