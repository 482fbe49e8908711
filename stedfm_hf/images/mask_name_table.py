"""Names that programs give to masks: suffixes, folders and a table by program."""

from __future__ import annotations

from dataclasses import dataclass

IMAGES = ("images", "image", "imgs", "img")
MASKS = ("masks", "mask", "labels", "label", "annotations", "annotation", "ground_truth", "groundtruth", "gt")
"""Names of folders of images and of their masks, in lower case."""
ROI_SUFFIXES = (".zip", ".roi")
TEXT_SUFFIXES = (".txt",)
OUTLINE_SUFFIXES = (*ROI_SUFFIXES, *TEXT_SUFFIXES)
"""Suffixes of files of outlines: ImageJ ROIs and text."""
REGION_END = "_region"
"""End of the names of regions of interest."""
POLYGONS_END = ".polys"
"""End of the names of polygons in the layout of the reference, `a.polys.txt`."""


@dataclass(frozen=True)
class MaskName:
    """Name of a file that belongs to the image `a.tif`.

    Attributes:
        program: Program that writes files with this name. If one program wrote several masks of an image, the first
            in `MASK_NAMES` is used.
        before: Text before `a`, in lower case.
        after: Text after `a`, in lower case.
        suffixes: Suffixes of the file; () for image files and outlines.
        folder_only: Whether the name is that of a mask in a folder of masks only.
        certain: Whether a file with this name is never an image, even if no image has its name.
        is_mask: Whether the file is a mask, and not another result of the program.
        numbered: Whether the numbers in the mask are those of objects, and not of classes.
    """

    program: str
    before: str = ""
    after: str = ""
    suffixes: tuple[str, ...] = ()
    folder_only: bool = False
    certain: bool = False
    is_mask: bool = True
    numbered: bool = False


MASK_NAMES = (
    # The name of the image: in a folder of masks. Fiji also saves ROIs as a.zip or a.roi next to the image.
    MaskName("", folder_only=True),
    MaskName("", suffixes=ROI_SUFFIXES),
    # This package, StarDist's and many other data sets.
    MaskName("", after="_mask", certain=True),
    MaskName("", after="-mask"),
    # Results of `stedfm segment`, corrected and given as a folder of masks.
    MaskName("stedfm", after=".labels1", folder_only=True),
    # Cellpose: its command line and `Save masks as PNG/tif` write _cp_masks, its training data have _masks. _seg.npy
    # is a pickle, which is not read. Outlines and flows are other results.
    MaskName("Cellpose", after="_cp_masks", certain=True, numbered=True),
    MaskName("Cellpose", after="_masks", certain=True, numbered=True),
    MaskName("Cellpose", after="_seg", suffixes=(".npy",), certain=True),
    MaskName("Cellpose", after="_rois", suffixes=ROI_SUFFIXES),
    MaskName("Cellpose", after="_cp_outlines", suffixes=TEXT_SUFFIXES),
    MaskName("Cellpose", after="_cp_outlines", is_mask=False),
    MaskName("Cellpose", after="_cp_output", is_mask=False),
    MaskName("Cellpose", after="_outlines", is_mask=False),
    MaskName("Cellpose", after="_flows", is_mask=False),
    MaskName("Cellpose", after="_cp_flows", is_mask=False),
    # StarDist in Python, Fiji, QuPath and napari.
    MaskName("StarDist", after="_labels"),
    MaskName("StarDist", after="_label"),
    MaskName("StarDist", after=".labels"),
    MaskName("StarDist", after="_stardist", numbered=True),
    MaskName("StarDist", after=".stardist", numbered=True),
    # Fiji: RoiSets of the ROI manager, label images of MorphoLibJ, and masks of `Analyze Particles`.
    MaskName("Fiji", after="_roiset", suffixes=ROI_SUFFIXES),
    MaskName("Fiji", after="-roiset", suffixes=ROI_SUFFIXES),
    MaskName("Fiji", after="-rois", suffixes=ROI_SUFFIXES),
    MaskName("Fiji", before="roiset_", suffixes=ROI_SUFFIXES),
    MaskName("Fiji", after="-labels"),
    MaskName("Fiji", after="-lbl", numbered=True),
    MaskName("Fiji", before="mask of ", certain=True),
    MaskName("Fiji", before="count masks of ", certain=True, numbered=True),
    # ilastik: `{nickname}_{result_type}`. Object Identities number the objects, Probabilities are soft masks.
    MaskName("ilastik", after="_simple segmentation", certain=True),
    MaskName("ilastik", after="_object predictions", certain=True),
    MaskName("ilastik", after="_object identities", certain=True, numbered=True),
    MaskName("ilastik", after="_probabilities", certain=True),
    MaskName("ilastik", after="_object probabilities", is_mask=False),
    MaskName("ilastik", after="_uncertainty", is_mask=False),
    MaskName("ilastik", after="_features", is_mask=False),
)
"""Names of masks, the best of each program first. Polygons may also be called `a.polys.txt` or `a_NAME.polys.txt`."""
