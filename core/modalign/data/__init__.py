"""Reading, checking and sampling of preference data."""

from modalign.data.badrows import BadRow, write_bad_rows
from modalign.data.data import Data, read
from modalign.data.prepared import Prepared, prepare
from modalign.data.sampling import permutation
from modalign.data.survey import Report, check

__all__ = ["BadRow", "Data", "Prepared", "Report", "check", "permutation", "prepare", "read", "write_bad_rows"]
