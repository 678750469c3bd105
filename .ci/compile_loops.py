"""Compile the loops over pixels and sources, once: tests that run side by side would each compile them again.

What is compiled is kept beside the code.
"""

from lsst.diainspect.simulation import ObservingConditions, SceneConfig, simulate_pair
from lsst.diainspect.tasks import (
    CutStampsTask,
    DetectDiaSourcesTask,
    DiagnoseSourcesTask,
    MeasureDetectorMapsTask,
    SubtractImagesTask,
)


def main() -> None:
    """Send a small pair through the tasks that have such loops."""
    scene = SceneConfig(star_density=60.0, star_magnitudes=(16.5, 23.0), n_transients=8, n_variables=3)
    conditions = ObservingConditions(science_seeing=0.9, template_seeing=0.75)
    pair = simulate_pair(conditions, scene, seed=3, size=300)
    for method in ("al", "zogy"):
        config = SubtractImagesTask.ConfigClass()
        config.subtractor.name = config.connections.method = method
        made = SubtractImagesTask(config=config).run(pair.science, pair.template)
        sources = DetectDiaSourcesTask().run(made.difference, made.score).diaSources
        cut = CutStampsTask().run(sources, made.filters, made.difference, pair.science, pair.template)
        maps = MeasureDetectorMapsTask().run(
            pair.science, pair.template, made.difference, made.filters, made.kernelSources
        )
        DiagnoseSourcesTask().run(cut.stamps, made.filters, made.kernelSources, maps.maps)


main()
