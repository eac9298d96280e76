"""The Prepare stage: model and rows become files on the volume, so no GPU ever waits for a download."""
