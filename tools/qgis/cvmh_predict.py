"""Segment a raster layer from the Processing toolbox of QGIS, by calling the ``cvmh`` command.

Add this one file with *Toolbox > Scripts > Add script to toolbox*, or copy it into the folder
``processing/scripts`` of your QGIS profile. Nothing is installed into QGIS: cvmh runs as a program
of its own, in its own environment, and tells how far it is.
"""

# ruff: noqa: D102 - the methods are those of QGIS.

import contextlib
import json
import os
import queue
import shlex
import subprocess
import threading
import time

from qgis.core import (
    QgsProcessing,
    QgsProcessingAlgorithm,
    QgsProcessingException,
    QgsProcessingParameterDefinition,
    QgsProcessingParameterFile,
    QgsProcessingParameterRasterDestination,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterString,
    QgsProcessingParameterVectorDestination,
)

# What QGIS sets for its own Python and GDAL; cvmh has others.
FOREIGN = ("PYTHONPATH", "PYTHONHOME", "GDAL_DATA", "GDAL_DRIVER_PATH", "PROJ_LIB", "PROJ_DATA")
SECONDS_BETWEEN_LOOKS = 0.2
SECONDS_TO_STOP = 20


class CvmhPredict(QgsProcessingAlgorithm):
    """Segment a scene: a mask with its legend and, if wanted, polygons."""

    def createInstance(self):
        return CvmhPredict()

    def name(self):
        return "cvmh_predict"

    def displayName(self):
        return "Segment a scene (cvmh)"

    def shortHelpString(self):
        return (
            "Gives each pixel of a raster its class. The mask lies exactly on the scene, is 255 "
            "where the scene has no data, and brings its legend along. MODEL is a bundle, a "
            "trained network in one .safetensors file. COMMAND is the program: its full path "
            "unless it is on the PATH, for example C:\\cvmh\\.venv\\Scripts\\cvmh.exe. OPTIONS "
            "are more options of 'cvmh predict', for example --tta --overlap auto."
        )

    def initAlgorithm(self, configuration=None):
        self.addParameter(QgsProcessingParameterRasterLayer("INPUT", "Scene"))
        self.addParameter(
            QgsProcessingParameterFile("MODEL", "Model", fileFilter="Bundles (*.safetensors)")
        )
        self.addParameter(QgsProcessingParameterRasterDestination("OUTPUT", "Mask"))
        self.addParameter(
            QgsProcessingParameterVectorDestination(
                "VECTORS",
                "Polygons",
                QgsProcessing.TypeVectorPolygon,
                optional=True,
                createByDefault=False,
            )
        )
        command = os.environ.get("CVMH", "cvmh")
        for parameter in (
            QgsProcessingParameterString("COMMAND", "The cvmh program", defaultValue=command),
            QgsProcessingParameterString("OPTIONS", "More options", optional=True),
        ):
            advanced = QgsProcessingParameterDefinition.FlagAdvanced
            parameter.setFlags(parameter.flags() | advanced)
            self.addParameter(parameter)

    def processAlgorithm(self, parameters, context, feedback):
        scene = self.parameterAsRasterLayer(parameters, "INPUT", context)
        if scene is None or scene.providerType() != "gdal":
            raise QgsProcessingException("the scene must be a raster file")
        results = {"OUTPUT": self.parameterAsOutputLayer(parameters, "OUTPUT", context)}
        arguments = [
            self.parameterAsString(parameters, "COMMAND", context),
            *("predict", scene.source(), "-o", results["OUTPUT"]),
            *("--checkpoint", self.parameterAsFile(parameters, "MODEL", context)),
            # QGIS has asked already.
            *("--overwrite", "--progress", "json"),
        ]
        if parameters.get("VECTORS"):
            results["VECTORS"] = self.parameterAsOutputLayer(parameters, "VECTORS", context)
            arguments += ["--vectors", results["VECTORS"]]
        arguments += split(self.parameterAsString(parameters, "OPTIONS", context))
        run(arguments, feedback)
        return {} if feedback.isCanceled() else results


def split(text):
    """Split options as they are typed; a backslash is one, as in the paths of Windows."""
    words = shlex.shlex(text, posix=True)
    words.whitespace_split, words.escape, words.commenters = True, "", ""
    return list(words)


def run(arguments, feedback):
    """Run cvmh, show its progress and its words, and stop it when the user cancels."""
    feedback.pushCommandInfo(subprocess.list2cmdline(arguments))
    environment = {key: value for key, value in os.environ.items() if key not in FOREIGN}
    try:
        process = subprocess.Popen(
            arguments,
            env={**environment, "PYTHONIOENCODING": "utf-8"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            # No console window on Windows.
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
    except OSError as error:
        raise QgsProcessingException(
            f"{arguments[0]} cannot be started ({error}); give the full path in COMMAND"
        ) from error
    last = follow(process, feedback)
    if process.returncode and not feedback.isCanceled():
        raise QgsProcessingException(last or f"cvmh ended with exit code {process.returncode}")


def follow(process, feedback):
    """Pass on what a process says until it ends, and return its last sentence."""
    lines, last, patience = queue.Queue(), "", None
    threading.Thread(target=read_lines, args=(process.stdout, lines), daemon=True).start()
    while True:
        if feedback.isCanceled() and patience is None:
            patience = time.monotonic() + SECONDS_TO_STOP
            process.terminate()
        elif patience is not None and time.monotonic() > patience:
            process.kill()
        try:
            line = lines.get(timeout=SECONDS_BETWEEN_LOOKS)
        except queue.Empty:
            continue
        if line is None:
            process.stdout.close()
            process.wait()
            return last
        if not show_progress(line, feedback) and line.strip():
            last = line.strip()
            feedback.pushConsoleInfo(last)


def read_lines(stream, lines):
    for line in stream:
        lines.put(line)
    lines.put(None)


def show_progress(line, feedback):
    """Show a line of progress, and return whether it was one."""
    with contextlib.suppress(ValueError, TypeError, KeyError, ZeroDivisionError):
        told = json.loads(line)
        feedback.setProgress(100 * told["done"] / told["total"])
        feedback.setProgressText(
            f"{told['stage']}: {told['done']} of {told['total']} {told['unit']}"
        )
        return True
    return False
