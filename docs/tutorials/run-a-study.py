# %% [markdown]
# # Run a study in your lab
#
# After this tutorial you can ask your colleagues about images in the browser: decide how many
# answers you need, send everyone a private link, and analyse the answers.
#
# The question of the tutorial: **do people recognise structures better in STED images than in
# confocal images?** Each participant sees images of both kinds, one at a time, and names the
# structure. Your study may ask something else; step 7 shows the other three tasks.
#
# You need no GPU. On two CPU cores everything takes about two minutes. Lines that start with `!`
# are commands: in a terminal, type them without the `!`. The other lines are Python. The server and
# the analysis need two extras: `pip install ".[serve,studies]"` in a clone of the repository.
#
# Run this page as a notebook (`pip install jupyterlab`). In plain Python, leave out the lines with
# `Image` and open the PNG files that they name.
#
# ## 1. The images
#
# The images are **simulated**, and so are the participants below, so that everyone can run this
# page. The first command writes six STED images of each of four structures, and the confocal image
# of each. The second one writes images with hardly any noise: their structures are obvious, which
# is useful for practice and to check whether somebody pays attention.

# %%
# !stedfm data simulate --structures rings fibres puncta mitochondria --per-structure 6 --no-masks --confocal --output fields
# !stedfm data simulate --structures rings fibres puncta mitochondria --per-structure 1 --first-index 1000 --photons 500 500 --no-masks --output easy

# %% alt="One simulated field of each of four structures: above the STED image, below the confocal image"
import atexit
import re
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Image

from stedfm_hf import read_image
from stedfm_hf.reports import show_image, style

plt.rcParams["figure.dpi"] = 150
structures = ["fibres", "mitochondria", "puncta", "rings"]

with style():
    figure, rows = plt.subplots(2, 4, figsize=(7.6, 3.9), gridspec_kw={"wspace": 0.05, "hspace": 0.05})
    for row, kind in zip(rows, ["images", "confocal"]):
        row[0].set_ylabel("STED" if kind == "images" else "confocal")
        for axes, structure in zip(row, structures):
            image = read_image(f"fields/{kind}/{structure}/{structure}_00000.tif")
            show_image(axes, image.array[0], pixel_size_nm=image.pixel_size_nm[1])
    for axes, structure in zip(rows[0], structures):
        axes.set_title(structure)

# %% [markdown]
# *The same simulated fields with both resolutions. Participants will see them without the names.*
#
# ## 2. Build the study
#
# A study is a folder with a study file, `study.yaml`, and its images. `stedfm study build` makes
# both from folders of images, or from results of other commands. A source is `GROUP=FOLDER`; the
# groups are what the study compares. For the task `classify`, the subfolder of an image is the right
# answer.

# %%
# !stedfm study build STED=fields/images confocal=fields/confocal --type classify --title "Name the structure" --output study
# !head -n 14 study/study.yaml

# %% [markdown]
# The names of the images say nothing about what they show. `study/stimuli.parquet` records where
# each of them came from.
#
# Now open `study/study.yaml` in an editor and add what a command cannot know: the texts that
# participants read, practice and attention trials, and, **before anybody has answered**, the rules
# by which you will exclude answers and the result that you expect. Here the lines are appended:

# %% language="bash"
# cat >> study/study.yaml <<'END'
# instructions: |
#   You will see microscope images, one at a time. Choose the structure that you see.
#   It takes about five minutes. If you are not sure, guess.
# consent: |
#   Your answers are stored under a random number, without your name. You can stop at any time.
# practice:
# - {id: practice-1, image: ../easy/images/rings/rings_01000.tif, truth: rings}
# - {id: practice-2, image: ../easy/images/puncta/puncta_01000.tif, truth: puncta}
# attention:
# - {id: attention-1, image: ../easy/images/fibres/fibres_01000.tif, truth: fibres}
# - {id: attention-2, image: ../easy/images/mitochondria/mitochondria_01000.tif, truth: mitochondria}
# exclude: {min_response_s: 0.5, max_fast: 0.2, min_attention: 0.5}
# expect: {STED: 0.9, confocal: 0.65}
# END

# %% [markdown]
# | key | meaning here |
# |---|---|
# | `practice` | two trials with feedback before the study; they are not analysed |
# | `attention` | two trials with an obvious answer, mixed into the others |
# | `min_response_s`, `max_fast` | answers faster than 0.5 s are excluded, and participants with more than 20 % of them |
# | `min_attention` | participants who fail more than half of the attention trials are excluded |
# | `expect` | a guess: 90 % right answers with STED images, 65 % with confocal ones; used in the next step |
#
# ## 3. How many participants and answers do you need?
#
# `stedfm study simulate` runs the study many times with simulated participants who behave as you
# expect, but differ from each other, and counts how often the analysis finds the difference. This
# is the power. Try sizes that you can afford; `--trials` is the number of images that each
# participant sees.

# %%
# !stedfm study simulate study/study.yaml --participants 4 8 12 --trials 24 48 --repeats 100 --output plan

# %% alt="Power over the number of participants, one line for each number of trials, with the wanted power of 0.8"
Image("plan/figures/power.png", width=520)

# %% [markdown]
# *Fraction of 100 simulated studies with p < 0.05, with its 95 % interval. The dashed line is a power
# of 0.8: four of five such studies find the difference.*
#
# - **Four participants can never be enough**, regardless of the number of images: if all four agree,
#   the p-value of the test over participants is 2 / 2⁴ = 0.125.
# - **More participants help more than more images.** Compare 12 participants with 24 images and 8 with
#   48: the 12 give fewer answers in total, so the command recommends them. If you have few colleagues
#   with much time, take 8 with all 48 images, as this tutorial does.
# - The result is as good as the guess in `expect`. Halve the difference between the two numbers and
#   run the command again: it shows what a study of this size would overlook.
#
# The command also writes the answers of one simulated study, `plan/answers.parquet`. Analyse them as
# you will analyse the real ones (step 6), to see whether the report answers your question, before
# you ask anybody.
#
# ## 4. Serve the study and invite people
#
# The server runs until you stop it, so start it in a second terminal:
# `stedfm study serve study/study.yaml --port 0`. On this page it runs in the background, and what it
# prints goes into a file:

# %%
log = Path("server.txt")
with log.open("w") as file:
    server = subprocess.Popen("stedfm study serve study/study.yaml --port 0".split(), stdout=file, stderr=file)
atexit.register(server.terminate)  # also if a cell below fails
while "Ctrl-C" not in log.read_text() and server.poll() is None:
    time.sleep(0.2)
print(log.read_text())

# %% [markdown]
# The line `for you` is your page: progress, new links and the answers to download. Keep it to yourself;
# it is new at every start. `--port 0` takes any free port. For a real study choose a fixed one, such
# as `--port 8330`, because the links of the participants contain it.
#
# Each participant gets a private link. It is a password and a bookmark at once: after a pause,
# participants come back by it. Links are not stored, so keep the output. Invite one or two people
# more than you need.

# %%
# !stedfm study invite answers.sqlite --participants 9 > links.txt
# !head -n 2 links.txt

# %% [markdown]
# Open one of the links: this is what a participant sees.
#
# ![A trial on a phone: progress, the question, the image, and four buttons with the names of structures](../images/study-phone.png){ width=300 }
#
# *A trial with a simulated image, on a phone. On a computer, the keys A to D work, too.*
#
# The server is reachable from this computer only. [Run a study](../how-to/run-a-study.md) says what
# other computers need: a proxy with HTTPS, `--host` and `--address`.
#
# ## 5. Collect answers
#
# **With real people, you wait now.** On this page, simulated participants fill in the same web forms
# as a browser. They recognise an image by its content, and name the structure with a fixed
# probability: 90 % right in STED and 75 % in confocal images, where they also take most rings for
# fibres. One of the nine is careless and clicks at random after 0.3 s. The rules should find this
# participant.

# %%
from stedfm_hf.studies.serving.images import encode
from stedfm_hf.studies.study import read_study

study = read_study("study/study.yaml")
stimuli = list(study.by_id.values())
numbers = {encode(Path("study", each.image)): number for number, each in enumerate(stimuli)}


def choose(participant, number):
    """Return the answer of a simulated participant to a stimulus, and the time in seconds."""
    stimulus, rng = stimuli[number], np.random.default_rng([participant, number])
    if participant == 0:  # the careless one
        return rng.choice(study.classes), 0.3
    is_confocal = stimulus.group == "confocal"
    right = 0.25 if is_confocal and stimulus.truth == "rings" else 0.75 if is_confocal else 0.9
    others = ["fibres"] if right == 0.25 else [each for each in study.classes if each != stimulus.truth]
    return stimulus.truth if rng.random() < right else rng.choice(others), rng.lognormal(1.0, 0.4)


def take_part(participant, link):
    """Answer all trials of a private link through its pages."""
    with httpx2.Client(base_url=link.partition("/p/")[0], follow_redirects=True, trust_env=False) as browser:
        browser.post(f"{link}/start")
        while 'class="answer" method' in (page := browser.get(link).text):
            image = browser.get(re.search(r'<img src="([^"]+)"', page)[1]).content
            answer, seconds = choose(participant, numbers[image])
            form = dict(re.findall(r'type="hidden" name="(\w+)" value="(\d*)"', page.partition("</form>")[0]))
            form |= {"choice": study.classes.index(answer), "seconds": f"{seconds:.3f}"}
            time.sleep(0.25)  # the server ignores faster answers: they are double clicks
            browser.post(f"{link}/answer", data=form).raise_for_status()


links = Path("links.txt").read_text().split()
with ThreadPoolExecutor(len(links)) as people:
    list(people.map(take_part, range(len(links)), links))

# %% [markdown]
# Export the answers whenever you like, also while the server runs. `--overwrite` replaces an earlier
# export, and the analysis of one.

# %%
# !stedfm study export answers.sqlite

# %% [markdown]
# Then stop the server, in a terminal with Ctrl-C. If it stops by accident, start it again with the
# same port: participants continue where they were.

# %%
server.terminate()
server.wait()
print(log.read_text().splitlines()[-1])

# %% [markdown]
# The table has one row for each answer: who (a random number), what was shown, what was answered,
# and how long it took ([all columns](../how-to/run-a-study.md#the-table-of-answers)).

# %%
answers = pd.read_parquet("answers.parquet")
answers.loc[answers["kind"] == "trial", ["stimulus", "answer", "response_s", "undone"]].head()

# %% [markdown]
# ## 6. Analyse the answers

# %%
# !stedfm study analyse study/study.yaml answers.parquet

# %% [markdown]
# `analysis/report.html` holds everything. Read it in this order.
#
# ### Who was excluded?

# %%
people = pd.read_parquet("analysis/participants.parquet")
people[["answers", "analysed", "completed", "attention", "fast", "excluded"]].round(2)

# %% [markdown]
# The rules of the study file excluded the careless participant. Rules that are chosen after the
# answers are known can turn chance into a result; so look here first, and change nothing.
#
# ### Is there a difference?

# %% alt="Mean recall of each participant with STED and confocal images, joined by lines, with means and chance"
Image("analysis/figures/scores.png", width=420)

# %% [markdown]
# *Each grey line is a participant (simulated). Diamonds are the means over participants with their
# 95 % intervals; the dashed line is chance, one of four structures.* The score is the mean recall:
# the fraction of right answers, averaged over the structures. Look at the lines: if most go down from
# STED to confocal, participants agree on the direction. The p-value that the command prints says how
# often a difference as large would appear if the two labels meant nothing; above 0.05, the study has
# not found a difference, which is not the same as no difference.
#
# ### Which structures are confused?

# %% alt="Confusion matrix of the confocal images: rings are mostly taken for fibres"
Image("analysis/figures/confusion_2.png", width=380)

# %% [markdown]
# *Confocal images: each row is a true structure, and its numbers are the fractions of the answers.* On
# the diagonal, answers are right. Here rings are mostly taken for fibres, as the simulated
# participants were told to do. A mean score hides this: without rings, the two resolutions differ
# less.
#
# The report also shows how much participants agree, a mixed model, and tests over images. A small
# p-value over participants says that other people would find the same with these images; a small one
# over images says that it holds for other images like these.
#
# ## 7. Other tasks
#
# Everything above works in the same way for the other tasks. Only the stimuli and the score differ:
#
# | task | a participant | build it from | score |
# |---|---|---|---|
# | `classify` | names what an image shows | folders of images; the subfolder is the right answer | mean recall, confusion matrices |
# | `choose` | sees an image and one picture of each group, and chooses the best one | maps of two models: `stedfm study build A=maps-a B=maps-b --type choose --images fields/images` | fraction of choices of each group |
# | `real-or-generated` | says whether an image is real; with `--paired`, which of two is | results of `stedfm generate`, which contain the originals | fraction of right answers, d′ |
# | `rank` | says which of two images is more similar to an example, about n log₂ n times | results of `stedfm search` with two models, or images: `--type rank --example query.tif` | fraction of the first ten images, strength of each image |
#
# A ranking needs no right answers and has no `trials`: the number of comparisons follows from the
# number of images. This one asks which of 16 images are most similar to an image of rings, with at
# most 49 comparisons for each participant:

# %%
# !stedfm study build STED=fields/images confocal=fields/confocal --type rank --example easy/images/rings/rings_01000.tif --max-images 8 --output ranking
# !head -n 5 ranking/study.yaml

# %% [markdown]
# ## Before you ask real people
#
# - **Ask for permission.** Most institutes want to see a study with people before it starts, also one
#   without names. Say in `consent` what happens with the answers.
# - **Try it yourself.** Invite yourself once, on a phone and on a computer, and delete
#   `answers.sqlite` afterwards. Once there are answers, the server refuses a changed study file.
# - **Ask for a computer** if details matter: on a phone, three pictures to choose from are only about
#   100 CSS pixels wide.
# - **Keep `answers.sqlite` on a local disk**, and export from time to time: the table is a backup.
# - **Images of the same cell are not independent.** Here, everyone sees each field twice, once with
#   each resolution, and may remember it. `trials: 24` shows a random half of the images to each
#   participant.
#
# ## What to conclude, and what not
#
# - You can now plan a study, run it, and read its report.
# - All images and all answers on this page are **simulated**. The result was put in by step 5, and
#   says nothing about people.
#
# ## Next
#
# | you want to | read |
# |---|---|
# | know all options, the study file and the tables | [Run a study](../how-to/run-a-study.md) |
# | make maps to choose from | [Explain what a model looks at](../how-to/explain.md) |
# | generate images | [Generate images](../how-to/generate.md) |
# | search for similar images, to rank them | [Find similar images and places](../how-to/search.md) |
