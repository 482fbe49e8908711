# %% [markdown]
# # What is in my data?
#
# After this tutorial you can take a folder of images that nobody has labelled, find images like one
# that caught your eye, ask whether the images fall into groups, and test whether a group belongs to
# one of your conditions. You also see what the result looks like when there are no groups.
#
# You need no labels, no training and no GPU. On two CPU cores everything takes about two minutes.
# Lines that start with `!` are commands: in a terminal, type them without the `!`. The other lines
# are Python.
#
# ## 1. The images
#
# The images of this tutorial are **simulated**, so that everyone can run it and the truth is known.
# The command simulates four structures. The Python code below plays the microscope: it mixes the
# images in one folder, under names that say nothing, and assigns each to a condition, `control` or
# `treated`. **One of the four structures occurs in treated cells only.** There is no drug behind
# this; the point is whether the commands find it.

# %%
# !stedfm data simulate --structures fibres rings clusters puncta --per-structure 36 --no-masks --output simulated

# %%
import shutil
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Image

from stedfm_hf import read_image
from stedfm_hf.reports import label_colours, show_image, style
from stedfm_hf.reports.figures import legend

plt.rcParams["figure.dpi"] = 150
simulated = sorted(Path("simulated/images").rglob("*.tif"))
order = np.random.default_rng(0).permutation(len(simulated))
folder = Path("cells")
folder.mkdir()

rows = []
for number, file in enumerate(simulated[place] for place in order):
    name, structure = f"cell_{number:03}.tif", file.parent.name
    shutil.copy(file, folder / name)
    is_treated = structure == "puncta" or int(file.stem[-5:]) >= 24  # all puncta, and a third of the others
    rows.append({"path": name, "condition": "treated" if is_treated else "control", "structure": structure})
truth = pd.DataFrame(rows)

conditions = truth[["path", "condition"]]  # the structure stays secret until step 5
conditions.to_csv("conditions.csv", index=False)
print(conditions["condition"].value_counts().to_string())
conditions.head(3)

# %% [markdown]
# With images of your own, write a table like `conditions.csv`: a column `path` and a column
# `condition`. Look at some images of both conditions first.

# %% alt="Six simulated images of the control and six of the treated condition"
colours = label_colours(["control", "treated"])

with style():
    figure, grid = plt.subplots(2, 6, figsize=(7.6, 2.8), gridspec_kw={"wspace": 0.05, "hspace": 0.08})
    for line, condition in zip(grid, colours):
        line[0].set_ylabel(condition)
        for axes, name in zip(line, conditions["path"][conditions["condition"] == condition]):
            image = read_image(folder / name)
            show_image(axes, image.array[0], frame=colours[condition], pixel_size_nm=image.pixel_size_nm[1])

# %% [markdown]
# *The first six simulated images of each condition. Both are mixtures, and a few images prove
# nothing: the treated cells may differ, or only these six.*
#
# ## 2. Index the images
#
# An index holds one embedding of every image: a list of numbers that describes its structures.
# `--model demo` is a small encoder that comes with the package and was trained on **simulated images
# only**. For images from a microscope use [the published weights](../how-to/convert-weights.md):
# `--model ./stedfm-vit-small`.

# %%
# !stedfm index cells --model demo --output cells-index

# %% [markdown]
# If several files are crops of one image, say so here with `--source-pattern`. All tests below count
# source images, because crops of one image are not independent.
#
# ## 3. Find images like this one
#
# One treated cell has a structure that you want to see more of. Search the index for similar images:

# %%
# !stedfm search cells-index cells/cell_010.tif --output similar

# %% [markdown]
# `similar/gallery.html` shows all results in the browser. These are the first seven:

# %% alt="The query and its seven most similar images with their scores, framed in the colour of their condition"
query = "cell_010.tif"
results = pd.read_parquet("similar/results.parquet")
condition_of = dict(zip(conditions["path"], conditions["condition"]))

with style():
    figure, grid = plt.subplots(2, 4, figsize=(6.4, 3.9), gridspec_kw={"wspace": 0.06, "hspace": 0.25})
    shown = [(query, "query"), *((path, f"{score:.2f}") for path, score in zip(results["path"], results["score"]))]
    for axes, (path, title) in zip(grid.flat, shown):
        image = read_image(folder / path)
        size = image.pixel_size_nm[1] if title == "query" else None
        show_image(axes, image.array[0], frame=colours[condition_of[path]], pixel_size_nm=size)
        axes.set_title(title)
    legend(grid[1, 0], colours, loc="upper center", bbox_to_anchor=(2.1, -0.03), ncols=2)

# %% [markdown]
# *The query and the most similar images, with their scores (cosine similarity). The colour of a frame
# is the condition.* A search always returns something. It does not say whether these images are a
# group, or how many belong to it: the next step does.
#
# ## 4. Ask for groups
#
# `stedfm cluster` splits the images only where held-out images show a **valley of density** between
# two parts, and tests each part again. The conditions take no part in this. They are used
# afterwards, to colour the tree and to test each node.

# %%
# !stedfm cluster cells-index --annotations conditions.csv --output groups

# %% [markdown]
# Open `groups/report.html` in a browser to walk through the tree: it shows the images, the
# composition and the tests of every node, and works offline. The folder also contains the figures:

# %% alt="Tree of groups; each node is a pie of the conditions"
Image("groups/figures/tree.png", width=560)

# %% [markdown]
# *Each pie is a node; its area grows with its number of images, and its colours are the conditions.
# The root `0` holds all images. In a node without branches there is no further significant valley.*

# %% alt="Map of the images by principal components, coloured by group"
Image("groups/figures/map.png", width=560)

# %% [markdown]
# *Map of the images: the first two principal components. The map only illustrates. The groups were
# found in more dimensions, so groups that overlap here can still be separate.*
#
# Look at the images of each group before you interpret anything:

# %% alt="Six images of each group, one row for each group, framed in the colour of their condition"
memberships = pd.read_parquet("groups/memberships.parquet")
leaves = sorted(memberships["leaf"].unique())

with style():
    size = (7.6, 1.3 * len(leaves))
    figure, grid = plt.subplots(
        len(leaves), 6, figsize=size, squeeze=False, gridspec_kw={"wspace": 0.05, "hspace": 0.08}
    )
    for line, leaf in zip(grid, leaves):
        line[0].set_ylabel(leaf)
        for axes, path in zip(line, memberships["path"][memberships["leaf"] == leaf]):
            show_image(axes, read_image(folder / path).array[0], frame=colours[condition_of[path]])

# %% [markdown]
# *The first six images of each group, with no selection. The colour of a frame is the condition.*
#
# ### Which groups belong to a condition?
#
# For each node, `enrichment.parquet` compares which fraction of the source images of each condition
# is in it. The p value comes from a permutation test, and is corrected for the number of nodes.

# %%
enrichment = pd.read_parquet("groups/enrichment.parquet")
first, second = enrichment["condition"][0], next(name for name in colours if name != enrichment["condition"][0])
shown = enrichment[["node", "fraction", "other_fraction", "p_corrected"]]
shown.columns = ["node", f"{first} images in it", f"{second} images in it", "p, corrected"]
shown.round(4)

# %% [markdown]
# How to read the table:
#
# - A small p value says that the condition and the node are not independent. It does not say how
#   large the difference is: compare the two fractions.
# - Nodes are not independent of each other. The fractions of sibling nodes add up to that of their
#   parent, so if one group is larger in treated cells, others are smaller. Look for the group that
#   one condition has and the other lacks, and do not count every small p value as a discovery.
# - The test assumes that source images are independent. Cells of one dish or animal are not: repeat
#   the experiment, and give the dish as the source with `--source-pattern`.
#
# ## 5. Compare with the truth
#
# Only a simulation has this step. How many images of each structure are in each group?

# %%
joined = memberships[["path", "leaf"]].merge(truth, on="path")
pd.crosstab(joined["structure"], joined["leaf"])

# %% [markdown]
# Check two things: whether the structure that only treated cells have, `puncta`, is in a group that
# the test calls different; and whether the other groups are single structures. A group is a set of
# images that is separated by a valley, not a biological class. **Two structures that lie close
# together stay in one group**, although a trained classifier may tell them apart.
#
# We chose these four structures because the demo encoder separates them well, so that there is
# something to see. Replace `clusters` by `mitochondria` in step 1, and run the tutorial again in an
# empty folder.
#
# ## 6. When there are no groups
#
# Many data sets are one continuum. Here are images of a single structure:

# %%
# !stedfm index simulated/images/rings --model demo --output rings-index
# !stedfm cluster rings-index --output rings-groups

# %% [markdown]
# The result is `No significant groups`. The evidence is shown, too: the clearest valley that the
# command found between two parts.

# %% alt="Held-out density between the two parts with the clearest valley, for images of one structure"
Image("rings-groups/figures/evidence.png", width=560)

# %% [markdown]
# *Held-out images along the line between two parts of the images. Without groups, the density in the
# middle is not significantly lower than in the parts.* The absence of significant groups is not a
# proof that all images are the same: there may be too few of them, or the encoder may not see what
# differs.
#
# You may still want to describe a continuum by a few typical images. `--partition K` cuts the images
# into a number of groups that **you** choose:

# %%
# !stedfm cluster rings-index --partition 3 --output rings-described

# %% alt="Map of the images of one structure in three parts, marked as not significant"
Image("rings-described/figures/map.png", width=560)

# %% [markdown]
# *Every figure, table and page of a partition says that it is a description. Do not report its parts
# as groups.*
#
# ## What to conclude, and what not
#
# - A split means: held-out images are rarer between the parts than in them. It does not name the
#   parts. Only the images tell what they are, and a difference of focus, staining or day is as good a
#   valley as a phenotype.
# - An enriched group means: one condition has more such source images. It does not say why.
# - These images are **simulated**, and the packaged encoder was trained on images of the same
#   simulator. The result says nothing about your microscope.
#
# ## Next
#
# | you want to | read |
# |---|---|
# | know the options of the tree and how the rule works | [Find groups of images](../how-to/cluster.md) |
# | find places in large fields, and refine a search | [Find similar images and places](../how-to/search.md) |
# | measure how well similar images are found | [Evaluate retrieval](../how-to/evaluate-retrieval.md) |
