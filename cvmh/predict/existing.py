"""Which outputs may be written: their names, what is there already, and what need not be made."""

import tempfile
from collections.abc import Collection
from pathlib import Path

from cvmh.errors import CvmhError, OutputError
from cvmh.geo.output import SUFFIXES, check_name, check_output
from cvmh.geo.raster import Raster
from cvmh.predict.identity import scene_moment
from cvmh.predict.journal import folder_of
from cvmh.predict.options import AUTO, PredictOptions
from cvmh.predict.prepare import Job

KEY_TAG = "CVMH_KEY"
SUFFIX_OF = {
    "scores": SUFFIXES,
    "confidence": SUFFIXES,
    "preview": (".png",),
    "report": (".json",),
}


def check_outputs(mask: Path, options: PredictOptions) -> None:
    """Refuse names of outputs that could not be written, before any work is done.

    Where samples of the scene will be looked at, it refuses what is there already too.

    Raises:
        OutputError: a name has the wrong suffix, its folder is missing, two outputs are one, or one
            exists.
    """
    check_name(mask)
    outputs = options.outputs()
    for name, path in outputs.items():
        suffixes = SUFFIX_OF.get(name)
        if suffixes is not None and path.suffix.lower() not in suffixes:
            raise OutputError(f"--{name} must end in {' or '.join(suffixes)}, got {path}")
        if name == "vectors":
            from cvmh.geo.vectors import check_vectors

            # Whether it may be replaced is asked with all the others, by refuse_existing.
            check_vectors(path, overwrite=True)
        if not path.parent.is_dir():
            raise OutputError(f"the folder {path.parent} of {path.name} does not exist; create it")
        if path.is_dir():
            raise OutputError(f"--{name} {path} is a folder; name a file")
    paths = output_paths(mask, options)
    for path in paths:
        if paths.count(path) > 1:
            raise OutputError(f"two outputs would be the same file, {path}; give each its own name")
    is_new = not (options.overwrite or options.resume or folder_of(mask).exists())
    if is_new and AUTO in (options.prune, options.overlap):
        refuse_any(mask, options)


def refuse_any(mask: Path, options: PredictOptions, *, allowed: Collection[str] = ()) -> None:
    """Refuse outputs that are there already.

    Args:
        mask: the mask.
        options: name the others.
        allowed: paths that may be replaced.

    Raises:
        OutputError: an output exists.
    """
    for name, path in {"mask": mask, **options.outputs()}.items():
        if path.exists() and str(path.resolve()) not in allowed:
            is_other = name == "mask" and options.resume
            which = " and was made with other settings" if is_other else ""
            raise OutputError(
                f"{name} {path} exists{which}; choose another name or add --overwrite"
            )


def output_paths(mask: Path, options: PredictOptions) -> list[Path]:
    """Return where all outputs will lie, whatever way they were named."""
    return [path.resolve() for path in (mask, *options.outputs().values())]


def is_done(job: Job, key: str) -> bool:
    """Return whether ``resume`` was asked for and every output is there, of these settings."""
    if not job.options.resume or not _is_made_with(job, key):
        return False
    return all(path.exists() for path in job.options.outputs().values())


def refuse_existing(job: Job, key: str, *, allowed: Collection[str] = ()) -> None:
    """Refuse to replace what is there, unless told, or unless it is to be made again.

    Args:
        job: what is predicted.
        key: the digest of its settings.
        allowed: paths that may be replaced whether that was told or not.

    Raises:
        OutputError: an output exists, or would replace a file of the scene or the area of interest.
    """
    check_output(job.output, job.raster, overwrite=True)
    paths = {"mask": job.output, **job.options.outputs()}
    sources = [source for source in job.raster.files if source.exists()]
    for name, path in paths.items():
        if path.exists() and any(source.samefile(path) for source in sources):
            raise OutputError(f"{name} {path} would replace its own scene; choose another name")
        aoi = job.options.aoi
        if aoi is not None and path.exists() and Path(aoi).exists() and path.samefile(aoi):
            raise OutputError(f"{name} {path} would replace the --aoi; choose another name")
    if job.options.overwrite or (job.options.resume and _is_made_with(job, key)):
        return
    refuse_any(job.output, job.options, allowed=allowed)


def try_folders(outputs: Collection[Path]) -> None:
    """Write a nameless file into the folder of each output, so that none fails after the work.

    Raises:
        OutputError: a folder cannot be written.
    """
    for path in {path.parent.resolve(): path for path in outputs}.values():
        try:
            tempfile.TemporaryFile(dir=path.parent).close()
        except OSError as error:
            raise OutputError(
                f"{path} cannot be written ({error.strerror}); choose another folder"
            ) from error


def _is_made_with(job: Job, key: str) -> bool:
    """Return whether the mask is there, of these settings, and no older than its scene."""
    if not job.output.is_file() or job.output.stat().st_mtime_ns < scene_moment(job.raster):
        return False
    try:
        with Raster(job.output) as mask:
            return mask.tags.get(KEY_TAG) == key
    except CvmhError:
        # Something else of that name; whoever is asked to write it will refuse.
        return False
