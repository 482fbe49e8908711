"""What the numbers, planes and outlines of masks mean: classes in a fixed order, and the targets of a model."""

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
LEFT_OUT = 255
"""Number of pixels that were not annotated: they are neither learned nor scored."""
_BINARY = ({0, 1}, {0, LEFT_OUT})
_MOST = 8
"""More numbers than these without names are objects that were counted, not classes."""


@dataclass(frozen=True)
class Rule:
    """How the masks of a data set become targets.

    Args:
        target_type: what the targets are.
        classes: their names in order.
        how: what in a mask means a class: a number, a bit of a number, or a plane of its own.
        keys: of every class, the numbers, bits or planes that mean it; of the background of planes none.
    """

    target_type: TargetType
    classes: tuple[str, ...]
    how: Literal["numbers", "bits", "planes"]
    keys: tuple[tuple[Key, ...], ...]

    @property
    def background(self) -> int | None:
        """Number of the class that is no annotation, if there is one."""
        return 0 if self.target_type == "single_label" and self.classes[0].lower() == BACKGROUND else None

    def target(self, mask: StoredMask) -> np.ndarray:
        """The target of a mask.

        Returns:
            (H, W) int64 numbers of classes for a single label, 255 where it is left out; else (L, H, W), uint8 of 0
            and 1 for several labels, float32 in [0, 1] for soft ones.
        """
        if self.target_type != "single_label":
            kind = np.float32 if self.target_type == "soft" else np.uint8
            return np.stack([self._plane(mask, keys).astype(kind) for keys in self.keys])
        if self.how == "numbers":
            numbers = np.full(LARGEST + 1, LEFT_OUT, np.int64)
            for number, keys in enumerate(self.keys):
                numbers[[int(key) for key in keys]] = number
            return numbers[mask.planes[0]]
        target = np.zeros(mask.planes.shape[1:], np.int64)
        for number, keys in enumerate(self.keys):
            target[self._plane(mask, keys) > 0] = number
        return target

    def region(self, mask: StoredMask) -> np.ndarray | None:
        """Where the annotation counts (H, W) bool, or None: everywhere.

        Targets of planes have no number for pixels that were left out: those are outside of the region.
        """
        if self.target_type == "single_label" or self.how != "numbers" or self._knows(LEFT_OUT):
            return mask.region
        left_out = mask.planes[0] == LEFT_OUT
        if not left_out.any():
            return mask.region
        return ~left_out if mask.region is None else mask.region & ~left_out

    def pixels(self, facts: MaskFacts) -> np.ndarray:
        """(L,) int64, pixels of every class; of a soft mask those above 0."""
        if self.how == "planes":
            keys = facts.keys or tuple(range(facts.planes))
            found = [sum(facts.positive[keys.index(key)] for key in wanted if key in keys) for wanted in self.keys]
            if self.background is not None:
                found[0] = facts.size - facts.touched
            # Planes of one class may overlap; where it is the only one, its pixels are known.
            if sum(map(bool, self.keys)) == 1:
                found[-1] = facts.touched
            return np.minimum(np.array(found, np.int64), facts.size)
        values = facts.values or {}
        counts = []
        for keys in self.keys:
            bits = sum(int(key) for key in keys) if self.how == "bits" else 0
            counts.append(sum(n for value, n in values.items() if value & bits or (not bits and value in keys)))
        return np.array(counts, np.int64)

    def annotated(self, facts: MaskFacts) -> int:
        """Pixels of any class but the background."""
        if self.how == "planes":
            return facts.touched
        if self.how == "bits":
            return facts.size - (facts.values or {}).get(0, 0)
        # No pixel has two numbers.
        return int(self.pixels(facts)[0 if self.background is None else 1 :].sum())

    def _plane(self, mask: StoredMask, wanted: tuple[Key, ...]) -> np.ndarray:
        if self.how == "numbers":
            return np.isin(mask.planes[0], [int(key) for key in wanted])
        if self.how == "bits":
            return (mask.planes[0] & sum(int(key) for key in wanted)) > 0
        keys = mask.keys or tuple(range(len(mask.planes)))
        there = [mask.planes[keys.index(key)] for key in wanted if key in keys]
        if not there:
            return np.zeros(mask.planes.shape[1:], np.uint8)
        plane = there[0] if len(there) == 1 else np.max(there, axis=0)
        return plane if plane.dtype.kind == "f" else plane > 0

    def _knows(self, key: Key) -> bool:
        return any(key in keys for keys in self.keys)


def parse_classes(words: Sequence[str] | None) -> Classes | None:
    """Names of classes as a command line has them: in order, or `NUMBER=NAME` each.

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
    """Finds out what the masks of a data set mean, and numbers the classes of all splits alike.

    One plane of whole numbers is a label image: a single label for each pixel, 0 the background. Where no mask holds
    anything but 0 and 255, 255 is class 1; else 255 is left out. Several planes are a class each, and so are several
    classes of outlines: several labels for a pixel. Fractions are soft. A plane is taken for a field of bits only
    where several labels are asked for and nothing names the number 0.

    Args:
        masks: of every image, by its name in the data set.
        where: name of the data set, for the errors.
        classes: names of the classes 1, 2, ...; `background` may stand first. A mapping from numbers to names says
            it of any numbers, numbers with one name are one class; 0 is the background where it is not named.
        target_type: `single_label`, `multi_label` or `soft`; None: what the masks are.
        known: what the data set says that the numbers mean.

    Raises:
        UserError: numbers or names are unknown (the message names the file and them), the masks are of different
            kinds, or they are not what was asked for.

    Example:
        >>> facts = MaskFacts((), False, 1, {0: 9, 4: 2}, (2,), 2, 11)
        >>> rule = make_rule({"a.tif": facts}, where="cells", known={0: "background", 4: "puncta"})
        >>> rule.classes, rule.keys, rule.pixels(facts).tolist()
        (('background', 'puncta'), ((0,), (4,)), [9, 2])
    """
    if target_type is not None and target_type not in get_args(TargetType):
        raise UserError(f"target type {target_type!r} is unknown; choose {', '.join(get_args(TargetType))}")
    wanted = cast("TargetType | None", target_type)
    names = _checked(classes, where)
    _check_one_kind(masks, where)
    first = next(iter(masks.values()))
    soft = [place for place, facts in masks.items() if facts.values is None]
    if soft and wanted not in (None, "soft"):
        raise UserError(f"{where}: the mask of {soft[0]} holds fractions: these are soft masks, not {wanted}")
    if first.outlines:
        rule = _of_outlines(masks, names, wanted, where)
    elif first.planes > 1 or soft:
        rule = _of_planes(masks, names, wanted or ("soft" if soft else "multi_label"), where)
    else:
        rule = _of_numbers(masks, names, wanted or "single_label", known or {}, where)
    if rule.how == "planes" and rule.target_type == "single_label" and len(rule.classes) > 2:
        for place, facts in masks.items():
            if sum(facts.positive) > facts.touched:
                raise UserError(
                    f"{where}: in the mask of {place} {sum(facts.positive) - facts.touched} pixels are of several "
                    "classes; train with several labels (multi_label), or mend the mask"
                )
    return rule


def _checked(classes: Classes | None, where: str) -> Classes | None:
    """The names without a leading background, which every list of names has."""
    if classes is None or isinstance(classes, Mapping):
        names = [] if classes is None else list(classes.values())
    else:
        names = list(classes)
        if len({name.lower() for name in names}) < len(names):
            raise UserError(f"{where}: the classes {', '.join(names)} are not all different")
        if len(names) == 1 and "," in names[0]:
            listed = " ".join(f"--classes {name.strip()}" for name in names[0].split(","))
            raise UserError(f"{where}: {names[0]!r} is the name of one class; for several give {listed}")
    if classes is not None and (not names or not all(name.strip() for name in names)):
        raise UserError(f"{where}: there are classes without a name; name them all, or leave the names out")
    return classes


def _check_one_kind(masks: Masks, where: str) -> None:
    kinds: dict[str, str] = {}
    for place, facts in masks.items():
        kind = "outlines" if facts.outlines else f"{counted(facts.planes, 'plane')}"
        named = "" if facts.outlines or not facts.keys else f" ({', '.join(map(str, facts.keys))})"
        kinds.setdefault(f"{kind}{named}", place)
    if len(kinds) > 1:
        listed = "; ".join(f"{place}: {kind}" for kind, place in list(kinds.items())[:4])
        raise UserError(f"{where}: the masks are of different kinds ({listed}); save all alike")


def _without_background(names: Sequence[str]) -> list[str]:
    return list(names[1:]) if names and names[0].lower() == BACKGROUND else list(names)


def _grouped(pairs: Iterable[tuple[Key, str]]) -> dict[str, tuple[Key, ...]]:
    """The keys of every name, in the order of the names' first keys."""
    groups: dict[str, tuple[Key, ...]] = {}
    for key, name in pairs:
        groups[name] = (*groups.get(name, ()), key)
    return groups


def _rule_of_planes(target_type: TargetType, groups: Mapping[str, tuple[Key, ...]]) -> Rule:
    if target_type == "single_label":
        groups = {BACKGROUND: (), **groups}
    return Rule(target_type, tuple(groups), "planes", tuple(groups.values()))


def _of_planes(masks: Masks, classes: Classes | None, target_type: TargetType, where: str) -> Rule:
    for place, facts in masks.items():
        there = set(facts.values or ())
        if facts.values is not None and not any(there <= each for each in _BINARY):
            raise UserError(
                f"{where}: the mask of {place} has {facts.planes} planes and holds {_listed(there - {0, 1})}; a plane "
                "of a class holds 0 and 1, or 0 and 255 (those of a stack, each with its own image: --series all)"
            )
    first = next(iter(masks.values()))
    keys = first.keys or tuple(range(first.planes))
    names = [key if isinstance(key, str) else f"class {key + 1}" for key in keys]
    if isinstance(classes, Mapping):
        raise UserError(f"{where}: the masks have a plane for each class; give the names as a list, in their order")
    if classes is not None:
        given = _without_background(classes)
        if len(given) != len(names):
            raise UserError(
                f"{where}: the masks have {len(names)} planes ({', '.join(names)}), and {len(given)} classes are "
                f"named ({', '.join(given)}); name one for each"
            )
        # Planes that have these names themselves are known by them, in whatever order they were given.
        order = [names.index(name) for name in given] if set(given) == set(names) else list(range(len(names)))
        keys, names = tuple(keys[place] for place in order), given
    return _rule_of_planes(target_type, _grouped(zip(keys, names, strict=True)))


def _of_outlines(masks: Masks, classes: Classes | None, target_type: TargetType | None, where: str) -> Rule:
    found = {key: place for place, facts in masks.items() for key in facts.keys}
    ordered: list[Key] = [
        *sorted(k for k in found if isinstance(k, int)),
        *sorted(k for k in found if isinstance(k, str)),
    ]
    if classes is None:
        numbers = {key: f"class {key}" for key in ordered if isinstance(key, int)}
        wanted: list[str] = [numbers[key] if isinstance(key, int) else key for key in ordered]
    elif isinstance(classes, Mapping):
        numbers, wanted = dict(classes), list(dict.fromkeys(classes.values()))
    else:
        wanted = _without_background(classes)
        numbers = dict(enumerate(wanted, start=1))
    names = {key: numbers.get(key, "") if isinstance(key, int) else key for key in ordered}
    unknown = {key: found[key] for key, name in names.items() if name not in wanted}
    if unknown:
        place = next(iter(unknown.values()))
        raise UserError(
            f"{where}: the mask of {place} has outlines of {', '.join(map(str, unknown))}, which {_is_none(unknown)} "
            f"of the classes {', '.join(wanted)}; name them all"
        )
    wanted = [name for name in wanted if name.lower() != BACKGROUND]
    groups = {name: tuple(key for key, each in names.items() if each == name) for name in dict.fromkeys(wanted)}
    if not groups:
        raise UserError(
            f"{where}: every mask is empty ({counted(len(masks), 'mask')}): there is no outline; annotate some images"
        )
    return _rule_of_planes(target_type or ("single_label" if len(groups) == 1 else "multi_label"), groups)


def _of_numbers(
    masks: Masks, classes: Classes | None, target_type: TargetType, known: Mapping[int, str], where: str
) -> Rule:
    """Label images and fields of bits."""
    values = {value for facts in masks.values() for value in facts.values or ()}
    said = classes if isinstance(classes, Mapping) else known if classes is None else {}
    binary = LEFT_OUT in values and values <= {0, LEFT_OUT} and LEFT_OUT not in said
    one = LEFT_OUT if binary else 1
    if LEFT_OUT in values and not binary and LEFT_OUT not in said:
        _check_left_out(masks, where)
    plane_name = next(iter(masks.values())).keys
    numbered = bool(said) or (classes is not None and len(_without_background(_listed_names(classes))) < len(classes))
    if target_type == "multi_label" and not numbered and not binary:
        return _of_bits(masks, classes, values, where)
    if isinstance(classes, Mapping):
        # Who names the numbers of structures means what every label image means by 0.
        unsaid = {0: BACKGROUND} if 0 in values else {}
        names = dict(sorted({**unsaid, **{int(number): name for number, name in classes.items()}}.items()))
    elif classes is not None:
        names = {0: BACKGROUND, **dict(enumerate(_without_background(classes), start=1))}
    elif known:
        others = {value: f"class {value}" for value in values - set(known) - {LEFT_OUT}} if not binary else {}
        names = dict(sorted({**known, **others}.items()))
    elif plane_name and values <= {0, 1, LEFT_OUT}:
        names = {0: BACKGROUND, 1: str(plane_name[0])}
    else:
        names = {0: BACKGROUND, **{n: f"class {n}" for n in sorted({1} if binary else values - {0, LEFT_OUT})}}
        if len(names) > _MOST:
            raise UserError(
                f"{where}: the masks hold {len(names) - 1} numbers, which are no classes if they count objects: save "
                "1 for every object then, else name the classes"
            )
    allowed = ({0, LEFT_OUT} if 1 in names else {0}) if binary else {*names, LEFT_OUT}
    _check_values(masks, allowed, names, where)
    groups = _grouped((one if binary and number == 1 else number, name) for number, name in names.items())
    if target_type != "single_label":
        groups = {name: keys for name, keys in groups.items() if name.lower() != BACKGROUND}
    if not groups:
        raise UserError(f"{where}: every mask is empty ({counted(len(masks), 'mask')}); annotate some images")
    return Rule(target_type, tuple(groups), "numbers", tuple(groups.values()))


def _check_left_out(masks: Masks, where: str) -> None:
    """Refuses masks of 0 and 255 beside masks of classes: is 255 a class there, or was nothing annotated?"""
    found = {place: set(facts.values or ()) - {0} for place, facts in masks.items()}
    alone = [place for place, values in found.items() if values == {LEFT_OUT}]
    if alone and not any(LEFT_OUT in values and len(values) > 1 for values in found.values()):
        other = next(place for place, values in found.items() if values and LEFT_OUT not in values)
        raise UserError(
            f"{where}: the masks of {some_of(alone)} hold 0 and 255 alone, and that of {other} holds "
            f"{_listed(found[other])}: is 255 a class? Save all alike, or say it: --classes 1=NAME --classes 255=NAME"
        )


def _listed_names(classes: Classes) -> list[str]:
    return list(classes.values()) if isinstance(classes, Mapping) else list(classes)


def _of_bits(masks: Masks, classes: Classes | None, values: set[int], where: str) -> Rule:
    count = max(max(values).bit_length(), 1)
    names = [f"class {number + 1}" for number in range(count)] if classes is None else _listed_names(classes)
    allowed = set(range(2 ** len(names)))
    _check_values(masks, allowed, {2**number: name for number, name in enumerate(names)}, where)
    return Rule("multi_label", tuple(names), "bits", tuple((2**number,) for number in range(len(names))))


def _check_values(masks: Masks, allowed: set[int], names: Mapping[int, str], where: str) -> None:
    bad = {place: there for place, facts in masks.items() if (there := set(facts.values or ()) - allowed)}
    if bad:
        place, values = next(iter(bad.items()))
        more = f", and {len(bad) - 1} more masks hold such numbers" if len(bad) > 1 else ""
        meant = ", ".join(f"{number} {name}" for number, name in names.items())
        raise UserError(
            f"{where}: the mask of {place} holds {_listed(values)}, which no class is ({meant}; {LEFT_OUT} is left "
            f"out){more}; name all numbers (NUMBER=NAME each; {min(values)}={BACKGROUND} leaves {min(values)} to the "
            "background), or mend the mask"
        )


def _listed(values: set[int]) -> str:
    return some_of(sorted(values), 8)


def _is_none(unknown: Mapping[Key, str]) -> str:
    return "is none" if len(unknown) == 1 else "are none"
