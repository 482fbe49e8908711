"""Rules that convert masks to targets: they map numbers, planes and outlines to classes in a fixed order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

import numpy as np

from stedfm_hf.labels.annotated.stored import BACKGROUND, LARGEST, Key, MaskFacts, StoredMask
from stedfm_hf.runs import UserError, counted, some_of

TargetType = Literal["single_label", "multi_label", "soft"]
Classes = Sequence[str] | Mapping[int, str]
Masks = Mapping[str, MaskFacts]
IGNORE_INDEX = 255
"""Number of ignored pixels, which were not annotated: losses and metrics exclude them."""
_BINARY = ({0, 1}, {0, IGNORE_INDEX})
_MAX_UNNAMED = 8
"""Largest number of unnamed classes with the background; masks with more numbers probably number objects."""


@dataclass(frozen=True)
class Rule:
    """Rule that converts the masks of a data set to targets.

    Attributes:
        target_type: Type of the targets.
        classes: Names of the classes in order.
        encoding: How a mask encodes classes: as numbers, as bits of numbers, or as planes.
        keys: Numbers, bits or planes of each class; () for the background of planes.
    """

    target_type: TargetType
    classes: tuple[str, ...]
    encoding: Literal["numbers", "bits", "planes"]
    keys: tuple[tuple[Key, ...], ...]

    @property
    def background(self) -> int | None:
        """Number of the background class, or None."""
        return 0 if self.target_type == "single_label" and self.classes[0].lower() == BACKGROUND else None

    def target(self, mask: StoredMask) -> np.ndarray:
        """Convert a mask to a target.

        Args:
            mask: Stored mask.

        Returns:
            `single_label`: class numbers (H, W) int64, 255 for ignored pixels; `multi_label`: (L, H, W) uint8 of 0 and
            1; `soft`: (L, H, W) float32 in [0, 1].
        """
        if self.target_type != "single_label":
            kind = np.float32 if self.target_type == "soft" else np.uint8
            return np.stack([self._plane(mask, keys).astype(kind) for keys in self.keys])
        if self.encoding == "numbers":
            numbers = np.full(LARGEST + 1, IGNORE_INDEX, np.int64)
            for number, keys in enumerate(self.keys):
                numbers[[int(key) for key in keys]] = number
            return numbers[mask.planes[0]]
        target = np.zeros(mask.planes.shape[1:], np.int64)
        for number, keys in enumerate(self.keys):
            target[self._plane(mask, keys) > 0] = number
        return target

    def region(self, mask: StoredMask) -> np.ndarray | None:
        """Return the annotated pixels, (H, W) bool; None: all.

        Targets with planes have no number for ignored pixels, so the region excludes these pixels.

        Args:
            mask: Stored mask.
        """
        if self.target_type == "single_label" or self.encoding != "numbers" or self._has_key(IGNORE_INDEX):
            return mask.region
        left_out = mask.planes[0] == IGNORE_INDEX
        if not left_out.any():
            return mask.region
        return ~left_out if mask.region is None else mask.region & ~left_out

    def pixels(self, facts: MaskFacts) -> np.ndarray:
        """Return the number of pixels of each class, (L,) int64; pixels above 0 for soft masks.

        Args:
            facts: Pixel counts of a mask.
        """
        if self.encoding == "planes":
            keys = facts.keys or tuple(range(facts.planes))
            positive = [
                sum(facts.positive[keys.index(key)] for key in keys_of_class if key in keys)
                for keys_of_class in self.keys
            ]
            if self.background is not None:
                positive[0] = facts.size - facts.touched
            # Planes of one class may overlap; for a single class, the pixels are known.
            if sum(map(bool, self.keys)) == 1:
                positive[-1] = facts.touched
            return np.minimum(np.array(positive, np.int64), facts.size)
        values = facts.values or {}
        counts = []
        for keys in self.keys:
            bits = sum(int(key) for key in keys) if self.encoding == "bits" else 0
            counts.append(sum(n for value, n in values.items() if value & bits or (not bits and value in keys)))
        return np.array(counts, np.int64)

    def annotated(self, facts: MaskFacts) -> int:
        """Return the number of pixels that belong to any class except the background.

        Args:
            facts: Pixel counts of a mask.
        """
        if self.encoding == "planes":
            return facts.touched
        if self.encoding == "bits":
            return facts.size - (facts.values or {}).get(0, 0)
        # Each pixel has one number, so the counts add up.
        return int(self.pixels(facts)[0 if self.background is None else 1 :].sum())

    def _plane(self, mask: StoredMask, keys_of_class: tuple[Key, ...]) -> np.ndarray:
        """Return the pixels of one class in any encoding, (H, W) bool, or float32 for fractions.

        A class that the mask does not have gives an empty plane; overlapping planes are combined by their maximum.
        """
        if self.encoding == "numbers":
            return np.isin(mask.planes[0], [int(key) for key in keys_of_class])
        if self.encoding == "bits":
            return (mask.planes[0] & sum(int(key) for key in keys_of_class)) > 0
        keys = mask.keys or tuple(range(len(mask.planes)))
        found = [mask.planes[keys.index(key)] for key in keys_of_class if key in keys]
        if not found:
            return np.zeros(mask.planes.shape[1:], np.uint8)
        plane = found[0] if len(found) == 1 else np.max(found, axis=0)
        return plane if plane.dtype.kind == "f" else plane > 0

    def _has_key(self, key: Key) -> bool:
        return any(key in keys for keys in self.keys)


def parse_classes(words: Sequence[str] | None) -> Classes | None:
    """Parse the class names of a command line: names in order, or `NUMBER=NAME` pairs.

    Args:
        words: Arguments of the option; None: not given.

    Example:
        >>> parse_classes(["rings", "fibres"]), parse_classes(["0=background", "4=puncta"])
        (['rings', 'fibres'], {0: 'background', 4: 'puncta'})
    """
    if words is None or not all(word.partition("=")[0].isdecimal() and "=" in word for word in words):
        return None if words is None else list(words)
    return {int(word.partition("=")[0]): word.partition("=")[2] for word in words}


def make_rule(
    masks: Masks,
    *,
    where: str,
    classes: Classes | None = None,
    target_type: str | None = None,
    known: Mapping[int, str] | None = None,
) -> Rule:
    """Infer which classes the masks of a data set encode, and assign the same class numbers in all splits.

    One plane of whole numbers is a label image, with one class per pixel and 0 for the background. If all masks hold
    only 0 and 255, 255 is class 1; otherwise pixels of 255 are ignored. Masks of programs that number objects, such as
    Cellpose, are of one class unless several are named. Several planes, or outlines of several
    classes, are one class each (`multi_label`). Fractions are soft masks. A plane is a bit field only if `multi_label`
    is requested and no name is given for the number 0.

    Args:
        masks: Pixel counts of each mask, by image id.
        where: Name of the data set, for messages.
        classes: Names of the classes 1, 2, ...; `background` may be the first. Or names by number: numbers with the
            same name are one class, and 0 is the background unless it is named.
        target_type: `single_label`, `multi_label` or `soft`; None: inferred from the masks.
        known: Names by number that the data set defines.

    Raises:
        UserError: Numbers or names are unknown (the message names the file and the numbers), the masks have different
            types, or they do not fit `target_type`.

    Example:
        >>> facts = MaskFacts((), False, 1, {0: 9, 4: 2}, (2,), 2, 11)
        >>> rule = make_rule({"a.tif": facts}, where="cells", known={0: "background", 4: "puncta"})
        >>> rule.classes, rule.keys, rule.pixels(facts).tolist()
        (('background', 'puncta'), ((0,), (4,)), [9, 2])
    """
    if target_type is not None and target_type not in get_args(TargetType):
        raise UserError(f"target type {target_type!r} is unknown; choose from {', '.join(get_args(TargetType))}")
    requested = cast("TargetType | None", target_type)
    names = _check_classes(classes, where)
    _check_one_type(masks, where)
    first = next(iter(masks.values()))
    soft = [image_id for image_id, facts in masks.items() if facts.values is None]
    if soft and requested not in (None, "soft"):
        raise UserError(
            f"{where}: the mask of {soft[0]} contains fractions; use the target type soft instead of {requested}"
        )
    if first.outlines:
        rule = _rule_from_outlines(masks, names, requested, where)
    elif first.planes > 1 or soft:
        rule = _rule_from_planes(masks, names, requested or ("soft" if soft else "multi_label"), where)
    else:
        rule = _rule_from_numbers(masks, names, requested or "single_label", known or {}, where)
    if rule.encoding == "planes" and rule.target_type == "single_label" and len(rule.classes) > 2:
        for image_id, facts in masks.items():
            if sum(facts.positive) > facts.touched:
                raise UserError(
                    f"{where}: in the mask of {image_id}, {sum(facts.positive) - facts.touched} pixels belong to "
                    "several classes; use the target type multi_label, or correct the mask"
                )
    return rule


def _check_classes(classes: Classes | None, where: str) -> Classes | None:
    """Return the class names unchanged if they are unique and not empty."""
    if classes is None or isinstance(classes, Mapping):
        names = [] if classes is None else list(classes.values())
    else:
        names = list(classes)
        if len({name.lower() for name in names}) < len(names):
            raise UserError(
                f"{where}: the class names {', '.join(names)} are not unique; use a different name for each class"
            )
        if len(names) == 1 and "," in names[0]:
            listed = " ".join(f"--classes {name.strip()}" for name in names[0].split(","))
            raise UserError(f"{where}: {names[0]!r} is the name of one class; for several classes use {listed}")
    if classes is not None and (not names or not all(name.strip() for name in names)):
        raise UserError(f"{where}: a class has no name; name all classes, or omit the names")
    return classes


def _check_one_type(masks: Masks, where: str) -> None:
    """Raise a UserError if the masks differ in type: outlines, or the number or names of their planes."""
    first_image_of: dict[str, str] = {}
    for image_id, facts in masks.items():
        kind = "outlines" if facts.outlines else f"{counted(facts.planes, 'plane')}"
        plane_names = "" if facts.outlines or not facts.keys else f" ({', '.join(map(str, facts.keys))})"
        first_image_of.setdefault(f"{kind}{plane_names}", image_id)
    if len(first_image_of) > 1:
        listed = "; ".join(f"{image_id}: {kind}" for kind, image_id in list(first_image_of.items())[:4])
        raise UserError(
            f"{where}: the masks have different types ({listed}); save all masks in the same type, or use a folder "
            "with masks of one type"
        )


def _without_background(names: Sequence[str]) -> list[str]:
    return list(names[1:]) if names and names[0].lower() == BACKGROUND else list(names)


def _grouped(pairs: Iterable[tuple[Key, str]]) -> dict[str, tuple[Key, ...]]:
    """Return the keys by name, in the order of the first key of each name."""
    groups: dict[str, tuple[Key, ...]] = {}
    for key, name in pairs:
        groups[name] = (*groups.get(name, ()), key)
    return groups


def _build_plane_rule(target_type: TargetType, groups: Mapping[str, tuple[Key, ...]]) -> Rule:
    if target_type == "single_label":
        groups = {BACKGROUND: (), **groups}
    return Rule(target_type, tuple(groups), "planes", tuple(groups.values()))


def _rule_from_planes(masks: Masks, classes: Classes | None, target_type: TargetType, where: str) -> Rule:
    """Return the rule for masks with one plane per class.

    Names that the planes have themselves may be given in any order; other names are assigned in the order of the
    planes. Planes with the same name are one class.

    Raises:
        UserError: If a plane is neither binary nor fractions, or the number of names does not fit.
    """
    for image_id, facts in masks.items():
        values = set(facts.values or ())
        if facts.values is not None and not any(values <= each for each in _BINARY):
            raise UserError(
                f"{where}: the mask of {image_id} has {facts.planes} planes and contains "
                f"{_listed(values - {0, 1})}; save one plane of 0 and 1, or 0 and 255, per class (or use --series all "
                "for a stack with a mask plane per image)"
            )
    first = next(iter(masks.values()))
    keys = first.keys or tuple(range(first.planes))
    names = [key if isinstance(key, str) else f"class {key + 1}" for key in keys]
    if isinstance(classes, Mapping):
        raise UserError(f"{where}: the masks have a plane per class; use a list of names in the order of the planes")
    if classes is not None:
        given = _without_background(classes)
        if len(given) != len(names):
            raise UserError(
                f"{where}: the masks have {len(names)} planes ({', '.join(names)}), but {len(given)} classes are "
                f"named ({', '.join(given)}); name one class per plane"
            )
        # Match planes by name if the file has these names, in any order.
        order = [names.index(name) for name in given] if set(given) == set(names) else list(range(len(names)))
        keys, names = tuple(keys[index] for index in order), given
    return _build_plane_rule(target_type, _grouped(zip(keys, names, strict=True)))


def _rule_from_outlines(masks: Masks, classes: Classes | None, target_type: TargetType | None, where: str) -> Rule:
    """Return the rule for outlines, whose classes have names, or numbers that `classes` names.

    Without `classes`, number 3 is called `class 3`. A list names the numbers 1, 2, ..., or 0, 1, ... of YOLO. Outlines
    of different numbers with the same name are one class.

    Raises:
        UserError: If `classes` does not name a class of the outlines, or there is no outline.
    """
    image_of_key = {key: image_id for image_id, facts in masks.items() for key in facts.keys}
    sorted_keys: list[Key] = [
        *sorted(k for k in image_of_key if isinstance(k, int)),
        *sorted(k for k in image_of_key if isinstance(k, str)),
    ]
    if classes is None:
        numbers = {key: f"class {key}" for key in sorted_keys if isinstance(key, int)}
        class_names: list[str] = [numbers[key] if isinstance(key, int) else key for key in sorted_keys]
    elif isinstance(classes, Mapping):
        numbers, class_names = dict(classes), list(dict.fromkeys(classes.values()))
    else:
        class_names = _without_background(classes)
        numbers = dict(enumerate(class_names, start=0 if any(each.fractions for each in masks.values()) else 1))
    names = {key: numbers.get(key, "") if isinstance(key, int) else key for key in sorted_keys}
    unknown = {key: image_of_key[key] for key, name in names.items() if name not in class_names}
    if unknown:
        image_id = next(iter(unknown.values()))
        raise UserError(
            f"{where}: the mask of {image_id} has outlines of {', '.join(map(str, unknown))}, but the classes are "
            f"{', '.join(class_names)}; name all classes"
        )
    class_names = [name for name in class_names if name.lower() != BACKGROUND]
    groups = {name: tuple(key for key, each in names.items() if each == name) for name in dict.fromkeys(class_names)}
    if not groups:
        raise UserError(
            f"{where}: every mask is empty ({counted(len(masks), 'mask')} without outlines); annotate some images"
        )
    return _build_plane_rule(target_type or ("single_label" if len(groups) == 1 else "multi_label"), groups)


def _rule_from_numbers(
    masks: Masks, classes: Classes | None, target_type: TargetType, known: Mapping[int, str], where: str
) -> Rule:
    """Return the rule for masks of one plane of whole numbers: label images, or bit fields for `multi_label`.

    255 is a class if it is named, or the foreground if all masks contain only 0 and 255; otherwise it is ignored.

    Args:
        masks: Pixel counts of each mask, by image id.
        classes: Names that the user gave: a list for 1, 2, ..., or by number; None: none.
        target_type: Type of the targets.
        known: Names by number that the data set defines; used if the user gave none.
        where: Name of the data set, for messages.

    Raises:
        UserError: If a mask contains a number without a name, or all masks are empty.
    """
    values = {value for facts in masks.values() for value in facts.values or ()}
    classes = _one_class_of_objects(masks, classes, values)
    named_numbers = classes if isinstance(classes, Mapping) else known if classes is None else {}
    binary = IGNORE_INDEX in values and values <= {0, IGNORE_INDEX} and IGNORE_INDEX not in named_numbers
    foreground = IGNORE_INDEX if binary else 1
    if IGNORE_INDEX in values and not binary and IGNORE_INDEX not in named_numbers:
        _check_ignored(masks, where)
    plane_name = next(iter(masks.values())).keys
    has_numbers = bool(named_numbers) or (
        classes is not None and len(_without_background(_names_of(classes))) < len(classes)
    )
    if target_type == "multi_label" and not has_numbers and not binary:
        return _rule_from_bits(masks, classes, values, where)
    if isinstance(classes, Mapping):
        # If 0 is not named, it is the background, as in every label image.
        unnamed = {0: BACKGROUND} if 0 in values else {}
        names = dict(sorted({**unnamed, **{int(number): name for number, name in classes.items()}}.items()))
    elif classes is not None:
        names = {0: BACKGROUND, **dict(enumerate(_without_background(classes), start=1))}
    elif known:
        unnamed_classes = (
            {value: f"class {value}" for value in values - set(known) - {IGNORE_INDEX}} if not binary else {}
        )
        names = dict(sorted({**known, **unnamed_classes}.items()))
    elif plane_name and values <= {0, 1, IGNORE_INDEX}:
        names = {0: BACKGROUND, 1: str(plane_name[0])}
    else:
        names = {0: BACKGROUND, **{n: f"class {n}" for n in sorted({1} if binary else values - {0, IGNORE_INDEX})}}
        if len(names) > _MAX_UNNAMED:
            raise UserError(
                f"{where}: the masks contain {len(names) - 1} numbers. If each object has a number, save 1 for all "
                "objects; if each class has one, name the classes with --classes"
            )
    allowed = ({0, IGNORE_INDEX} if 1 in names else {0}) if binary else {*names, IGNORE_INDEX}
    _check_values(masks, allowed, names, where)
    groups = _grouped((foreground if binary and number == 1 else number, name) for number, name in names.items())
    if target_type != "single_label":
        groups = {name: keys for name, keys in groups.items() if name.lower() != BACKGROUND}
    if not groups:
        raise UserError(f"{where}: every mask is empty ({counted(len(masks), 'mask')}); annotate some images")
    return Rule(target_type, tuple(groups), "numbers", tuple(groups.values()))


def _one_class_of_objects(masks: Masks, classes: Classes | None, values: set[int]) -> Classes | None:
    """Return one name for all numbers, if a program numbered the objects and at most one class is named.

    Masks whose names do not say so are unchanged, because their numbers may be classes.
    """
    given = [] if classes is None else _without_background(_names_of(classes))
    if isinstance(classes, Mapping) or len(given) > 1 or len(values - {0}) < 2:
        return classes
    if not all(facts.numbered for facts in masks.values()):
        return classes
    return dict.fromkeys(sorted(values - {0}), given[0] if given else "object")


def _check_ignored(masks: Masks, where: str) -> None:
    """Raise an error if some masks hold only 0 and 255 and others hold classes, so that 255 is ambiguous."""
    values_of = {image_id: set(facts.values or ()) - {0} for image_id, facts in masks.items()}
    only_255 = [image_id for image_id, values in values_of.items() if values == {IGNORE_INDEX}]
    if only_255 and not any(IGNORE_INDEX in values and len(values) > 1 for values in values_of.values()):
        other = next(image_id for image_id, values in values_of.items() if values and IGNORE_INDEX not in values)
        raise UserError(
            f"{where}: the masks of {some_of(only_255)} contain only 0 and 255, and the mask of {other} contains "
            f"{_listed(values_of[other])}. If 255 is a class, use --classes 1=NAME --classes 255=NAME; otherwise "
            "correct the masks."
        )


def _names_of(classes: Classes) -> list[str]:
    return list(classes.values()) if isinstance(classes, Mapping) else list(classes)


def _rule_from_bits(masks: Masks, classes: Classes | None, values: set[int], where: str) -> Rule:
    count = max(max(values).bit_length(), 1)
    names = [f"class {number + 1}" for number in range(count)] if classes is None else _names_of(classes)
    allowed = set(range(2 ** len(names)))
    _check_values(masks, allowed, {2**number: name for number, name in enumerate(names)}, where)
    return Rule("multi_label", tuple(names), "bits", tuple((2**number,) for number in range(len(names))))


def _check_values(masks: Masks, allowed: set[int], names: Mapping[int, str], where: str) -> None:
    """Raise a UserError if a mask contains a number that is neither a class nor ignored."""
    unknown_values = {
        image_id: extra for image_id, facts in masks.items() if (extra := set(facts.values or ()) - allowed)
    }
    if unknown_values:
        image_id, values = next(iter(unknown_values.items()))
        more = (
            f" (and {len(unknown_values) - 1} more masks contain unknown numbers)" if len(unknown_values) > 1 else ""
        )
        expected = ", ".join(f"{number} {name}" for number, name in names.items())
        raise UserError(
            f"{where}: the mask of {image_id} contains {_listed(values)}, but the classes are {expected}, and "
            f"{IGNORE_INDEX} is ignored{more}; name all numbers with --classes NUMBER=NAME "
            f"({min(values)}={BACKGROUND} for the background), or correct the mask"
        )


def _listed(values: set[int]) -> str:
    return some_of(sorted(values), 8)
