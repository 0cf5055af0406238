"""Frames as the csv files beside tables and figures have them."""

import pandas as pd


def csv_text(frame: pd.DataFrame) -> str:
    """The same bytes on every system; ten digits, so that the last bits of a sum do not show."""
    return frame.to_csv(index=False, lineterminator="\n", float_format="%.10g")
