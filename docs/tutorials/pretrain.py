# %% [markdown]
# # Pretrain on images from your own microscope
#
# After this tutorial you can turn a folder of microscope images into a data set, pretrain an
# encoder on it without any labels, and measure whether the training was worth it.
#
# A masked autoencoder learns by hiding most of an image and predicting the hidden part from the
# rest. To do that, it has to learn what structures look like. Afterwards the encoder turns images
# into embeddings.
#
# You need no GPU for the small network of this tutorial. On two CPU cores everything takes about
# three minutes. Lines that start with `!` are commands: in a terminal, type them without the `!`.
# The other lines are Python.
#
# ## 1. The images
#
# The images of this tutorial are **simulated**, so that everyone can run it: 16-bit TIFF files in
# the folder `microscope/images`. They stand for the files of your microscope.

# %%
# !stedfm data simulate --structures rings fibres puncta mitochondria --per-structure 100 --height 256 --width 256 --no-masks --output microscope

# %% [markdown]
# Write your own folder instead. TIFF, OME-TIFF and Imspector files (`.msr`, `.obf`) can be mixed
# ([all formats](../reference/file-formats.md)). Pretraining needs no labels. Here the names of the
# subfolders are kept as labels; they only serve to report how well the embeddings separate them.

# %% alt="One simulated field of each of four structures"
import json
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from IPython.display import Image
from transformers import AutoImageProcessor, AutoModel

from stedfm_hf import read_image  # also registers STED-FM with transformers
from stedfm_hf.reports import show_image, style

plt.rcParams["figure.dpi"] = 150
folders = sorted(Path("microscope/images").iterdir())

with style():
    figure, row = plt.subplots(1, 4, figsize=(7.6, 2.1), gridspec_kw={"wspace": 0.05})
    for axes, folder in zip(row, folders):
        image = read_image(sorted(folder.glob("*.tif"))[0])
        show_image(axes, image.array[0], pixel_size_nm=image.pixel_size_nm[1])
        axes.set_title(folder.name)

# %% [markdown]
# *One simulated field of each structure, 256 x 256 pixels.*
#
# ## 2. Build a data set
#
# `stedfm data build` cuts the fields into crops, leaves out empty ones, and puts every file into
# one of two splits: training and validation. All crops of a file are in the same split, so that the
# held-out loss is measured on fields that the network was not trained on. `--test 0` makes no test
# split, because step 5 uses other files.

# %%
# !stedfm data build microscope/images --labels folder --crop-size 128 --test 0 --output my-crops

# %% [markdown]
# `stedfm data stats` plots the crops. Look at them before you train: empty or saturated crops, or a
# forgotten channel, are easiest to see here.

# %%
# !stedfm data stats my-crops --output my-crops-stats

# %% alt="Contact sheet: random crops of each structure"
Image("my-crops-stats/contact_sheet.png", width=640)

# %% [markdown]
# *Random crops of the data set (simulated), 128 x 128 pixels each.*
#
# ## 3. Pretrain
#
# The recipe `64-p8` is a small network. It learns from squares of 64 pixels, which are sampled from
# the crops. 1000 steps of 32 squares are a very short training, so that the tutorial ends soon.
# Every 250 steps the command evaluates the network on held-out crops and saves a checkpoint.

# %%
# !stedfm pretrain --recipe 64-p8 --dataset my-crops --max-steps 1000 --effective-batch-size 32 --eval-steps 250 --save-steps 250 --output run

# %% [markdown]
# **If the training is interrupted**, by Ctrl-C, a power cut or the end of a job, run the same
# command again. It resumes from the newest complete checkpoint. On a CPU the result is the same,
# bit for bit, as without the interruption. Run again now, the command finds that the training has
# finished:

# %%
# !stedfm pretrain --recipe 64-p8 --dataset my-crops --max-steps 1000 --effective-batch-size 32 --eval-steps 250 --save-steps 250 --output run

# %% [markdown]
# ## 4. Does it learn?
#
# The folder `run` holds the network, the curve as a table (`curve.csv`) and figures.

# %% alt="Training loss and held-out loss over the steps, PSNR, kNN accuracy and learning rate"
Image("run/figures/curve.png", width=760)

# %% [markdown]
# *Above: the mean squared error of the masked pixels, on training crops and on held-out crops. The
# dashed line is the error of the best constant: a network below it has learned more than the mean
# brightness. If the held-out loss rises while the training loss falls, the network memorises the
# crops: add images. Below: peak signal-to-noise ratio (PSNR) of the masked pixels,
# nearest-neighbour (kNN) accuracy of single squares of 64 pixels, and the learning rate. Small
# squares often show little, so do not judge the embeddings by this accuracy. Part of the loss is
# noise that no network can predict, so it never reaches zero.*

# %% alt="Held-out crops, what the network sees of them, its reconstruction, and the difference"
Image("run/figures/reconstructions.png", width=640)

# %% [markdown]
# *Held-out crops (simulated). The network sees only the patches in the second column and predicts
# the others. In the last column, red is too bright and blue too dark. Blurred reconstructions are
# expected: the noise cannot be predicted, and this training is very short. Good reconstructions are
# not the aim. The next step tests the embeddings.*
#
# ## 5. Was it worth it?
#
# `stedfm evaluate knn` counts how often the five nearest neighbours of an image show the same
# structure. It compares the encoder with the **same network without training** and with simple
# features. Test on images that the network was not trained on: here 200 further simulated images
# stand for those that your microscope records next. `demo` is included to show what more training
# does: it is the same architecture after 15,000 steps of 64 squares.

# %%
# !stedfm data simulate --structures rings fibres puncta mitochondria --per-structure 50 --first-index 1000 --no-masks --output next
# !stedfm evaluate knn --model ./run demo --dataset next/images --leave-one-out --zscore --output my-knn

# %% alt="Accuracy of five nearest neighbours: pretrained network, untrained network and simple features"
results = json.loads(Path("my-knn/results.json").read_text())
names = {method["key"]: method["name"] for method in results["methods"]}
shown = [each for each in results["summary"] if each["setting"] == "5 neighbours"][::-1]

with style():
    figure, axes = plt.subplots(figsize=(7.0, 2.9))
    for place, each in enumerate(shown):
        low, high = (100 * bound for bound in each["interval"])
        accuracy = 100 * each["accuracy"]["mean"]
        colour = {"run": "#0072B2", "demo (packaged)": "#56B4E9"}.get(names[each["method"]], "#9AA5B1")
        axes.barh(place, accuracy, height=0.7, color=colour)
        axes.plot([low, high], [place, place], color="#1F2933", linewidth=1.4)
        axes.text(high + 1.5, place, f"{accuracy:.0f} %", va="center")
    axes.set_yticks(range(len(shown)), [names[each["method"]] for each in shown])
    axes.set(xlim=(0, 100), xlabel="Accuracy of five nearest neighbours (% of images; line: 95 % interval)")

# %%
pretrained = shown[-1]
low, high = pretrained["interval"]
for other in shown[-2::-1]:
    order = "above" if pretrained["accuracy"]["mean"] > other["accuracy"]["mean"] else "not above"
    relation = "are apart" if low > other["interval"][1] or high < other["interval"][0] else "overlap"
    print(f"run is {order}: {names[other['method']]} (the intervals {relation})")

# %% [markdown]
# *Blue: your network, `run`, and `demo`, which was trained for much longer on images of the same
# simulator. The difference between `run` and the untrained network is what the training has added.
# After so short a training, features that are made for textures can be better than the network:
# then train longer and on more images, or use these features. Where intervals overlap, do not rank
# the two: test on more images. `my-knn/report.html` also tests the differences between the
# methods.*
#
# ## 6. Use the encoder
#
# `run` is a model folder like any other: pass it to `--model` of `stedfm embed` or `stedfm
# finetune`, or load it in Python.

# %%
processor = AutoImageProcessor.from_pretrained("run")
model = AutoModel.from_pretrained("run").eval()

image = read_image("microscope/images/rings/rings_00000.tif")
with torch.no_grad():
    output = model(**processor(image, return_tensors="pt"))
print("embedding of the image:", tuple(output.pooler_output.shape))
print("class token and patches:", tuple(output.last_hidden_state.shape))

# %% [markdown]
# ## What to conclude, and what not
#
# - The pipeline works from files to an encoder, and the check shows what the training has added.
# - These numbers hold for **simulated images**, a small network and a short training. They say
#   nothing about your microscope.
# - Reconstructions and losses do not tell whether embeddings are useful. Test them on the question
#   that you have.
#
# ## What changes at scale
#
# | here | for results |
# |---|---|
# | a few hundred crops | hundreds of thousands of crops, from many samples, days and settings |
# | `stedfm-vit-64-p8`, squares of 64 pixels | `--recipe small`, crops of 224 pixels: the architecture of the published weights |
# | 1000 steps on a CPU | many epochs on GPUs with `torchrun` or SLURM, from the same command |
# | random initial weights | `--init-from ./stedfm-vit-small` starts from the published weights |
#
# [Pretrain](../how-to/pretrain.md) has the commands for GPUs and clusters; [Cost at
# scale](../benchmarks/scaling.md) has hours and memory.
