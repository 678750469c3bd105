"""PipelineTasks: the only place that knows connections and dimensions."""

from .compare_subtractions import *
from .cut_stamps import *
from .detect_dia_sources import *
from .diagnose_sources import *
from .gather_tables import *
from .measure_difference_metrics import *
from .plot_detector import *
from .plot_registration import *
from .plot_sky_noise import *
from .plot_sources import *
from .subtract_images import *
