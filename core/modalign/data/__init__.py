"""Reading, checking, sampling and converting of preference data."""

from modalign.data.badrows import BadRow, write_bad_rows
from modalign.data.convert import Converted, convert
from modalign.data.data import Data, read
from modalign.data.prepared import Prepared, prepare
from modalign.data.sampling import permutation
from modalign.data.survey import Report, check

__all__ = [
    "BadRow",
    "Converted",
    "Data",
    "Prepared",
    "Report",
    "check",
    "convert",
    "permutation",
    "prepare",
    "read",
    "write_bad_rows",
]
