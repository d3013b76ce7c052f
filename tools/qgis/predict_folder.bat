@echo off
rem From a folder of scenes to a folder of masks and polygons, each with its legend for QGIS.
rem
rem   predict_folder.bat SCENES OUTPUT MODEL.safetensors [more options of cvmh predict]
rem
rem Run it again after an interruption, or after new scenes have come: what is done is not repeated.
rem Exit code: 0 all done, 3 some scenes failed (each is named), else nothing was done.
setlocal
if "%~3"=="" (
    echo usage: %~nx0 SCENES OUTPUT MODEL.safetensors [options of cvmh predict] 1>&2
    exit /b 2
)
set "scenes=%~1"
set "output=%~2"
set "model=%~3"
set "options="
:collect
if "%~4"=="" goto predict
set options=%options% %4
shift /4
goto collect
:predict
if not exist "%output%" mkdir "%output%" || exit /b 2
cvmh predict "%scenes%\*.tif" -o "%output%\{stem}.tif" --vectors "%output%\{stem}.gpkg" --checkpoint "%model%" --resume %options%
exit /b %ERRORLEVEL%
