"""What every long command shares: errors, exit status, atomic writes, manifests with resuming, progress, wording."""

from stedfm_hf.runs.errors import EXIT_DONE, EXIT_INTERRUPTED, EXIT_ITEMS_FAILED, EXIT_USAGE, UserError
from stedfm_hf.runs.files import FileStamp, atomic_path, file_stamp, read_json, sha256_file, write_json
from stedfm_hf.runs.manifest import ItemStatus, Manifest, check_same_settings, manifest_path
from stedfm_hf.runs.progress import Progress, print_note
from stedfm_hf.runs.wording import counted, escaped, some_of

__all__ = [
    "EXIT_DONE",
    "EXIT_INTERRUPTED",
    "EXIT_ITEMS_FAILED",
    "EXIT_USAGE",
    "ItemStatus",
    "FileStamp",
    "Manifest",
    "Progress",
    "UserError",
    "atomic_path",
    "check_same_settings",
    "counted",
    "escaped",
    "file_stamp",
    "manifest_path",
    "read_json",
    "sha256_file",
    "some_of",
    "print_note",
    "write_json",
]
