# %% [markdown]
# # From a folder of TIFFs to a map of similar images
#
# After this tutorial you can turn a folder of microscope images into a map on which similar images
# lie close together. You can also ask for the images that are most similar to one image, and
# measure how far to trust the answer.
#
# You need no labels, no training and no GPU. On two CPU cores everything takes about two minutes.
# Lines that start with `!` are commands: in a terminal, type them without the `!`. The other lines
# are Python.
#
# ## 1. The images
#
# The images of this tutorial are **simulated**, so that everyone can run it. The command writes 50
# 16-bit TIFF images of each of four structures, in one subfolder for each structure.

# %%
# !stedfm data simulate --structures rings fibres puncta mitochondria --per-structure 50 --no-masks --output simulated

# %% [markdown]
# With images of your own, skip this command and write your folder instead of `simulated/images`
# from here on. TIFF, OME-TIFF, Imspector (`.msr`, `.obf`), PNG and NumPy files work ([all
# formats](../reference/file-formats.md)). Subfolders are optional: here they name the structures,
# which colours the map and makes the check in step 5 possible.
#
# First look at a few images. `read_image` returns the pixels as the microscope stored them, and the
# pixel size for the scale bar.

# %% alt="Three simulated images of each of four structures: fibres, mitochondria, puncta and rings"
import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.manifold import TSNE
from sklearn.preprocessing import StandardScaler, normalize

from stedfm_hf import read_image
from stedfm_hf.reports import label_colours, show_image, style
from stedfm_hf.reports.figures import legend, scatter_images

folder = Path("simulated/images")
structures = sorted(path.name for path in folder.iterdir())
colours = label_colours(structures)
plt.rcParams["figure.dpi"] = 150

with style():
    figure, rows = plt.subplots(3, 4, figsize=(7.6, 5.7), gridspec_kw={"wspace": 0.05, "hspace": 0.05})
    for column, structure in zip(rows.T, structures):
        column[0].set_title(structure)
        for axes, path in zip(column, sorted((folder / structure).glob("*.tif"))):
            image = read_image(path)
            show_image(axes, image.array[0], pixel_size_nm=image.pixel_size_nm[1])

# %% [markdown]
# *Simulated images, three of each structure; each one is scaled from its darkest to its brightest
# pixels. The structures differ in shape. The simulation gives all of them the same distribution of
# intensities, so brightness alone does not tell them apart.*
#
# `stedfm info` prints what a file contains. Check the pixel size: scale bars and areas depend on
# it.

# %%
# !stedfm info simulated/images/rings/rings_00000.tif simulated/images/puncta/puncta_00000.tif

# %% [markdown]
# ## 2. Compute embeddings
#
# A model turns every image into an embedding: a list of numbers that describes its structures.
# Similar images get similar embeddings.
#
# `--model demo` is a small encoder that comes with the package. It was trained on **simulated
# images only**. For images from a microscope use [the published
# weights](../how-to/convert-weights.md): `--model ./stedfm-vit-small`.

# %%
# !stedfm embed simulated/images --model demo --output embeddings.parquet

# %% [markdown]
# The table has one row for each image and channel. If you stop the command, run it again: it
# resumes.

# %%
table = pd.read_parquet("embeddings.parquet")
table["structure"] = [Path(path).parent.name for path in table["path"]]
embeddings = np.stack(table["embedding"])

print(embeddings.shape[0], "images,", embeddings.shape[1], "numbers in each embedding")
table[["path", "structure", "height", "width", "pixel_size_nm"]].head()

# %% [markdown]
# ## 3. Draw the map
#
# First give all numbers of an embedding the same weight: subtract the mean over all images, divide
# by the standard deviation, and scale each embedding to length 1. t-SNE then places the images in
# two dimensions, so that images with similar embeddings become neighbours. The network never saw
# the names of the folders; they only choose the colours.

# %% alt="Map of the simulated images: t-SNE of the embeddings, coloured by structure; right, with thumbnails"
features = normalize(StandardScaler().fit_transform(embeddings))
places = TSNE(perplexity=20, init="pca", random_state=0).fit_transform(features)
pictures = [read_image(folder / path).array[0] for path in table["path"]]

dot_colours = [colours[name] for name in table["structure"]]

with style():
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 4.2), gridspec_kw={"wspace": 0.06})
    scatter_images(left, places, pictures, dot_colours, most=0)
    scatter_images(right, places, pictures, dot_colours, thumbnail=0.1)
    legend(left, colours, loc="lower center", bbox_to_anchor=(1.03, 1.0), ncols=4)
    for axes in (left, right):
        axes.set(xlabel="t-SNE, first axis (no unit)")
    left.set(ylabel="t-SNE, second axis (no unit)")

# %% [markdown]
# *Left: every dot is an image. Right: the same map with some images as thumbnails (the central 96
# pixels, 1.9 µm wide). Images of one structure form groups where the encoder sees that they have
# something in common; groups that touch are hard for it to tell apart. Do not conclude more from
# the map: sizes of groups and distances between them have no meaning in t-SNE.*
#
# A map of your images may group by something other than biology: the day, the staining, the depth
# or the signal-to-noise ratio. Colour it by these, too.
#
# ## 4. Find similar images
#
# The cosine similarity of two embeddings is 1 if they point in the same direction, 0 if they are
# unrelated, and negative if they are opposite.

# %% alt="Four query images, each with its five most similar images and their cosine similarities"
similarity = features @ features.T


def find_similar(query, count=5):
    """Return the row numbers of the images that are most similar to an image."""
    others = [index for index in np.argsort(-similarity[query]) if index != query]
    return others[:count]


queries = [table.index[table["structure"] == name][0] for name in structures]  # the first image of each structure

with style():
    figure, rows = plt.subplots(4, 6, figsize=(7.6, 5.9), gridspec_kw={"wspace": 0.08, "hspace": 0.28})
    for row, query in zip(rows, queries):
        for axes, index in zip(row, [query, *find_similar(query)]):
            pixel_size = table["pixel_size_nm"][index][1] if index == query else None
            show_image(axes, pictures[index], frame=colours[table["structure"][index]], pixel_size_nm=pixel_size)
            axes.set_title("query" if index == query else f"{similarity[query, index]:.2f}")
    legend(rows[-1, 0], colours, loc="upper center", bbox_to_anchor=(3.4, -0.05), ncols=4)

# %% [markdown]
# *The first column shows the first image of each structure, with no selection; then come its five
# most similar images and their cosine similarity. The colour of a frame is the structure. A frame
# of another colour than that of the query is an image that the encoder confuses with it. Four
# queries are examples; the next step counts over all images.*
#
# For one image of yours, call `find_similar` with its row number in the table.

# %%
query = queries[-1]
nearest = table.loc[find_similar(query), ["path"]].assign(similarity=similarity[query, find_similar(query)].round(2))
print("Most similar to", table["path"][query])
print(nearest.to_string(index=False))

# %% [markdown]
# ## 5. Check it against simple baselines
#
# Where the structures of the images are known, `stedfm evaluate knn` counts how often the nearest
# neighbours show the same structure as the image. `--leave-one-out` compares every image with all
# others, and `--zscore` standardises the embeddings as above. The baselines show whether the
# encoder is worth it: the same network without training, the intensity histogram, texture features,
# the pixels, the power spectrum, and chance.

# %%
# !stedfm evaluate knn --model demo --dataset simulated/images --leave-one-out --zscore --output my-knn

# %% [markdown]
# `my-knn/report.html` holds all results and which structures are confused with which. This figure
# shows one column of the table:

# %% alt="Accuracy of five nearest neighbours of the encoder and of the baselines"
results = json.loads(Path("my-knn/results.json").read_text())
names = {method["key"]: method["name"] for method in results["methods"]}
shown = [each for each in results["summary"] if each["setting"] == "5 neighbours"][::-1]

with style():
    figure, axes = plt.subplots(figsize=(7.0, 2.9))
    for place, each in enumerate(shown):
        low, high = (100 * bound for bound in each["interval"])
        accuracy = 100 * each["accuracy"]["mean"]
        colour = "#0072B2" if each["method"] == "demo" else "#9AA5B1"
        axes.barh(place, accuracy, color=colour, height=0.7)
        axes.plot([low, high], [place, place], color="#1F2933", linewidth=1.4)
        axes.text(high + 1.5, place, f"{accuracy:.0f} %", va="center")
    axes.set_yticks(range(len(shown)), [names[each["method"]] for each in shown])
    axes.set(xlim=(0, 100), xlabel="Accuracy of five nearest neighbours (% of images; line: 95 % interval)")

# %%
best = max(shown, key=lambda each: each["accuracy"]["mean"])
baseline = max((each for each in shown if each["method"] != "demo"), key=lambda each: each["accuracy"]["mean"])
print(f"Best of all: {names[best['method']]}, {100 * best['accuracy']['mean']:.0f} % of {len(table)} images.")
print(f"Best baseline: {names[baseline['method']]}, {100 * baseline['accuracy']['mean']:.0f} %.")

# %% [markdown]
# *If the encoder is above every baseline and the intervals do not overlap, its neighbours are
# better than those of simple features, on these images. If a baseline wins on yours, use the
# baseline: it is cheaper and easier to explain.*
#
# ## What to conclude, and what not
#
# - The embeddings find images that look alike, without labels. The check in step 5 tells how
#   reliably.
# - These numbers hold for **simulated images**. The packaged encoder was trained on images of the
#   same simulator, so the comparison favours it. They say nothing about your microscope.
# - Several images of one cell, dish or day resemble each other for reasons other than structure.
#   Name the sources with `--source-pattern`, or accuracies come out too high ([Evaluate
#   embeddings](../how-to/evaluate-classification.md)).
#
# ## Next
#
# | you want to | read |
# |---|---|
# | embed large images, stacks or several channels | [Embed images](../how-to/embed.md) |
# | train a classifier on labelled images | [Fine-tune a classifier](../how-to/finetune-classification.md) |
# | pretrain an encoder on your own images | [Pretrain on images from your own microscope](pretrain.md) |
