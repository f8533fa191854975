"""Public data sets, read as they lie on disk after download: one small file each, all behind `base.Layout`.

`open_layout(root)` finds out which one a folder is, or is told. `LAYOUTS` is the list; a new data set is one file and
one line here.
"""

from __future__ import annotations

from pathlib import Path

from domains.errors import ConfigError, DataError
from domains.layouts.annotated import Annotated
from domains.layouts.autolaparo import AutoLaparo
from domains.layouts.base import Contour, Layout, Note, Recording, Span, Text, check_disjoint
from domains.layouts.camus import Camus
from domains.layouts.cholec80 import Cholec80
from domains.layouts.cholect45 import CholecT45
from domains.layouts.cholect50 import CholecT50
from domains.layouts.echonet_dynamic import EchoNetDynamic
from domains.layouts.echonet_lvh import EchoNetLVH
from domains.layouts.echonet_pediatric import EchoNetPediatric
from domains.layouts.egoclip import EgoClip
from domains.layouts.epic_kitchens import EpicKitchens100
from domains.layouts.heichole import HeiChole
from domains.layouts.jigsaws import Jigsaws
from domains.layouts.mimic_iv_echo import MimicIvEcho
from domains.layouts.rvenet import RVENet
from domains.layouts.tmed2 import Tmed2
from domains.layouts.x_ego import XEgo
from domains.schema import nearest

__all__ = [
    "LAYOUTS", "Contour", "Layout", "Note", "Recording", "Span", "Text", "check_disjoint", "detect", "layout_named",
    "layout_names", "open_layout",
]  # fmt: skip

LAYOUTS: list[type[Layout]] = [
    EchoNetDynamic, EchoNetPediatric, EchoNetLVH, Camus, MimicIvEcho, Tmed2, RVENet,
    Cholec80, CholecT45, CholecT50, AutoLaparo, HeiChole, Jigsaws,
    EpicKitchens100, EgoClip, XEgo,
    Annotated,
]  # fmt: skip


def layout_names() -> list[str]:
    """What `open_layout` takes as a name."""
    return [layout.name for layout in LAYOUTS]


def detect(root: str | Path) -> str | None:
    """The name of the data set in a folder, None for a folder of one's own.

    Raises DataError where there is no such folder, or where it holds the tables of more than one data set.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError("no such folder", where=root)
    found = [layout.name for layout in LAYOUTS if layout.matches(root)]
    if len(found) > 1:
        what = f"the folder looks like {' and '.join(found)}"
        raise DataError(what, where=root, do="Say which, or keep each data set in a folder of its own")
    return found[0] if found else None


def open_layout(root: str | Path, name: str | None = None) -> Layout:
    """The data set in a folder. name: which one; detected where it is not given. No table is read yet.

    Raises ConfigError for a name that there is not (with the nearest), DataError for a folder that is no data set we
    know.
    """
    root = Path(root)
    if name is None:
        name = detect(root)
    elif not root.is_dir():
        raise DataError("no such folder", where=root)
    if name is None:
        known = ", ".join(layout_names())
        raise DataError("no data set that is known", where=root, do=f"Known: {known}. Give the folder with its tables")
    return layout_named(name)(root)


def layout_named(name: str) -> type[Layout]:
    """Raises ConfigError for a name that there is not, with the nearest."""
    for layout in LAYOUTS:
        if layout.name == name:
            return layout
    raise ConfigError(f"no layout '{name}'", do=nearest(name, layout_names()))
