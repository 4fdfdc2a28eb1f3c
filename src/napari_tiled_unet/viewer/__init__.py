"""The napari face: the only place that imports napari, Qt and magicgui."""
