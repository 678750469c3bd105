"""PipelineTasks: the only place that knows connections and dimensions."""

from .adopt_difference import *
from .calibrate_difference import *
from .classify_sources import *
from .compare_subtractions import *
from .cut_stamps import *
from .detect_dia_sources import *
from .diagnose_sources import *
from .force_methods import *
from .gather_tables import *
from .match_truth import *
from .measure_detector_maps import *
from .measure_difference_metrics import *
from .plot_detector import *
from .plot_image_statistics import *
from .plot_registration import *
from .plot_sky_noise import *
from .plot_sources import *
from .plot_survey import *
from .plot_visit import *
from .subtract_images import *
from .summarize_methods import *
from .summarize_truth import *
